"""Peak memory and time of a child process, of its own pages and of mapped files apart.

Resident memory is what counts: a model's weights are mapped, so that the address space is as large as the model
whatever is done with it. The kernel keeps the peak (``VmHWM``; ``ru_maxrss`` would be no less than what this process
had when it started the child); how it splits into anonymous pages and pages of files is sampled.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.005
"""Seconds between two looks at the child."""


@dataclass(frozen=True)
class Measured:
    """What a child process took.

    Attributes:
        status: Its exit status; negative if a signal ended it.
        seconds: Wall-clock time.
        cpu: Seconds of all cores together, which other programs on the machine lengthen less.
        peak: Most resident bytes, of all kinds together.
        anonymous, files: Most resident bytes of its own pages, and of mapped files; not at the same time.
        stdout, stderr: What it printed.
    """

    status: int
    seconds: float
    cpu: float
    peak: int
    anonymous: int
    files: int
    stdout: str
    stderr: str


def measure(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    group: Path | None = None,
) -> Measured:
    """Runs a command to its end.

    Args:
        command: Program and arguments.
        folder: Where it runs; here, if not given.
        environment: Variables besides those of this process.
        group: A cgroup that it is put in, see `memory_group`.
    """
    if group is not None:  # a shell that enters the group, then becomes the command
        command = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', os.fspath(group / "cgroup.procs"), *command]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        variables = {**os.environ, **(environment or {})}
        child = subprocess.Popen(command, stdout=out, stderr=err, cwd=folder, env=variables)
        peaks = {"VmHWM": 0, "RssAnon": 0, "RssFile": 0}
        done = threading.Event()
        watcher = threading.Thread(target=_watch, args=(child.pid, peaks, done))
        watcher.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
        finally:
            done.set()
            watcher.join()
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        return Measured(
            child.returncode,
            seconds,
            usage.ru_utime + usage.ru_stime,
            peaks["VmHWM"],
            peaks["RssAnon"],
            peaks["RssFile"],
            out.read(),
            err.read(),
        )


def _watch(pid: int, peaks: dict[str, int], done: threading.Event) -> None:
    while not done.wait(INTERVAL):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                key, _, rest = line.partition(":")
                if key in peaks:
                    peaks[key] = max(peaks[key], int(rest.split()[0]) << 10)


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path | None]:
    """A cgroup whose processes get ``limit`` bytes in all, pages of files included; None where none can be had.

    Beyond the limit the kernel first drops pages of files, then ends a process. The group is removed at the end.
    """
    name = f"layerdiff-benchmark-{os.getpid()}"
    places = (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"))
    group = None
    for root, knob in places:
        candidate = Path(root) / name
        try:
            candidate.mkdir()
            if not (candidate / knob).exists():
                candidate.rmdir()
                continue
            (candidate / knob).write_text(str(limit))
        except OSError:
            with contextlib.suppress(OSError):
                candidate.rmdir()
            continue
        group = candidate
        break
    try:
        yield group
    finally:
        if group is not None:
            with contextlib.suppress(OSError):
                group.rmdir()
