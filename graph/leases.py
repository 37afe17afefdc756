"""Temporary folders that say whether whoever made them is still there, so that what was killed leaves nothing for good.

Its maker holds a lock on a file in the folder. The system lets go of it when the process ends, however it ends.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none: nothing is known to be left over there
    fcntl = None  # type: ignore[assignment]

_HELD = ".held"


class Leased:
    """A new folder that is this process's for as long as it lives, or until `close`."""

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        """Makes the folder.

        Args:
            prefix: What its name begins with.
            parent: Where it is made; None: where temporary files are.

        Raises:
            OSError: It cannot be made.
        """
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            self._file = os.open(self.path / _HELD, os.O_RDWR | os.O_CREAT, 0o600)
            if fcntl is None:
                return
            with suppress(OSError):  # a file system without locks: nobody will take the folder for a left one
                fcntl.flock(self._file, fcntl.LOCK_EX)
            if os.fstat(self._file).st_nlink:
                return
            os.close(self._file)  # somebody looked for what is left between the two steps, and removed it

    def close(self) -> None:
        """Removes the folder, whatever is in it."""
        if self._file >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._file)
            self._file = -1


def remove_left(prefix: str, parent: Path | None = None) -> None:
    """Removes the folders of processes that are gone.

    Args:
        prefix, parent: As the folders were made with.
    """
    if fcntl is None:
        return
    with suppress(OSError):
        for folder in Path(parent or tempfile.gettempdir()).glob(f"{prefix}*"):
            _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    try:
        file = os.open(folder / _HELD, os.O_RDWR)
    except OSError:  # another kind of folder, or another user's
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its maker lives
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(file)
