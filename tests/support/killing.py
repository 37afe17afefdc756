"""The command, killed at moments of its own: after so many seconds of processor time, wherever it is then.

The timer's signal has no handler, so that the system ends the process as it does for SIGKILL, in the middle of native
code too. Processor time makes the moment the same one on a busy machine.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_KILLED = """
import os, signal, sys
moment, number = float(sys.argv[1]), int(sys.argv[2])
if number:  # a signal that the program has a word to say about
    signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), number))
signal.setitimer(signal.ITIMER_PROF, moment)
del sys.argv[1:3]
from layerdiff.compare.journal import journal
journal.SECONDS = 0.0  # nothing waits: what is to be killed takes a second
from layerdiff.compare.cli import main
sys.exit(main())
"""
TIMES = {"date", "open", "infer", "seconds", "latency", "build_seconds"}
"""Keys of the report that hold times."""


def run(words: Sequence[str], *, moment: float = 0.0, number: int = 0, temporary: Path) -> int:
    """Runs the command, and returns its status.

    Args:
        words: What it is asked.
        moment: Seconds of processor time after which it ends; 0: when it is done.
        number: The signal that it is sent then; 0: one that ends it at once.
        temporary: Where its temporary files are.
    """
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", _KILLED, str(moment), str(number), *words]
    return subprocess.run(command, env=environment, capture_output=True, timeout=300).returncode


def processor_seconds(words: Sequence[str], temporary: Path) -> float:
    """Processor time of the command, from its beginning to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(words, temporary=temporary)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def report(path: Path) -> Any:
    """A report without its times."""
    return without_times(json.loads(path.read_text("utf-8")))


def without_times(value: Any) -> Any:
    """The same without what is a time."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value
