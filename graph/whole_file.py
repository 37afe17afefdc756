"""Files that are there whole or not at all."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
