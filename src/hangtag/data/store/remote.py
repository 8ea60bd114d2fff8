"""Files at addresses such as s3://bucket/photos: what pyarrow reads, and what fsspec reads in addition.

Credentials come from where the object store's own tools look for them (environment, configuration files, the machine's
role), never from an address, because addresses are written into manifests and tables. A query after ? sets what
pyarrow knows of a file system: s3://bucket/photos?endpoint_override=http://localhost:9000.
"""

import functools
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from hangtag.errors import DataError, DataNotFound, MissingExtra, StoreError, UsageError
from hangtag.files import (
    cache_home,
    is_partial,
    make_folder,
    make_own_folder,
    remove_partial,
    saving,
    user_path,
    write_bytes,
)

__all__ = [
    "Store", "Stored", "below", "is_address", "is_folder", "locked", "need_pyarrow", "open_address", "reading",
    "size_at", "store_of", "walk", "without_query",
]  # fmt: skip

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_WHOLE = ("s3", "gcs", "abfs")  # object stores: a new object is seen when it is complete
_WEB = ("http", "https", "ftp")  # a table of a stranger's must not make this machine call others
_SECRET = re.compile(r"(?i)(access_key|secret|token|password|sig)[^=&]*=")
_CREDENTIALS = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE", "UNAUTHORIZED", "EXPIRED_TOKEN", "NO_CREDENTIAL",
                "INVALID_CLIENT_TOKEN", "HTTP status 401", "HTTP status 403", "HTTP response code: 403", "Forbidden",
                "credentials", "PERMISSION_DENIED")  # fmt: skip
_NETWORK = ("NETWORK_CONNECTION", "curlCode", "timed out", "Timeout", "Connection refused", "resolve host",
            "UNAVAILABLE", "SERVICE_UNAVAILABLE", "INTERNAL_FAILURE", "SLOW_DOWN", "Cannot connect")  # fmt: skip


class Stored(NamedTuple):
    """A file of a store: its name with /, relative to the folder that was listed, and its size in bytes."""

    name: str
    size: int


def is_address(place: str) -> bool:
    """Whether a place is an address such as s3://bucket/photos, and not the name of a file."""
    return _ADDRESS.match(place) is not None


def without_query(address: str) -> str:
    """The address without ? and what follows."""
    return address.partition("?")[0]


class Store:
    """A folder on this machine, or the objects below an address, with files that exist completely or not at all.

    Args:
        place: the folder or the address.
    """

    def __init__(self, place: str) -> None:
        self.place = place

    def read(self, name: str) -> bytes:
        """The content of a file; raises DataNotFound if it does not exist, DataError if it cannot be read."""
        try:
            return (Path(self.place) / name).read_bytes()
        except FileNotFoundError:
            raise DataNotFound(f"{self.place}/{name}: does not exist", "check the name") from None
        except OSError as error:
            raise DataError(f"{self.place}/{name}: cannot be read: {error.strerror}", "check the folder") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file, replacing any of that name; raises SaveError or, at an address, DataError."""
        path = Path(self.place) / name
        make_folder(path.parent)
        write_bytes(path, content)

    def files(self, folder: str = "") -> list[Stored]:
        """The files in the store or in a folder of it, without those in further folders; empty if there is none."""
        with saving(Path(self.place)):
            try:
                with os.scandir(f"{self.place}/{folder}") as children:
                    found = [Stored(each.name, each.stat().st_size) for each in children if each.is_file()]
            except FileNotFoundError:
                return []
        return sorted(each for each in found if not is_partial(Path(each.name)))

    def clean(self, folder: str = "") -> None:
        """Delete unfinished files of killed processes; no other process may be writing there."""
        remove_partial(Path(self.place) / folder)

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        with saving(Path(self.place) / name):
            (Path(self.place) / name).unlink(missing_ok=True)

    @contextmanager
    def kept(self, folder: str) -> Iterator[tuple[Path, Callable[[Path], str]]]:
        """An empty folder on this machine, and a function that keeps a file of it and returns its new place.

        Files of an earlier call are deleted.
        """
        path = Path(self.place) / folder
        with saving(path):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        yield path, str


class _AtAddress(Store):
    @contextmanager
    def kept(self, folder: str) -> Iterator[tuple[Path, Callable[[Path], str]]]:
        system, path = _opened(self.place)

        def keep(file: Path) -> str:
            address = below(self.place, f"{folder}/{file.name}")
            with (
                reading(without_query(address), "written"),
                file.open("rb") as content,
                system.open_output_stream(f"{path}/{folder}/{file.name}", compression=None) as out,
            ):
                shutil.copyfileobj(content, out, 1 << 23)
            file.unlink()
            return address

        with tempfile.TemporaryDirectory(prefix="hangtag-") as name:
            yield Path(name), keep

    def read(self, name: str) -> bytes:
        system, path = _opened(self.place)
        with reading(f"{without_query(self.place)}/{name}"), system.open_input_file(f"{path}/{name}") as file:
            content: bytes = file.readall()
        return content

    def write(self, name: str, content: bytes) -> None:
        system, path = _opened(self.place)
        whole = getattr(system, "type_name", "") in _WHOLE
        target = f"{path}/{name}"
        temporary = target if whole else f"{target}.partial"
        with reading(f"{without_query(self.place)}/{name}", "written"):
            if not whole:
                system.create_dir(target.rpartition("/")[0], recursive=True)
            with system.open_output_stream(temporary, compression=None) as file:
                file.write(content)
            if not whole:
                system.move(temporary, target)

    def files(self, folder: str = "") -> list[Stored]:
        system, path = _opened(self.place)
        with reading(without_query(self.place)):
            return sorted(
                Stored(each.base_name, each.size) for each in _children(system, f"{path}/{folder}".rstrip("/"))
                if each.is_file and not each.base_name.endswith(".partial")
            )  # fmt: skip

    def clean(self, folder: str = "") -> None:
        """Do nothing: an object store shows no unfinished files."""

    def delete(self, name: str) -> None:
        system, path = _opened(self.place)
        with reading(f"{without_query(self.place)}/{name}", "deleted"), suppress(FileNotFoundError):
            system.delete_file(f"{path}/{name}")


def store_of(place: str) -> Store:
    """The store at an address or in a folder of this machine, which may not exist yet.

    Raises:
        UsageError: the address is not one, or holds a password.
        DataError: the object store cannot be opened.
        MissingExtra: an address needs pyarrow, which is not installed.
    """
    if not is_address(place):
        return Store(str(user_path(place).absolute()))
    _opened(place)
    return _AtAddress(place)


def open_address(address: str) -> BinaryIO:
    """A file at an address, opened for reading at any position; errors as for `reading`."""
    system, path = _opened(address)
    with reading(without_query(address)):
        file: BinaryIO = system.open_input_file(path)
        return file


def size_at(address: str) -> int:
    """The size in bytes of the file at an address; errors as for `reading`."""
    with open_address(address) as file, reading(without_query(address)):
        size: int = file.size()  # type: ignore[attr-defined]
    return size


def below(address: str, name: str) -> str:
    """The address of a file below an address."""
    place, mark, query = address.partition("?")
    return f"{place.rstrip('/')}/{name}{mark}{query}"


def walk(address: str) -> Iterator[Stored]:
    """The files below an address, in the order of their whole names; the names of one folder at a time are in memory.

    Raises:
        DataNotFound: there is none.
        DataError: the object store cannot be read.
    """
    system, path = _opened(address)

    def inside(folder: str, prefix: str) -> Iterator[Stored]:
        with reading(without_query(address)):
            found = _children(system, folder)
        found.sort(key=lambda each: each.base_name if each.is_file else f"{each.base_name}/")
        for each in found:
            if each.is_file:
                yield Stored(prefix + each.base_name, each.size)
            else:
                yield from inside(each.path, f"{prefix}{each.base_name}/")

    yield from inside(path, "")


def is_folder(address: str) -> bool:
    """Whether there are files below an address, rather than one file at it.

    Raises:
        DataNotFound: there is nothing.
        DataError: the object store cannot be read.
    """
    system, path = _opened(address)
    import pyarrow.fs

    place = without_query(address)
    with reading(place):
        found = system.get_file_info(path)
        if found.type == pyarrow.fs.FileType.NotFound:
            raise DataNotFound(f"{place}: does not exist", "check the bucket and the name")
        return bool(found.type == pyarrow.fs.FileType.Directory)


def _children(system: Any, folder: str) -> list[Any]:
    import pyarrow.fs

    found: list[Any] = system.get_file_info(pyarrow.fs.FileSelector(folder, allow_not_found=True))
    return found


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    place, _, query = address.partition("?")
    scheme, _, rest = place.partition("://")
    if scheme.lower() in _WEB:
        raise UsageError(f"{place}: web addresses are not read", "download the picture, and name its file")
    host, _, path = rest.partition("/")
    system, root = _system(scheme.lower(), host, query)
    return system, f"{root}/{path}".rstrip("/") if root else f"/{path}".rstrip("/")


@functools.cache
def _system(scheme: str, host: str, query: str) -> tuple[Any, str]:
    """The file system, and the path of its host or bucket, without a / at its end."""
    need_pyarrow()
    import pyarrow
    import pyarrow.fs

    place = f"{scheme}://{host.rpartition('@')[2]}"
    if _SECRET.search(query) or ":" in host.rpartition("@")[0]:
        raise UsageError(
            f"{place}: an address must not hold a password or key, because it is written into the manifest",
            "set it in the environment or the configuration file of the object store",
        )
    with reading(place):
        try:
            system, root = pyarrow.fs.FileSystem.from_uri(f"{scheme}://{host}/{'?' + query if query else ''}")
            return system, root.rstrip("/")
        except pyarrow.ArrowInvalid as error:
            if "nrecognized filesystem" not in str(error):
                raise UsageError(f"{place}: {_first_line(error)}", "check the address") from error
    return _by_fsspec(scheme, host)


def _by_fsspec(scheme: str, host: str) -> tuple[Any, str]:
    import pyarrow.fs

    place = f"{scheme}://{host}"
    try:
        import fsspec
    except ModuleNotFoundError:
        raise UsageError(
            f"{place}: pyarrow does not know '{scheme}' addresses",
            "install fsspec, and the package that it needs for them",
        ) from None
    try:
        system, root = fsspec.core.url_to_fs(f"{place}/")
    except (ValueError, ImportError, OSError) as error:
        raise UsageError(
            f"{place}: cannot be opened: {_first_line(error)}",
            "check the address; fsspec may need another package for it",
        ) from error
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(system)), root.rstrip("/")


@contextmanager
def reading(place: str, done: str = "read") -> Iterator[None]:
    """Turns what a file system raises inside the block into one clear error.

    Raises:
        DataNotFound: the file or bucket does not exist.
        StoreError: access is denied, or the network or the store does not answer.
        DataError: anything else.
    """
    import pyarrow

    try:
        yield
    except FileNotFoundError as error:
        raise DataNotFound(f"{place}: does not exist", "check the bucket and the name") from error
    except (OSError, pyarrow.ArrowException) as error:
        text = str(error)
        if "NO_SUCH_BUCKET" in text:
            raise DataNotFound(f"{place}: the bucket does not exist", "check its name, or create it") from error
        if any(word in text for word in _CREDENTIALS) or isinstance(error, PermissionError):
            why = "access denied, or no credentials"
            hint = (
                "set the credentials, for example AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and check their rights"
            )
        elif any(word in text for word in _NETWORK):
            why, hint = "the object store does not answer", "check the network and the endpoint; run the command again"
        else:
            raise DataError(f"{place}: cannot be {done}: {_first_line(error)}", "check the address") from error
        raise StoreError(f"{place}: cannot be {done}: {why}", hint) from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:300]


@contextmanager
def locked(place: str) -> Iterator[None]:
    """Keeps other commands on this machine from writing to the same folder or address.

    The lock of a folder is a file in it, the lock of an address a file in the cache of this user.

    Raises:
        UsageError: another command holds it.
    """
    from filelock import FileLock, Timeout

    if is_address(place):
        name = hashlib.sha256(without_query(place).rstrip("/").encode()).hexdigest()[:32]
        path = cache_home("jobs") / f"{name}.lock"
    else:
        path = user_path(place).absolute() / "_lock"
    make_own_folder(path.parent)
    lock = FileLock(path)  # released by the system when a process is killed
    with saving(path):
        try:
            lock.acquire(blocking=False)
        except Timeout:  # also an OSError
            raise UsageError(
                f"{without_query(place)}: another command is writing there", "wait until it has finished, or stop it"
            ) from None
    try:
        yield
    finally:
        lock.release()


def need_pyarrow() -> None:
    """Raises `MissingExtra` if pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra.named("parquet", "pyarrow") from None
