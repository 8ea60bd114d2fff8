"""Downloading a public data set's files over HTTP; `datasets.py` checks them."""

import hashlib
from pathlib import Path

from hangtag.data.public.catalog import NamedSet
from hangtag.errors import DownloadError
from hangtag.progress import Progress

__all__ = ["download"]

_TIMEOUTS = (10, 60)  # seconds to connect, seconds without a byte


def download(dataset: NamedSet, mirror: str, temporary: Path, progress: Progress) -> Path:
    """The data set's files from one mirror, in a folder inside `temporary`.

    Raises:
        DownloadError: the mirror does not answer or lacks a file, or the disk is full.
    """
    import pooch
    import requests

    folder = temporary / hashlib.sha256(mirror.encode()).hexdigest()[:8]
    files = pooch.create(folder, base_url=mirror, registry=dict.fromkeys(dataset.downloads), retry_if_failed=2)
    pooch.get_logger().setLevel("ERROR")
    for name in dataset.downloads:
        bar = _DownloadBar(f"downloading {name}", progress)
        downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=65_536, timeout=_TIMEOUTS)
        try:
            files.fetch(name, downloader=downloader)
        except requests.HTTPError as error:
            status = "without a status" if error.response is None else error.response.status_code
            raise DownloadError(f"the server answered {status}", "try later") from error
        except (requests.RequestException, ValueError) as error:
            raise DownloadError("no answer", "check the network") from error
        except OSError as error:
            raise DownloadError(f"the download cannot be saved: {error.strerror}", "free some space") from error
    return folder


class _DownloadBar:
    """A progress bar for pooch that calls a `Progress` function."""

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
