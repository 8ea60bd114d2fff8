"""Fetching a named set's files: from its mirrors over HTTP, or out of the system's package.

What arrives is not trusted here: `datasets.py` checks it.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hangtag.data.public.catalog import NamedSet
from hangtag.errors import DownloadError
from hangtag.progress import Progress

__all__ = ["download", "from_package_tool"]

_PATIENCE = (10, 60)  # seconds to connect, seconds without a byte


def download(wanted: NamedSet, mirror: str, temporary: Path, progress: Progress) -> Path:
    """The files of the set from one mirror, in a folder inside `temporary`.

    Raises:
        DownloadError: no answer, or not the file, or no room for it.
    """
    import pooch
    import requests

    folder = temporary / hashlib.sha256(mirror.encode()).hexdigest()[:8]
    files = pooch.create(folder, base_url=mirror, registry=dict.fromkeys(wanted.downloads), retry_if_failed=2)
    pooch.get_logger().setLevel("ERROR")
    for name in wanted.downloads:
        bar = _DownloadBar(f"downloading {name}", progress)
        downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=65_536, timeout=_PATIENCE)
        try:
            files.fetch(name, downloader=downloader)
        except requests.HTTPError as error:
            raise DownloadError(f"the server answered {_status(error)}", "try later") from error
        except (requests.RequestException, ValueError) as error:
            raise DownloadError("no answer", "check the network") from error
        except OSError as error:
            raise DownloadError(f"cannot keep the download: {error.strerror}", "free some space") from error
    return folder


def from_package_tool(wanted: NamedSet, temporary: Path, progress: Progress) -> Path:
    """The folder with the files of the set's Debian package, unpacked in `temporary`; installs nothing, needs no root.

    Raises:
        DownloadError: there is no such tool or package, or no way to it.
    """
    if wanted.debian_folder is None:
        raise DownloadError(f"no Debian package has {wanted.title}", f"get the files from {wanted.home}")
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise DownloadError("there is no apt-get here", "install the package another way")
    lists = temporary / "lists"
    (lists / "partial").mkdir(parents=True)
    own_lists = [f"-oDir::State::Lists={lists}", f"-oDir::Cache={temporary}", "-oDebug::NoLocking=1"]
    steps = (
        ["apt-get", "-qq", "download", wanted.debian_package],
        ["apt-get", "-qq", *own_lists, "update"],
        ["apt-get", "-qq", *own_lists, "download", wanted.debian_package],
    )
    for number, step in enumerate(steps):
        progress(f"asking the system's package tool for {wanted.debian_package}", number, len(steps))
        outcome = subprocess.run(step, cwd=temporary, capture_output=True, text=True, check=False)
        archives = sorted(temporary.glob(f"{wanted.debian_package}_*.deb"))
        if archives:
            unpacked = temporary / "unpacked"
            if subprocess.run(["dpkg-deb", "-x", archives[0], unpacked], capture_output=True, check=False).returncode:
                raise DownloadError(f"dpkg-deb cannot unpack {archives[0].name}", "is the disk full?")
            return unpacked / wanted.debian_folder.relative_to("/")
    lines = outcome.stderr.strip().splitlines() or ["no package came"]
    raise DownloadError(f"apt-get: {lines[-1]}", f"install {wanted.debian_package} by hand")


def _status(error: Any) -> str:
    return "nothing" if error.response is None else str(error.response.status_code)


class _DownloadBar:
    """What pooch calls a progress bar, passed on to a `Progress` function."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.what, self.progress = what, progress
        self.total = self.done = 0

    def update(self, count: int) -> None:
        self.done += count
        self.progress(self.what, min(self.done, self.total), self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass
