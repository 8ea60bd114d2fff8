"""hangtag itself for another machine: a wheel of the installed package, and the versions that it was tried with."""

import base64
import email
import hashlib
import io
import re
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

import hangtag
from hangtag.errors import MissingExtra, UsageError
from hangtag.version import __version__

__all__ = ["constraints", "wheel"]

_EXTRA = "serve"
_TAG = "Wheel-Version: 1.0\nGenerator: hangtag\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_ENTRIES = "[console_scripts]\nhangtag = hangtag.cli.main:main\n"
_NAME = re.compile(r"hangtag-[^-]+(-\d[^-]*)?-py3-none-any\.whl")


def wheel(given: Path | None = None) -> tuple[str, bytes]:
    """The name and the content of a wheel of hangtag: the given one, or one made of the package that is running.

    hangtag is pure Python, so its files and metadata as installed are all that a wheel contains.

    Raises:
        UsageError: the given file is not a wheel of hangtag.
    """
    if given is None:
        return f"hangtag-{__version__}-py3-none-any.whl", _packed()
    try:
        content = given.read_bytes()
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"{given}: cannot be read as a wheel: {error}", "build one with: python -m build") from None
    if not _NAME.fullmatch(given.name) or not any(name.endswith(".dist-info/METADATA") for name in names):
        raise UsageError(f"{given}: is not a wheel of hangtag", "it is named hangtag-VERSION-py3-none-any.whl")
    return given.name, content


def _packed() -> bytes:
    package, info = Path(hangtag.__file__).parent, f"hangtag-{__version__}.dist-info"
    files = {
        f"hangtag/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    metadata = re.sub(r"^Version: .*$", f"Version: {__version__}", _installed().read_text("METADATA") or "", flags=re.M)
    files |= {f"{info}/METADATA": metadata.encode(), f"{info}/WHEEL": _TAG.encode()}
    files[f"{info}/entry_points.txt"] = _ENTRIES.encode()
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():  # of one date, so that the same files make the same wheel
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def constraints(content: bytes) -> bytes:
    """The installed version of every package that this wheel needs with the extra `serve`, as pip's constraints.

    Raises:
        UsageError: the wheel is of a version without this extra.
        MissingExtra: the extra `serve` is not installed here, so no versions are known to work.
    """
    found: dict[str, str] = {}
    waiting = [(line, (_EXTRA,)) for line in _requirements(content)]
    seen = set(waiting)
    while waiting:
        line, extras = waiting.pop()
        needed = Requirement(line)
        if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        try:
            package = distribution(needed.name)
        except PackageNotFoundError:
            raise MissingExtra.named(_EXTRA, needed.name) from None
        found[package.metadata["Name"].lower()] = package.version
        further = {(each, tuple(sorted(needed.extras))) for each in package.requires or ()} - seen
        seen |= further
        waiting += further
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items())).encode()


def _requirements(content: bytes) -> list[str]:
    """What a wheel of hangtag requires; raises UsageError if it does not know the extra."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(archive.read(name))
    if _EXTRA not in metadata.get_all("Provides-Extra", []):
        raise UsageError(
            f"the installed hangtag has metadata of a version without the extra '{_EXTRA}'",
            "install it again (in a checkout: pip install --editable .), or give --wheel",
        )
    return metadata.get_all("Requires-Dist", [])


def _installed() -> Distribution:
    try:
        return distribution("hangtag")
    except PackageNotFoundError:
        raise UsageError("hangtag is not installed as a package", "pip install hangtag, or give --wheel") from None


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
