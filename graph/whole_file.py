"""Files that are there whole or not at all, and files that belong together."""

from __future__ import annotations

import glob
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none: two processes that write the same files at once are not told from each other
    fcntl = None  # type: ignore[assignment]

PATIENCE = 10.0
"""Seconds after which nobody is waited for any more: a lock that stays is not that of somebody who writes."""


def is_plain(path: Path) -> bool:
    """Whether there is a file or a folder: devices and pipes may be endless, and are not read twice."""
    return path.is_file() or path.is_dir()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the place to write what then takes that of a file; where writing fails, the file stays as it was.

    A link stays one, and a file keeps its mode.
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    _remove_left(target)
    try:
        yield partial
        if target.exists():
            shutil.copymode(target, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def turn(folder: Path, *, reading: bool = False) -> Iterator[None]:
    """Lets one process after the other write files of a folder that belong together; who reads waits for who writes.

    Nobody waits where the file system has no locks, or longer than `PATIENCE`.

    Args:
        folder: The folder.
        reading: Whether the files are read, which several processes may do at a time.
    """
    try:
        lock = -1 if fcntl is None else os.open(folder, os.O_RDONLY)
    except OSError:
        lock = -1
    try:
        if lock >= 0:
            _wait(lock, fcntl.LOCK_SH if reading else fcntl.LOCK_EX)
        yield
    finally:
        if lock >= 0:
            os.close(lock)


def _wait(lock: int, kind: int) -> None:
    until = time.monotonic() + PATIENCE
    with suppress(OSError):  # no locks here
        while True:
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= until:
                    return
                time.sleep(0.01)


def _remove_left(target: Path) -> None:
    """Removes what processes that were killed had begun to write in place of a file."""
    for left in target.parent.glob(f"{glob.escape(target.name)}.*.partial"):
        number = left.name.removeprefix(f"{target.name}.").removesuffix(".partial")
        if number.isdecimal() and not _lives(int(number)):
            with suppress(OSError):
                left.unlink()


def _lives(process: int) -> bool:
    if os.name != "posix":
        return True  # nobody can be asked without being ended
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
