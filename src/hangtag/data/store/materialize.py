"""A manifest of pictures -> decoded once into the cache, and opened from there as `LabelledImages`."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.choose_size import Size, check_levels, choose_spec, with_background
from hangtag.data.class_names import joined_names
from hangtag.data.describe import counted, notes_on, notes_on_copies, notes_on_parts, sentence_on
from hangtag.data.labelled_images import PARTS, LabelledImages, Source
from hangtag.data.manifest import Answers, Manifest
from hangtag.data.picture_facts import PASSING, Skipped
from hangtag.data.public.catalog import NAMED
from hangtag.data.store import cache
from hangtag.data.store.containers import Container, Sample
from hangtag.data.store.pool import Decoded, Pool
from hangtag.errors import DataError
from hangtag.files import write_bytes
from hangtag.mapped import as_slice
from hangtag.pictures import ImageSpec, reads_heic
from hangtag.progress import Progress
from hangtag.version import __version__
from hangtag.words import natural, visible

__all__ = ["decoded", "key_of", "open_kept"]

_TRIED_AGAIN = dict.fromkeys(PASSING, 20) | {"takes too long": 2}  # the most of each kind, to bound the time
_SAMPLED = 200  # pictures from which the spec is guessed
_GUESS = "guess.json"
_PART_NUMBERS: dict[str | None, int] = {None: -1} | {part: at for at, part in enumerate(PARTS)}


def key_of(*parts: object) -> str:
    """The name of a cache entry; it also depends on this version, and on whether HEIC pictures can be read."""
    text = repr((cache.VERSION, __version__, reads_heic(), *parts))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def open_kept(
    key: str, containers: Callable[[], Sequence[Container]], answers: Answers | None = None
) -> LabelledImages | None:
    """The entry's data; None if there is none, or it is outdated.

    It is outdated if a picture that was set aside for a passing reason is good now, or if a question about the data
    has another answer.
    """
    pictures = cache.open_pictures(key)
    if pictures is None:
        return None
    if answers and not answers.are_as(pictures.index["asked"]):
        cache.set_aside(key)
        return None
    again: list[Sample] = []
    for kind, most in _TRIED_AGAIN.items():
        again += [Sample(*each[1:]) for each in pictures.index["again"] if each[0] == kind][:most]
    if again:
        with (
            tempfile.TemporaryDirectory(prefix="hangtag-") as temporary,
            Pool(containers(), min(2, len(again))) as pool,
        ):
            spec = ImageSpec(**pictures.index["decoded_as"])
            with contextlib.suppress(DataError):  # the place of these pictures is still unreadable
                if len(pool.decode(again, spec, Path(temporary)).good):
                    cache.set_aside(key)
                    return None
    return _opened(pictures)


def decoded(
    pool: Pool, manifest: Manifest, origin: str, key: str, size: Size, progress: Progress | None
) -> LabelledImages:
    """The manifest's pictures, decoded into the cache one part after the other.

    Args:
        origin: the path or name that the pictures were read from.
        key: the name of the cache entry, see `key_of`.
        size: the user's choices of size and colour.

    Raises:
        DataError: there is no picture, none can be read, or all readable pictures have the same class.
        SaveError: the cache cannot be written.
    """
    if not manifest.wanted:
        first = f" ({manifest.skipped[0].name}: {manifest.skipped[0].reason})" if manifest.skipped else ""
        raise DataError(f"{origin}: no image is left: {counted(manifest.skipped)}{first}", "correct or replace them")
    labels, notes = joined_names(manifest.labels)
    manifest = replace(manifest, labels=labels, notes=[*manifest.notes, *notes]).by_part()
    with cache.building(key, origin) as folder:
        spec, result, facts = _decode(pool, manifest, folder, size, progress)
        skipped = [Skipped(visible(s.name), s.kind, visible(s.reason)) for s in (*manifest.skipped, *result.skipped)]
        if not len(result.good):
            raise DataError(
                f"{origin}: none of the {len(manifest.wanted):,} images can be read: {counted(skipped)}; "
                f"{result.skipped[0].name}: {result.skipped[0].reason}",
                _public_set(manifest, origin) or "replace them",
            )
        good = result.good.tolist()
        part_of = np.array([manifest.parts[row] or "" for row in good])
        check_levels(facts, spec, size, origin, {part: facts[part_of == part] for part in np.unique(part_of)})
        labels = [manifest.labels[row] for row in good]
        names = tuple(sorted(set(labels), key=natural))
        if len(names) < 2 and size.spec is None:  # an existing model can be judged on one class
            more = f" (skipped: {counted(skipped)})" if skipped else ""
            hint = "a classifier needs at least two classes"
            raise DataError(f"{origin}: there is only one class: {names[0]}{more}", hint)
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        final = spec
        if size.spec is None:
            final = with_background(spec, images, np.argsort(facts["pixels"], kind="stable"), facts)
        del images
        number = {name: index for index, name in enumerate(names)}
        parts = [manifest.parts[row] for row in good]
        groups, group_names = None, []
        if manifest.groups is not None:
            unique, inverse = np.unique([manifest.groups[row] for row in good], return_inverse=True)
            groups, group_names = inverse.astype(np.int64), list(map(visible, unique.tolist()))
        numbers = np.array([number[label] for label in labels], np.int64)
        part_numbers = np.array([_PART_NUMBERS[each] for each in parts], np.int8)
        shown = [manifest.wanted[row].name for row in good]
        in_parts = {part: numbers[part_numbers == at] for at, part in enumerate(PARTS) if part in parts}
        arrays: dict[str, NDArray[Any] | None] = {"labels": numbers, "parts": part_numbers, "groups": groups}
        index = {
            "what": origin, "name": visible(manifest.name), "kind": manifest.kind, "classes": names,
            "spec": final.to_json(), "decoded_as": spec.to_json(), "group_names": group_names,
            "notes": [
                *manifest.notes,
                *notes_on_parts(names, in_parts),
                *notes_on_copies(facts["content"], numbers, part_numbers, shown),
                *notes_on(final, facts, set(manifest.labels) - set(names), skipped, size),
            ],
            "skipped": [each.to_json() for each in skipped],
            "again": _again(manifest, result), "answers": manifest.answers, "asked": manifest.asked.to_json(),
        }  # fmt: skip
        cache.save(folder, key, index, arrays, list(map(visible, shown)))
    cache.make_room(key)
    pictures = cache.open_pictures(key)
    if pictures is None:
        raise DataError(
            f"{origin}: the decoded images disappeared from the cache", "try again; another program may have cleared it"
        )
    return _opened(pictures)


def _again(manifest: Manifest, result: Decoded) -> list[list[Any]]:
    """[kind of problem, name, container, key] of each picture that was set aside for a passing reason."""
    kinds = {each.name: each.kind for each in result.skipped if each.kind in PASSING}
    return [[kinds[sample.name], *sample] for sample in manifest.wanted if sample.name in kinds] if kinds else []


def _public_set(manifest: Manifest, origin: str) -> str:
    """A hint for files with the names of a public set's files, which are not pictures; otherwise ""."""
    names = {Path(each.name).name for each in manifest.wanted}
    found = [each for each in NAMED.values() if names & {file.name for file in each.files}]
    return f"these look like files of {found[0].title}; to read them: {found[0].name} --path {origin}" if found else ""


def _opened(pictures: cache.Pictures) -> LabelledImages:
    index = pictures.index
    data = LabelledImages(
        images=pictures.images,
        labels=pictures.labels,
        class_names=tuple(index["classes"]),
        name=index["name"],
        parts={
            name: as_slice(np.flatnonzero(pictures.parts == number))
            for number, name in enumerate(PARTS)
            if (pictures.parts == number).any()
        },
        names=pictures.names,
        groups=pictures.groups,
        group_names=tuple(index["group_names"]),
        picture_facts=pictures.facts,
        source=Source(
            index["what"],
            "",
            tuple(index["notes"]),
            pictures.skipped,
            ImageSpec(**index["spec"]),
            index.get("answers", {}),
        ),
    )
    return replace(data, source=replace(data.source, description=sentence_on(data, index["kind"], pictures.facts)))


def _decode(
    pool: Pool, manifest: Manifest, folder: Path, size: Size, progress: Progress | None
) -> tuple[ImageSpec, Decoded, NDArray[Any]]:
    """Write images.npy and facts.npy into the folder; the spec, the result and the facts."""
    spec = _guess(pool, manifest, folder, size)
    while True:
        result = pool.decode(manifest.wanted, spec, folder, cache.decoded_as(spec), progress)
        facts = np.load(folder / "facts.npy", allow_pickle=False)
        exact = choose_spec(facts, len(facts), size) if len(facts) else spec
        if exact == spec:
            return spec, result, facts
        (folder / "images.npy").unlink()  # all pictures together need another spec: decode again
        spec = exact
        _write_guess(folder, spec)


def _guess(pool: Pool, manifest: Manifest, folder: Path, size: Size) -> ImageSpec:
    """A spec chosen from evenly spaced pictures."""
    if size.spec is not None:
        return size.spec
    with contextlib.suppress(Exception):  # missing or damaged; an interrupted decoding resumes with the same guess
        text, checksum = (folder / _GUESS).read_bytes().split(b"\n")
        if hashlib.sha256(text).hexdigest().encode() == checksum:
            return ImageSpec(**json.loads(text))
    step = max(1, len(manifest.wanted) // _SAMPLED)
    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
        pool.decode(manifest.wanted[::step], None, Path(temporary))
        facts = np.load(Path(temporary) / "facts.npy", allow_pickle=False)
    spec = choose_spec(facts, len(manifest.wanted), size) if len(facts) else ImageSpec(32, 32)
    _write_guess(folder, spec)
    return spec


def _write_guess(folder: Path, spec: ImageSpec) -> None:
    text = json.dumps(spec.to_json()).encode()
    write_bytes(folder / _GUESS, b"\n".join([text, hashlib.sha256(text).hexdigest().encode()]), sync=False)
