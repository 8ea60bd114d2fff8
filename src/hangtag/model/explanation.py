"""Why a model gave an answer: a heat map of the evidence on the picture, and the most similar training images.

The model files of built-in networks return their last feature maps, which show where the evidence is. For custom
networks, parts of the picture are covered one at a time, and the evidence of a part is how much the log odds of the
answer fall when it is covered (occlusion: Zeiler & Fergus, 2014).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hangtag.model.neighbours import Neighbour, Neighbours
from hangtag.model.predictor import Answer, Predictor
from hangtag.pictures import Picture

__all__ = ["Why", "covered", "evidence", "explain", "lost_odds"]

_PLACES = 9  # covers across and down; each cover is two places wide


@dataclass(frozen=True, eq=False)
class Why:
    """The explanation of an answer.

    Attributes:
        answer: the answer.
        seen: (H, W) or (H, W, 3) uint8, the picture as the network sees it, after any repairs.
        heat: (h, w) evidence of each place for the answer; negative is against it. In logits relative to the mean of
            all classes, or, by occlusion, in log odds of the answer.
        method: "evidence" or "occlusion".
        neighbours: the most similar training images, most similar first; empty if the run keeps none.
    """

    answer: Answer
    seen: NDArray[np.uint8]
    heat: NDArray[np.float32]
    method: str
    neighbours: tuple[Neighbour, ...]


def explain(predictor: Predictor, picture: Picture, kept: Neighbours | None = None, count: int = 6) -> Why:
    """Answer for one picture and explain the answer.

    Args:
        kept: training images to search for similar ones.
        count: number of similar images.

    Raises:
        PictureError: the picture cannot be read.
    """
    answer = predictor(picture)
    assert answer.seen is not None
    seen, pixels = answer.seen, answer.seen[None]
    near: tuple[Neighbour, ...] = ()
    if kept is not None and predictor.has_output("embedding"):
        embedding = predictor.outputs(pixels, "embedding")["embedding"][0]
        near = tuple(kept.nearest(embedding, predictor.class_names, count))
    if predictor.has_output("maps"):
        rows = predictor.outputs(pixels, "maps", "map_weights")
        return Why(answer, seen, evidence(**rows, pooling=predictor.metadata.pooling)[0], "evidence", near)
    heat = lost_odds(predictor.probabilities(covered(seen)), seen.shape)
    return Why(answer, seen, heat, "occlusion", near)


def evidence(maps: NDArray[np.float32], map_weights: NDArray[np.float32], pooling: str = "max") -> NDArray[np.float32]:
    """(N, h, w) the evidence of each place for the predicted class, in logits relative to the mean of all classes.

    Each feature times its weight, at the places that it is pooled from: of max pooling, the place of the maximum; of
    mean pooling, every place in equal parts (class activation mapping: Zhou et al., 2016). It is exact because the
    class scores are linear in the pooled features: apart from the biases, the evidence adds up to the predicted class's
    logit minus the mean logit.

    Args:
        maps: (N, V, F, h, w) the last feature maps of each view; the model's output `maps`.
        map_weights: (N, F) the model's output `map_weights`.
        pooling: "max" or "mean", of the model's metadata.
    """
    pooled = maps == maps.max(axis=(3, 4), keepdims=True) if pooling == "max" else np.ones_like(maps, bool)
    shares = np.where(pooled, maps, 0) / pooled.sum(axis=(3, 4), keepdims=True)
    places: NDArray[np.float32] = np.einsum("nvfhw,nf->nhw", shares, map_weights) / np.float32(maps.shape[1])
    return places


def covered(seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(1 + h * w, H, W[, 3]) an image, and copies with one place covered in the median colour of the border."""
    edge = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]])
    cover = np.median(edge, axis=0).astype(np.uint8)
    rows, columns = (np.linspace(0, side, count + 1).round().astype(int) for side, count in _places(seen.shape))
    pictures = [seen]
    for top in range(len(rows) - 1):
        for left in range(len(columns) - 1):
            copy = seen.copy()
            copy[
                max(0, rows[top] - (rows[1] + 1) // 2) : rows[top + 1] + (rows[1] + 1) // 2,
                max(0, columns[left] - (columns[1] + 1) // 2) : columns[left + 1] + (columns[1] + 1) // 2,
            ] = cover
            pictures.append(copy)
    return np.stack(pictures)


def lost_odds(probabilities: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """(h, w) the loss in log odds of the answer when a place is covered.

    Args:
        probabilities: (1 + h * w, K) of the images that `covered` makes.
        shape: (H, W[, 3]) of the image.
    """
    rows = probabilities.astype(np.float64)
    of_answer = np.clip(rows[:, int(rows[0].argmax())], 1e-7, 1 - 1e-7)
    odds = np.log(of_answer / (1 - of_answer))
    (_, height), (_, width) = _places(shape)
    lost: NDArray[np.float32] = (odds[0] - odds[1:]).reshape(height, width).astype(np.float32)
    return lost


def _places(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Of the height and the width: the side in pixels, and how many covers there are along it."""
    return [(side, min(_PLACES, side)) for side in shape[:2]]
