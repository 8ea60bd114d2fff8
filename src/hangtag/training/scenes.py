"""Photos that show one scene, such as those of a burst: pretrained features tell what pixels and Exif data do not.

A moved or turned camera changes all pixels, but hardly what a pretrained network sees. Held out alone, such a photo
would be answered from its neighbours in the burst, and the accuracy would be too high.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["same_scenes"]

_LIKE = 0.85
"""The least cosine of two photos of one scene. It was exceeded by 97 % of pairs where the camera moved by 3 % and
turned by 1.5 degrees, and by at most 0.4 % of pairs of other photos of one class (docs/log.md)."""
_STRANGE = 0.999  # quantile of cosines between classes: no two images of different classes show one scene
_MOSTLY = 0.75  # quantile of the distances in a class; photos of one scene are less than half as far apart
_MOST = 10_000  # images; their cosines take 0.4 GB
_LEAST_GROUPS = 2  # of a class, which must be trained on while one of them is held out


def same_scenes(embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """(N,) a number for each image, equal for images of a class that show one scene.

    None if no two do, or for more than 10,000 images. Images form a group if they are alike on average (average
    linkage), more than images of different classes, and far more than most images of their class. If all
    images of a class would form one group, they merely look alike, and the class has no groups.

    Args:
        embeddings: (N, E) of the images, by a pretrained network.
        labels: (N,) their classes.
    """
    if len(labels) > _MOST:
        return None
    from scipy.cluster.hierarchy import fcluster, linkage

    rows = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-9)
    like = rows @ rows.T
    between = like[labels[:, None] != labels]
    least = max(_LIKE, float(np.quantile(between, _STRANGE)) if len(between) else 0.0)
    groups = np.arange(len(labels))
    for name in np.unique(labels):
        members = np.flatnonzero(labels == name)
        if len(members) <= _LEAST_GROUPS:
            continue
        apart = 1 - like[np.ix_(members, members)][np.triu_indices(len(members), 1)]
        most = min(1 - least, float(np.quantile(apart, _MOSTLY)) / 2)
        found = fcluster(linkage(apart, "average"), most, "distance")
        if found.max() >= _LEAST_GROUPS:
            _, first, of = np.unique(found, return_index=True, return_inverse=True)
            groups[members] = members[first][of]
    return groups if len(np.unique(groups)) < len(groups) else None
