"""Some training pictures kept small, and finding those that a picture looks like to the network.

They lie beside the model in the run folder (`neighbours.npz`, no pickle), not in the model file: whoever gets the model
does not get the pictures it learned from.
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import RunError
from hangtag.files import write_bytes
from hangtag.pictures import Images

__all__ = ["FILE", "KEPT", "Neighbour", "Neighbours", "chosen", "read_neighbours", "write_neighbours"]

FILE = "neighbours.npz"
KEPT = 2000
"""Training pictures that are kept, classes evenly."""

THUMB = 64  # pixels a side, at most


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A training picture near another one.

    Attributes:
        picture: (h, w) or (h, w, 3) uint8, small.
        label: its class.
        similarity: cosine of the two embeddings, 1 for the same.
    """

    picture: NDArray[np.uint8]
    label: str
    similarity: float


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Training pictures as the network sees them.

    Attributes:
        pictures: (M, h, w[, 3]) uint8.
        labels: (M,) indices of their classes.
        embeddings: (M, E) float16, of length 1.
    """

    pictures: Images
    labels: NDArray[np.int64]
    embeddings: NDArray[np.float16]

    @classmethod
    def of(cls, images: Images, labels: NDArray[np.int64], embeddings: NDArray[np.float32]) -> "Neighbours":
        step = -(-max(images.shape[1:3]) // THUMB)
        return cls(np.ascontiguousarray(images[:, ::step, ::step]), labels, _unit(embeddings).astype(np.float16))

    def nearest(self, embedding: NDArray[np.float32], names: tuple[str, ...], count: int = 6) -> list[Neighbour]:
        """The most similar ones first; `embedding` is (E,)."""
        near = self.embeddings.astype(np.float32) @ _unit(embedding[None])[0]
        best = np.argsort(-near, kind="stable")[:count]
        return [Neighbour(self.pictures[at], names[self.labels[at]], float(near[at])) for at in best]


def chosen(labels: NDArray[np.int64], seed: int, count: int = KEPT) -> NDArray[np.int64]:
    """Positions of at most `count` pictures, as many of each class as there are, up to an equal share."""
    random = np.random.default_rng(seed)
    present = np.unique(labels)
    each = max(1, count // max(1, len(present)))
    some = [random.permutation(np.flatnonzero(labels == label))[:each] for label in present]
    return np.sort(np.concatenate(some)) if some else np.zeros(0, np.int64)


def write_neighbours(folder: Path, kept: Neighbours) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, pictures=kept.pictures, labels=kept.labels, embeddings=kept.embeddings)
    write_bytes(folder / FILE, buffer.getvalue())


def read_neighbours(folder: Path, classes: int, size: int) -> Neighbours | None:
    """What a run folder keeps; None where it keeps none.

    Args:
        classes: how many the model knows.
        size: E, of its embeddings.

    Raises:
        RunError: the file is damaged or of another model.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            kept = Neighbours(arrays["pictures"], arrays["labels"], arrays["embeddings"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise RunError(f"{path}: damaged: {error}", "delete it; answers need it not") from None
    fits = len(kept.pictures) == len(kept.labels) == len(kept.embeddings) and kept.embeddings.shape[1:] == (size,)
    if not fits or kept.pictures.dtype != np.uint8 or (len(kept.labels) and not 0 <= kept.labels.max() < classes):
        raise RunError(f"{path}: does not belong to this model", "delete it; answers need it not")
    return kept


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found
