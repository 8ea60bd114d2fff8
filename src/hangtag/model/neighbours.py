"""Small copies of some training images, and finding those most similar to a picture.

They are kept beside the model in the run folder (`neighbours.npz`, no pickle), not in the model file: sharing a model
does not share its training images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import RunError
from hangtag.npz import Limits, read_npz, write_npz
from hangtag.pictures import Images

__all__ = ["FILE", "KEPT", "Neighbour", "Neighbours", "chosen", "read_neighbours", "write_neighbours"]

FILE = "neighbours.npz"
KEPT = 2000
"""Number of training images to keep, evenly over the classes."""

THUMB = 64  # longest side in pixels


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A training image similar to a picture.

    Attributes:
        picture: (h, w) or (h, w, 3) uint8, at most `THUMB` pixels a side.
        label: its class.
        similarity: cosine similarity of the two embeddings, at most 1.
    """

    picture: NDArray[np.uint8]
    label: str
    similarity: float


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Training images and their embeddings.

    Attributes:
        pictures: (M, h, w[, 3]) uint8.
        labels: (M,) indices of their classes.
        embeddings: (M, E) float16, of unit length.
    """

    pictures: Images
    labels: NDArray[np.int64]
    embeddings: NDArray[np.float16]

    def __repr__(self) -> str:
        return f"<Neighbours: {len(self.labels):,} training images>"

    @classmethod
    def of(cls, images: Images, labels: NDArray[np.int64], embeddings: NDArray[np.float32]) -> "Neighbours":
        """Reduce (M, H, W[, 3]) images to `THUMB` pixels a side and (M, E) embeddings to unit length."""
        step = -(-max(images.shape[1:3]) // THUMB)
        small = [_reduced(image, step) for image in images]
        return cls(np.stack(small), labels, _unit(embeddings).astype(np.float16))

    def nearest(self, embedding: NDArray[np.float32], names: tuple[str, ...], count: int = 6) -> list[Neighbour]:
        """The `count` images most similar to `embedding` (E,), most similar first."""
        similarity = self.embeddings.astype(np.float32) @ _unit(embedding[None])[0]
        best = np.argsort(-similarity, kind="stable")[:count]
        return [Neighbour(self.pictures[at], names[self.labels[at]], float(similarity[at])) for at in best]


def _reduced(image: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """The means of squares of `step` pixels of an image (H, W[, 3])."""
    high, wide = (side // step for side in image.shape[:2])
    squares = image[: high * step, : wide * step].reshape(high, step, wide, step, *image.shape[2:])
    means: NDArray[np.uint8] = np.rint(squares.mean(axis=(1, 3))).astype(np.uint8)
    return means


def chosen(
    labels: NDArray[np.int64], seed: int, count: int = KEPT, preferred: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Positions of at most `count` images, drawn at random, each class up to an equal share.

    Args:
        preferred: positions of images that are drawn before the others of their class; None: no image is preferred.
    """
    random, later = np.random.default_rng(seed), np.ones(len(labels), bool)
    later[[] if preferred is None else preferred] = False
    present = np.unique(labels)
    each = max(1, count // max(1, len(present)))
    drawn = (random.permutation(np.flatnonzero(labels == label)) for label in present)
    some = [positions[np.argsort(later[positions], kind="stable")[:each]] for positions in drawn]
    return np.sort(np.concatenate(some)) if some else np.zeros(0, np.int64)


def write_neighbours(folder: Path, kept: Neighbours) -> None:
    """Save to a run folder; raises SaveError if it cannot be written."""
    arrays: dict[str, NDArray[Any]] = {"pictures": kept.pictures, "labels": kept.labels, "embeddings": kept.embeddings}
    write_npz(folder / FILE, arrays)


def read_neighbours(folder: Path, classes: int, size: int) -> Neighbours | None:
    """The neighbours saved in a run folder; None if there are none.

    Args:
        classes: number of classes of the model.
        size: E, the length of its embeddings.

    Raises:
        RunError: the file is damaged or belongs to another model.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    most, hint = max(KEPT, classes), "delete it; predictions do not need it"
    limits = {
        "pictures": Limits(np.uint8, (most, THUMB, THUMB, 3), (3, 4)), "labels": Limits(np.int64, (most,)),
        "embeddings": Limits(np.float16, (most, size)),
    }  # fmt: skip
    kept = Neighbours(**read_npz(path, limits, hint))
    fits = len(kept.pictures) == len(kept.labels) == len(kept.embeddings) and kept.embeddings.shape[1:] == (size,)
    has_classes = not len(kept.labels) or (kept.labels.min() >= 0 and kept.labels.max() < classes)
    if not fits or not has_classes or not np.isfinite(kept.embeddings).all():
        raise RunError(f"{path}: does not belong to this model", hint)
    return kept


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
