"""Pictures that were gathered -> decoded into the cache, once, and opened from there as `LabelledImages`."""

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.choose_size import Size, choose_spec, with_background
from hangtag.data.describe import counted, notes_on, sentence_on
from hangtag.data.labelled_images import PARTS, LabelledImages, Source
from hangtag.data.manifest import Manifest
from hangtag.data.picture_facts import UNREAD
from hangtag.data.public.catalog import NAMED
from hangtag.data.store import cache
from hangtag.data.store.cache import Pictures
from hangtag.data.store.containers import Container, Folder
from hangtag.data.store.pool import Decoded, Pool
from hangtag.errors import DataError
from hangtag.mapped import as_slice
from hangtag.pictures import ImageSpec, reads_heic
from hangtag.progress import Progress
from hangtag.words import natural

__all__ = ["decoded", "key_of", "open_kept"]

_LOOKED_AT = 200  # pictures that a first guess is made of
_PART_NUMBERS: dict[str | None, int] = {None: -1} | {part: at for at, part in enumerate(PARTS)}


def key_of(*parts: object) -> str:
    """A name for an entry of the cache; another one where other pictures can be read."""
    said = repr((cache.VERSION, reads_heic(), *parts))
    return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def open_kept(key: str, container: Container) -> LabelledImages | None:
    """What the entry holds, unless a picture is missing from it that could not be read then and can be now."""
    found = cache.open_pictures(key)
    if found is None:
        return None
    unread = [each.name for each in found.skipped if each.kind in UNREAD]
    if unread and (not isinstance(container, Folder) or any(map(container.gives, unread))):
        cache.drop(key)
        return None
    return _opened(found)


def decoded(
    pool: Pool, manifest: Manifest, origin: str, key: str, size: Size, progress: Progress | None
) -> LabelledImages:
    """What was gathered, decoded into the cache part after part.

    Args:
        origin: what to call the place it was gathered from.
        key: of the entry, see `key_of`.

    Raises:
        DataError: no picture can be read, or those that can are of one class.
        SaveError: the cache cannot be written.
    """
    manifest = manifest.by_part()
    with cache.building(key, origin) as folder:
        spec, found, facts = _into(pool, manifest, folder, size, progress)
        skipped = (*manifest.skipped, *found.skipped)
        if not len(found.good):
            raise DataError(
                f"{origin}: none of {len(manifest.wanted):,} pictures can be read: {counted(skipped)}",
                _public_set(manifest, origin) or "mend them",
            )
        good = found.good.tolist()
        labels = [manifest.labels[row] for row in good]
        names = tuple(sorted(set(labels), key=natural))
        if len(names) < 2:
            more = f" (set aside: {counted(skipped)})" if skipped else ""
            raise DataError(
                f"{origin}: there is only one class: {names[0]}{more}", "a classifier needs at least two classes"
            )
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        kept = spec
        if size.spec is None:
            kept = with_background(spec, images, np.argsort(facts["pixels"], kind="stable"), facts)
        del images
        number = {name: index for index, name in enumerate(names)}
        parts = [manifest.parts[row] for row in good]
        groups, group_names = None, []
        if manifest.groups is not None:
            found_names, inverse = np.unique([manifest.groups[row] for row in good], return_inverse=True)
            groups, group_names = inverse.astype(np.int64), found_names.tolist()
        arrays: dict[str, NDArray[Any] | None] = {
            "labels": np.array([number[label] for label in labels], np.int64),
            "parts": np.array([_PART_NUMBERS[each] for each in parts], np.int8),
            "groups": groups,
        }
        said = {
            "what": origin, "name": manifest.name, "kind": manifest.kind, "classes": names,
            "spec": kept.to_json(), "decoded_as": spec.to_json(), "group_names": group_names,
            "notes": notes_on(kept, facts, found.notes, set(manifest.labels) - set(names), skipped),
            "skipped": [each.to_json() for each in skipped],
        }  # fmt: skip
        cache.keep(folder, key, said, arrays, [manifest.wanted[row].name for row in good])
    cache.make_room(key)
    pictures = cache.open_pictures(key)
    if pictures is None:
        raise DataError(
            f"{origin}: the decoded pictures vanished from the cache", "is something clearing it? try again"
        )
    return _opened(pictures)


def _public_set(manifest: Manifest, origin: str) -> str:
    """How to read files that are called as those of a public set, whose form is not that of pictures; else ""."""
    names = {Path(each.name).name for each in manifest.wanted}
    found = [each for each in NAMED.values() if names & {file.name for file in each.files}]
    return f"they look like {found[0].title}: name it: {found[0].name} --path {origin}" if found else ""


def _opened(found: Pictures) -> LabelledImages:
    said = found.said
    data = LabelledImages(
        images=found.images,
        labels=found.labels,
        class_names=tuple(said["classes"]),
        name=said["name"],
        parts={
            name: as_slice(np.flatnonzero(found.parts == number))
            for number, name in enumerate(PARTS)
            if (found.parts == number).any()
        },
        names=found.names,
        groups=found.groups,
        group_names=tuple(said.get("group_names", ())),
        picture_facts=found.facts,
        source=Source(said["what"], "", tuple(said["notes"]), found.skipped, ImageSpec(**said["spec"])),
    )
    return replace(data, source=replace(data.source, description=sentence_on(data, said["kind"], found.facts)))


def _into(
    pool: Pool, manifest: Manifest, folder: Path, size: Size, progress: Progress | None
) -> tuple[ImageSpec, Decoded, NDArray[Any]]:
    """images.npy and facts.npy in the folder; a spec, what came of it, and the facts."""
    spec, one_size = _guess(pool, manifest, folder, size)
    while True:
        found = pool.decode(manifest.wanted, spec, folder, cache.known_like(spec), progress, one_size)
        facts = np.load(folder / "facts.npy", allow_pickle=False)
        exact = choose_spec(facts, len(facts), size) if len(facts) else spec
        if exact == spec:
            return spec, found, facts
        (folder / "images.npy").unlink()  # the first pictures were not like the others: once more
        spec, one_size = exact, False
        (folder / "guess.json").write_text(json.dumps(spec.to_json()), encoding="utf-8")


def _guess(pool: Pool, manifest: Manifest, folder: Path, size: Size) -> tuple[ImageSpec, bool]:
    """A spec by some of the pictures, spread evenly, and whether all of these have its size."""
    if size.spec is not None:
        return size.spec, False
    said = folder / "guess.json"  # an interrupted decoding is gone on with by the same guess
    if said.is_file():
        return ImageSpec(**json.loads(said.read_text(encoding="utf-8"))), False
    step = max(1, len(manifest.wanted) // _LOOKED_AT)
    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
        pool.decode(manifest.wanted[::step], None, Path(temporary))
        facts = np.load(Path(temporary) / "facts.npy", allow_pickle=False)
    spec = choose_spec(facts, len(manifest.wanted), size) if len(facts) else ImageSpec(32, 32)
    said.write_text(json.dumps(spec.to_json()), encoding="utf-8")
    return spec, bool((facts["height"] == spec.height).all() and (facts["width"] == spec.width).all())
