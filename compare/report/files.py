"""Rendered reports on their way into files."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ...graph.errors import OutputError, UsageError
from ...graph.whole_file import replacing
from .formats import Content


def write(content: Content, path: str | os.PathLike[str], flag: str) -> None:
    """Writes a rendered report to ``path``, each file whole or not at all; ``-`` is standard output.

    Args:
        content: The report.
        path: The file, or the folder for files by name.
        flag: The option that named it, for messages.

    Raises:
        OutputError: The file cannot be written.
        BrokenPipeError: Nobody reads standard output any more.
    """
    if isinstance(content, Mapping):
        _folder(content, path, flag)
        return
    # halves of characters, of names that are no UTF-8, are written as JSON writes them
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    if os.fspath(path) == "-":
        _to_standard_output(content, flag)
        return
    target = Path(path)
    with writing(flag, path):
        if target.exists() and not target.is_file():  # /dev/stdout, a named pipe
            target.write_bytes(data)
            return
        with replacing(target) as partial:
            partial.write_bytes(data)


@contextlib.contextmanager
def writing(flag: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Says of what is written inside that it cannot be.

    Args:
        flag: The option that named the file, for messages.
        path: The file.

    Raises:
        OutputError: It cannot.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{flag} {path}: cannot be written: {error.strerror}.") from error


def check_writable(path: str | os.PathLike[str], flag: str, *, folder: bool = False) -> None:
    """Makes sure, before anything runs, that a file can be written to a path.

    Args:
        path: The path.
        flag: The option that named it, for messages.
        folder: Whether it may be a folder.

    Raises:
        OutputError: It cannot.
    """
    if not os.fspath(path):
        raise OutputError(f"{flag} '': a file has a name.")
    target = Path(path)
    if not folder and (target.is_dir() or os.fspath(path).endswith(os.sep)):
        raise OutputError(f"{flag} {path}: that is a folder: name a file in it.")
    if os.fspath(path) == "-" and not _open():
        raise OutputError(f"{flag} -: standard output is closed.")
    if os.fspath(path) == "-" or (target.exists() and not target.is_file() and not target.is_dir()):
        return  # standard output, a named pipe
    target = Path(os.path.realpath(target))
    with writing(flag, path):
        if target.is_file() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with tempfile.TemporaryFile(dir=target.parent):
            pass


def check_folder(path: str | os.PathLike[str], flag: str) -> None:
    """Makes sure, before anything runs, that files can be written into a folder, which may have to be made.

    Raises:
        OutputError: They cannot.
    """
    if not os.fspath(path):
        raise OutputError(f"{flag} '': a folder has a name.")
    there = Path(path).absolute()
    while not there.exists() and there.parent != there:
        there = there.parent
    with writing(flag, path), tempfile.TemporaryFile(dir=there):
        pass


def discard(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Removes reports of earlier runs: one that ends without a report leaves none that could be taken for its own."""
    for path in paths:
        target = Path(os.path.realpath(path))
        if os.fspath(path) != "-" and target.is_file():
            with contextlib.suppress(OSError):
                target.unlink()


def _folder(files: Mapping[str, str | bytes], path: str | os.PathLike[str], flag: str) -> None:
    if os.fspath(path) == "-":
        raise UsageError(f"{flag} writes a folder, which standard output is not.")
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{flag} {path}: cannot be made: {error.strerror}.") from error
    for name, content in files.items():
        write(content, Path(path) / name, flag)


def _open() -> bool:
    """Whether there is a standard output: the command puts the null device in the place of one that is closed."""
    return sys.stdout is not None and getattr(sys.stdout, "name", "") != os.devnull


def _to_standard_output(content: str | bytes, flag: str) -> None:
    if not _open():
        raise OutputError(f"{flag} -: standard output is closed.")
    try:
        sys.stdout.flush()
        if isinstance(content, str):
            sys.stdout.write(content)
            sys.stdout.flush()
        else:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{flag} -: standard output cannot be written: {error.strerror}.") from error
