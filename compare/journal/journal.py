"""The folder of a journal: values by their keys, kept whole or not at all.

A value is written with a checksum into a file that is given its name when it is complete, so that a process may be
killed at any time. Small values wait until a second has passed and go into one file together. What is damaged, or was
written by other versions or on another machine, is passed over and counted. Processes may share a folder: each writes
files of its own.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import struct
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...graph.errors import UsageError
from ...graph.leases import Leased, remove_left
from .codec import Buffer, Unreadable, decoded, portions

log = logging.getLogger("layerdiff")

MARK = "layerdiff-journal"
"""A file that tells the folder from one that holds something else."""
SECONDS = 1.0
"""How long small values wait for others: what being killed may cost besides what is on its way."""
LARGE = 1 << 20
"""Bytes from which on a value has a file of its own, which the same key replaces."""
_TEMPORARY = "unfinished-"
_MAGIC = b"layerdiff journal 1\n".ljust(56)
_HEAD = struct.Struct("<32sQ32s")  # key, length, and SHA-256 of key and value


class Missing:
    """Stands for a value that is not there."""


MISSING = Missing()


@dataclass(frozen=True)
class _Place:
    """Where a value lies."""

    path: Path
    offset: int


class Journal:
    """Values that an earlier run, or this one, has kept. A context manager: leaving it writes what still waits.

    Attributes:
        folder: The folder.
        damaged: Entries that were found and cannot be what was written.
        other: Whether the folder holds entries of other versions, or of another machine.
        lost: Why nothing is kept any more; empty while something is.
    """

    def __init__(self, folder: str, made_by: str) -> None:
        """Opens a folder, which is made where there is none.

        Args:
            folder: The folder.
            made_by: A digest of all that every value depends on: versions, and the machine.

        Raises:
            UsageError: It cannot be written, or is full of other things.
        """
        self.folder = Path(folder)
        self.damaged = 0
        self.lost = ""
        self._waiting: list[tuple[bytes, list[Buffer]]] = []
        self._written = time.monotonic()
        self._places: dict[bytes, _Place] = {}
        self._own = self.folder / made_by[:32]
        try:
            self._claim()
            remove_left(_TEMPORARY, self.folder)
            self._temporary = Leased(_TEMPORARY, self.folder)
        except OSError as error:
            raise UsageError(f"--resume {folder}: cannot be written: {error.strerror}.") from error
        self.other = any(p.is_dir() and p != self._own and len(p.name) == 32 for p in self.folder.iterdir())
        for path in sorted(self._own.iterdir(), key=lambda p: (p.stat().st_mtime_ns, p.name)):
            self._index(path)

    def _claim(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"--resume {self.folder}: is a file; name a folder.")
        self.folder.mkdir(parents=True, exist_ok=True)
        mark = self.folder / MARK
        if not mark.exists():
            if any(self.folder.iterdir()):
                raise UsageError(
                    f"--resume {self.folder}: holds other files, and no journal: name an empty folder, or a new one."
                )
            mark.write_text("Results that compare --resume goes on with. May be removed.\n", "utf-8")
        self._own.mkdir(exist_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.flush()
        self._temporary.close()

    # -- reading ------------------------------------------------------------------------------------------------

    def recall(self, key: str) -> Any:
        """The value of a key, `MISSING` where there is none that can be believed."""
        name = bytes.fromhex(key)
        place = self._places.get(name)
        content = None if place is None else self._read(place, name)
        if content is None:
            return MISSING
        try:
            return decoded(content)
        except Unreadable as error:
            self._distrust(name, f"{self._places[name].path}: {error}")
            return MISSING

    def _index(self, path: Path) -> None:
        """Notes where the values of a file are."""
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise ValueError("another kind of file")
                while head := file.read(_HEAD.size):
                    name, length, _ = _HEAD.unpack(head)
                    offset = file.tell() - _HEAD.size
                    if offset + _HEAD.size + length > size:
                        raise ValueError("cut short")
                    self._places[name] = _Place(path, offset)
                    file.seek(length, os.SEEK_CUR)
        except (OSError, ValueError, struct.error) as error:
            self.damaged += 1
            log.debug("%s is passed over: %s", path, error)

    def _read(self, place: _Place, name: bytes) -> memoryview | None:
        """The content of a value; None, and it is counted, if it cannot be what was written."""
        try:
            with place.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(place.offset)
                found, length, checksum = _HEAD.unpack(file.read(_HEAD.size))
                start = place.offset + _HEAD.size
                if start + length > size:
                    raise ValueError("cut short")
                # large values are not read before they are used; what is changed in them is not written
                whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if length >= LARGE else None
                content = memoryview(file.read(length) if whole is None else whole)
        except (OSError, ValueError, struct.error) as error:
            self._distrust(name, f"{place.path}: {error}")
            return None
        content = content if whole is None else content[start : start + length]
        if found != name or _checksum(name, [content]) != checksum:
            self._distrust(name, f"{place.path}: another checksum")
            return None
        return content

    def _distrust(self, name: bytes, why: str) -> None:
        self.damaged += 1
        self._places.pop(name, None)
        log.debug("an entry is passed over: %s", why)

    # -- writing ------------------------------------------------------------------------------------------------

    def keep(self, key: str, value: Any, *, alone: bool = False) -> None:
        """Keeps a value; one that cannot be kept is made anew when it is needed.

        Args:
            key: Its key.
            value: The value.
            alone: Write it at once into a file of its own, which replaces that of an earlier value.
        """
        if self.lost:
            return
        try:
            content = portions(value)
        except TypeError as error:
            log.debug("not kept: %s", error)
            return
        name = bytes.fromhex(key)
        if alone or sum(map(len, content)) >= LARGE:
            self._write(f"{key}.value", [(name, content)])
            return
        self._waiting.append((name, [b"".join(content)]))
        if time.monotonic() - self._written >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        waiting, self._waiting = self._waiting, []  # threads that open sessions keep what they find at any time
        if waiting and not self.lost:
            self._write(f"{uuid.uuid4().hex}.values", waiting)
        self._written = time.monotonic()

    def _write(self, name: str, entries: list[tuple[bytes, list[Buffer]]]) -> None:
        partial = self._temporary.path / name
        try:
            with partial.open("wb") as file:
                file.write(_MAGIC)
                for key, content in entries:
                    file.write(_HEAD.pack(key, sum(map(len, content)), _checksum(key, content)))
                    file.writelines(content)
            partial.replace(self._own / name)
        except OSError as error:  # the disk is full: the report is worth more than what is kept
            self.lost = error.strerror or type(error).__name__
            with suppress(OSError):
                partial.unlink()


def _checksum(key: bytes, content: list[Buffer]) -> bytes:
    digest = hashlib.sha256(key)
    for part in content:
        digest.update(part)
    return digest.digest()
