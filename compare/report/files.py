"""Rendered reports on their way into files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ...graph.errors import UsageError


def write(content: str | bytes, path: str | os.PathLike[str], flag: str) -> None:
    """Writes a rendered report to ``path``, whole or not at all; ``-`` is standard output.

    Args:
        content: The report.
        path: The file.
        flag: The option that named it, for messages.

    Raises:
        UsageError: The file cannot be written.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if os.fspath(path) == "-":
        sys.stdout.flush()
        if isinstance(content, str):
            sys.stdout.write(content)
        else:
            sys.stdout.buffer.write(content)
        return
    target = Path(path)
    try:
        if target.exists() and not target.is_file():  # /dev/stdout, a named pipe
            target.write_bytes(data)
            return
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(data)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{flag} {path}: cannot be written: {error.strerror}.") from error
