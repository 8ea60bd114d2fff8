"""A limit on the memory of a process and of all that it starts, and the most that they held.

The system enforces it where it lets us make a control group (Linux, version 1 or 2, as a rule as root); pages of files
count there too, though the system can take those back. Elsewhere a thread looks ten times a second at what the
processes hold beside files, and ends them when that is too much: `Limit.enforced_by` says which. Linux only.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Limit", "Memory", "limit", "within"]

_GROUPS = Path("/sys/fs/cgroup")
_SECONDS = 0.1
_TOO_MUCH = 9  # exit status


@dataclass(frozen=True)
class Limit:
    """`bytes` at most; `group` is a control group's folder, or None where the system grants none."""

    bytes: int
    group: Path | None

    @property
    def enforced_by(self) -> str:
        return (
            "a control group, pages of files included" if self.group else "a look every 0.1 s, without pages of files"
        )

    def times_met(self) -> int:
        """How often the group was at its limit and had to give pages back."""
        if self.group is None:
            return 0
        if (self.group / "memory.failcnt").is_file():
            return int((self.group / "memory.failcnt").read_text(encoding="ascii"))
        events = dict(line.split() for line in (self.group / "memory.events").read_text(encoding="ascii").splitlines())
        return int(events["max"])


@contextmanager
def limit(size: int) -> Iterator[Limit]:
    """A limit for `within`; its group, below this process's own, is there until the block ends."""
    group = _new_group(size)
    try:
        yield Limit(size, group)
    finally:
        if group is not None:
            _remove(group)


@dataclass
class Memory:
    """The most bytes, beside pages of files, that this process and those it started held together since `restart`."""

    most: int = 0

    def restart(self) -> None:
        self.most = 0


@contextmanager
def within(given: Limit) -> Iterator[Memory]:
    """This process and what it starts from now on are under the limit; for good, so use a process of its own."""
    if given.group is not None:
        (given.group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    memory, over = Memory(), threading.Event()

    def look() -> None:
        while not over.wait(_SECONDS):
            memory.most = max(memory.most, _held(_family(os.getpid())))
            if given.group is None and memory.most > given.bytes:
                os._exit(_TOO_MUCH)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        over.set()
        thread.join()


def _new_group(size: int) -> Path | None:
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, own = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        group = _GROUPS / controllers / own.lstrip("/") / f"hangtag-benchmark-{os.getpid()}"
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        with suppress(OSError):
            group.mkdir()
            try:
                (group / name).write_text(str(size), encoding="ascii")
                return group
            except OSError:
                group.rmdir()
    return None


def _remove(group: Path) -> None:
    """Its processes have ended, or are about to."""
    for _ in range(50):
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)


def _family(root: int) -> list[int]:
    """A process and all it started, directly or not."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
                parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    family = [root]
    for process in family:
        family += [child for child, parent in parents.items() if parent == process]
    return family


def _held(processes: list[int]) -> int:
    """Bytes that are no file's: pages shared by several processes are counted once."""
    total = 0
    for process in processes:
        with suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1]) * 1024
    return total
