"""`ship`: the files for one target, written whole or not at all."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hangtag.errors import SaveError, UnknownName, UsageError
from hangtag.files import mark_own, new_folder_whole, saving, write_bytes
from hangtag.shipping import container, kserve, systemd, triton, web
from hangtag.shipping.parcel import Parcel, Shipped

__all__ = ["TARGETS", "ShipOptions", "ship"]


@dataclass(frozen=True)
class ShipOptions:
    """What some targets need to know.

    Attributes:
        runtime: where onnxruntime-web is, for `web`; see `runtime.runtime_files`.
        wheel: of hangtag, for `docker` and `systemd`; None: one is made of the package that is running.
        storage_uri, image: where `kserve` finds the model and the image; None: placeholders.
    """

    runtime: Path | None = None
    wheel: Path | None = None
    storage_uri: str | None = None
    image: str | None = None


TARGETS: dict[str, Callable[[Parcel, ShipOptions], Shipped]] = {
    "triton": lambda parcel, given: triton.ship(parcel),
    "kserve": lambda parcel, given: kserve.ship(parcel, given.storage_uri, given.image),
    "docker": lambda parcel, given: container.ship(parcel, given.wheel),
    "systemd": lambda parcel, given: systemd.ship(parcel, given.wheel),
    "web": lambda parcel, given: web.ship(parcel, given.runtime),
}
"""What a model can be shipped to, and the function that makes its files."""


def ship(parcel: Parcel, targets: list[str], folder: Path, options: ShipOptions | None = None) -> dict[str, Shipped]:
    """Write the files for the targets; those of several targets into a folder each.

    Args:
        folder: new or empty.

    Returns:
        What was written for each target, paths relative to `folder`.

    Raises:
        UsageError: an unknown target, or the folder is not empty.
        SaveError: the files cannot be written; nothing is left behind.
    """
    if not targets:
        raise UsageError("no target was named", f"choose one with --to: {', '.join(TARGETS)}")
    for target in targets:
        if target not in TARGETS:
            raise UnknownName.among("target", target, TARGETS)
    _check_new(folder)
    made = {target: TARGETS[target](parcel, options or ShipOptions()) for target in dict.fromkeys(targets)}
    if len(made) > 1:
        made = {
            target: Shipped(
                {f"{target}/{path}": content for path, content in each.files.items()},
                tuple(step.replace("{folder}", f"{{folder}}/{target}") for step in each.next),
            )
            for target, each in made.items()
        }
    with new_folder_whole(folder) as whole:
        for path, content in {path: content for each in made.values() for path, content in each.files.items()}.items():
            (whole / path).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(whole / path, content, sync=False)
        mark_own(whole)
    return made


def _check_new(folder: Path) -> None:
    with saving(folder):
        is_taken = (folder.exists() or folder.is_symlink()) and not (folder.is_dir() and not any(folder.iterdir()))
    if is_taken:
        raise SaveError(f"{folder}: is not an empty folder", "name a new folder; hangtag overwrites nothing")
