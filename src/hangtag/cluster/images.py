"""How labelled images reach the workers of a cluster: mapped from a file that all nodes see, or through Ray.

The cached arrays of a dataset are a file. A node on which that file exists, with the same content, maps it; to others,
the pixels travel once through Ray's object store.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hangtag.cluster.connect import Cluster, on_each_node
from hangtag.data.labelled_images import LabelledImages, content_hashes
from hangtag.words import bytes_in_words, listed

__all__ = ["SharedImages", "received"]


class SharedImages:
    """Labelled images for the workers.

    Attributes:
        message: what a worker needs for `received`.
        in_words: how the pixels get there, in a sentence.
    """

    def __init__(self, cluster: Cluster, data: LabelledImages) -> None:
        import ray

        file = _file_of(data)
        without = _nodes_without(cluster, file) if file else []
        size = bytes_in_words(data.images.nbytes)
        pixels = None
        if file is None or without:
            pixels = ray.put(np.ascontiguousarray(data.images))
            where = f"{listed(without)} cannot map {file['path']}" if file else "they are in memory"
            self.in_words = f"images travel through Ray's object store ({size}), because {where}"
        else:
            self.in_words = f"all nodes map the images from {file['path']} ({size})"
        _ = data.contents  # hashed once, not by each worker
        facts = replace(data, images=data.images[:0], names=list(data.names))
        self.message: dict[str, Any] = {
            "facts": ray.put(facts), "contents": ray.put(data.contents), "file": file, "pixels": pixels,
        }  # fmt: skip


def received(message: Mapping[str, Any]) -> LabelledImages:
    """In a worker: the images."""
    import ray

    facts, contents = ray.get([message["facts"], message["contents"]])
    images = _mapped(message["file"]) if message["file"] else None
    data: LabelledImages = replace(facts, images=ray.get(message["pixels"]) if images is None else images)
    vars(data)["contents"] = contents
    return data


def _file_of(data: LabelledImages) -> dict[str, Any] | None:
    """The file that the images are mapped from, and how its content is recognised; None for images in memory."""
    images = data.images
    root: Any = images
    while isinstance(root, np.ndarray) and not (isinstance(root, np.memmap) and not isinstance(root.base, np.ndarray)):
        root = root.base
    if not isinstance(root, np.memmap) or root.filename is None or not images.flags.c_contiguous or not len(images):
        return None
    start = root.offset + images.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    file = {"path": str(Path(root.filename).absolute()), "offset": start, "shape": images.shape}
    return {**file, "hashes": content_hashes(_some(images)).tolist()}


def _some(images: Any) -> Any:
    """The first, middle and last image."""
    return np.stack([images[0], images[len(images) // 2], images[-1]])


def _mapped(file: Mapping[str, Any]) -> Any:
    """The images, if the file exists here and holds them; else None."""
    try:
        images = np.memmap(file["path"], np.uint8, "r", file["offset"], tuple(file["shape"]))
    except (OSError, ValueError):
        return None
    return images if content_hashes(_some(images)).tolist() == file["hashes"] else None


def _nodes_without(cluster: Cluster, file: Mapping[str, Any]) -> list[str]:
    """The names of the nodes that cannot map the file."""
    found = on_each_node(cluster, _can_map, file)
    return [f"node {name}" for name, can in found.items() if not can]


def _can_map(file: Mapping[str, Any]) -> bool:
    return _mapped(file) is not None
