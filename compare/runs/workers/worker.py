"""The near end: a child process, the sessions in it, and what is said when it dies."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, TypeVar

from ....graph import errors
from ....graph.errors import LayerdiffError, RunnerDied, RunnerError, UsageError, first_line
from ....runners.contract.session import Session
from .arena import Arena

if TYPE_CHECKING:
    import numpy as np

    from ....graph.model import Model
    from ....runners.contract.latency import Latency
    from ....runners.contract.runner import Runner
    from ....runners.contract.workload import Feed, Workload

T = TypeVar("T")

_BOOT = f"""
import os, signal, sys, threading

def end_with(life):
    while os.read(life, 1):
        pass
    os.killpg(0, signal.SIGKILL)

threading.Thread(target=end_with, args=(os.dup(0),), daemon=True).start()

import json
sys.path[:] = json.loads(sys.argv[1])
from {__package__}.child import main
main(*map(int, sys.argv[2:]))
"""
"""What a process runs. Before anything is imported, which takes seconds on a busy machine, it sees to it that it ends,
with all that it started, when its standard input does: the one who started it is gone then."""
_LINES = 3
"""Lines of what a process wrote last that are shown when it dies."""
_TURN = 0.5
"""Seconds after which it is looked whether a silent process is still there."""
_PATIENCE = 2.0
"""Seconds that a process has to end by itself."""
_MEANING = {
    "SIGSEGV": "a segmentation fault",
    "SIGABRT": "it gave up",
    "SIGBUS": "memory or a mapped file was not there",
    "SIGKILL": "killed, as for want of memory",
}


class Worker:
    """Opens the sessions of one runner in a process of their own, which is started when the first is asked for.

    A process that dies takes the sessions in it along; the next session that is opened is in a new one.

    Args:
        timeout: Seconds that opening a session, or one run, may take; None: any time.
        echo: Whether what the process writes is shown on standard error.
    """

    def __init__(self, timeout: float | None = None, echo: bool = False) -> None:
        self._timeout = timeout
        self._echo = echo
        self._lock = threading.RLock()
        self._process: _Process | None = None
        self._keys = itertools.count()

    def open(
        self,
        runner: Runner,
        model: Model,
        fetch: Sequence[str],
        workload: Workload,
        progress: Callable[[str], None],
    ) -> Session:
        """A session on ``model`` that is in the process; see `Runner.session`.

        Raises:
            RunnerError: See `Runner.open`; or the process died, or took too long.
            UsageError: The runner cannot be sent to a process.
        """
        with self._lock:
            process, key = self._running(), next(self._keys)
            sources = workload.samples, workload.calibration
            plain = replace(workload, samples=None, calibration=None)
            given = tuple(source is not None for source in sources)
            message = ("open", key, runner, model.here(), tuple(fetch), plain, given)
            found = self._asked(process, runner.name, "opening", message, sources, progress)
            return _Remote(self, process, runner.name, key, *found)

    def call(self, runner: Runner, method: str, model: Model, *more: Any, doing: str = "loading its program") -> Any:
        """What a method of a runner gives for a model, in the process; see `Runner.there`.

        Args:
            runner, method, model: Whose method, and what it is given.
            more: What it is given beside the model.
            doing: What messages say of it.

        Raises:
            LayerdiffError: See the method; or the process died, or took too long.
            UsageError: The runner cannot be sent to a process.
        """
        with self._lock:
            message = ("call", runner, method, model.here(), *more)
            return self._asked(self._running(), runner.name, doing, message)

    def _running(self) -> _Process:
        """The process; a new one where there is none that lives."""
        if self._process is None or self._process.dead:
            self._process = _Process(self._echo)
        return self._process

    def _asked(
        self,
        process: _Process,
        who: str,
        doing: str,
        message: tuple[Any, ...],
        sources: Sequence[Callable[[], Iterable[Feed]] | None] = (),
        progress: Callable[[str], None] | None = None,
    ) -> Any:
        try:
            return process.ask(message, self._timeout, sources, progress)
        except _Died as death:
            raise RunnerDied(f"{who}: {doing}: {death}") from None
        except LayerdiffError:
            raise
        except pickle.PicklingError as error:
            raise UsageError(f"{who} cannot be sent to a process of its own: {first_line(error)}.") from error
        except BaseException:  # Ctrl-C, or samples that cannot be read: an answer is still to come, to nobody
            process.kill()
            raise

    def ask(self, process: _Process, who: str, doing: str, what: str, key: int, feed: Feed | None, *more: Any) -> Any:
        """What a session in a process answers.

        Raises:
            RunnerError: It failed, or the process died, or took too long.
        """
        with self._lock:
            if process.dead:
                raise RunnerDied(f"{who}: {doing}: {process.epitaph}")
            slots = () if feed is None else (process.given.put(feed),)
            return self._asked(process, who, doing, (what, key, *slots, *more))

    @property
    def pid(self) -> int | None:
        """The process; None where there is none now."""
        return None if self._process is None or self._process.dead else self._process.pid

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def kill(self) -> None:
        """Ends the process now, whatever it is at: whoever waits for it is told that it was ended."""
        process = self._process
        if process is not None:
            process.kill("it was no longer needed")


class _Remote(Session):
    """A session in another process."""

    def __init__(
        self, worker: Worker, process: _Process, who: str, key: int, inputs: Any, outputs: Any, info: Any
    ) -> None:
        self._worker, self._process, self._who, self._key = worker, process, who, key
        self.inputs, self.outputs, self.info = inputs, outputs, info
        self._open = True

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Session.infer`."""
        slots, news = self._ask("running", "infer", feed, None if fetch is None else tuple(fetch))
        self.info = news or self.info
        return self._process.made.get(slots, copy=True)

    def latency(self, feed: Feed, runs: int) -> Latency:
        """See `Session.latency`: the time in the process, without the way there and back."""
        found: Latency
        found, news = self._ask("timing", "latency", feed, runs)
        self.info = news or self.info
        return found

    def close(self) -> None:
        """See `Session.close`."""
        if self._open and not self._process.dead:
            self._open = False
            self._ask("closing", "close", None)

    def _ask(self, doing: str, what: str, feed: Feed | None, *more: Any) -> Any:
        return self._worker.ask(self._process, self._who, doing, what, self._key, feed, *more)


class _Died(Exception):
    """A process is gone, or was ended since it took too long; the text says how, and what it wrote last."""


class _Process:
    """A child process and the connection to it. What it writes is read, and the end of it kept."""

    def __init__(self, echo: bool) -> None:
        near, far = socket.socketpair()
        self.given, self.made = Arena.new(), Arena.new()
        self._ending = threading.RLock()
        self.epitaph = self._step = ""
        shared = (far.fileno(), self.given.file, self.made.file)
        path = [folder or os.getcwd() for folder in sys.path]
        self._child = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(path), *map(str, shared)],
            stdin=subprocess.PIPE,  # its other end closes with this process, whatever becomes of it
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=shared,
            start_new_session=True,
        )
        far.close()
        self._connection = Connection(near.detach())
        self._written: deque[bytes] = deque(maxlen=64)
        self._reader = threading.Thread(target=self._read, args=(echo,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    @property
    def dead(self) -> bool:
        """Whether it is known to be gone."""
        return bool(self.epitaph)

    def ask(
        self,
        message: tuple[Any, ...],
        seconds: float | None,
        sources: Sequence[Callable[[], Iterable[Feed]] | None],
        progress: Callable[[str], None] | None,
    ) -> Any:
        """What it answers to a message.

        Args:
            message: What is asked, and its arguments.
            seconds: How long that may take.
            sources: Samples that it may ask for.
            progress: Told what it is doing.

        Raises:
            _Died: It did not answer.
            LayerdiffError: It answers that it failed.
        """
        end = None if seconds is None else time.monotonic() + seconds
        content = pickle.dumps(message)
        passes: list[Iterator[Feed]] = []
        with self._alive():
            self._connection.send_bytes(content)
            while True:
                kind, *rest = self._heard(end, seconds)
                if kind in ("progress", "step"):
                    self._step = rest[0]
                elif kind in ("done", "failed"):
                    self._step = ""
                if kind == "done":
                    return rest[0]
                if kind == "failed":
                    raise _as_error(*rest)
                if kind == "progress" and progress is not None:
                    progress(rest[0])
                elif kind == "samples":
                    source = sources[rest[0]]
                    assert source is not None
                    passes.append(iter(source()))
                    self._connection.send(len(passes) - 1)
                elif kind == "next":
                    sample = next(passes[rest[0]], None)
                    self._connection.send(None if sample is None else self.given.put(sample))

    def _heard(self, end: float | None, seconds: float | None) -> Any:
        while not self._connection.poll(_TURN if end is None else max(0.0, min(_TURN, end - time.monotonic()))):
            if end is not None and time.monotonic() >= end:
                self.kill(f"no answer within {seconds:g} s (--timeout)")
                raise _Died(self.epitaph)
            if self._child.poll() is not None and not self._connection.poll(0):
                raise EOFError
        return self._connection.recv()

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError, pickle.UnpicklingError):
            self.kill()
            raise _Died(self.epitaph) from None
        except OSError:
            if not self.dead:  # else another thread has ended it, and closed the connection
                raise
            raise _Died(self.epitaph) from None

    def kill(self, why: str = "") -> None:
        """Ends it now, with all that it started; says how it ended where nobody says why. Several threads may."""
        with self._ending:
            if not self.dead:
                self._end(why)

    def _end(self, why: str) -> None:
        if not why:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_PATIENCE)
        status = self._child.poll()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._reader.join(_PATIENCE)
        epitaph = why or _ended(status)
        if self._step:
            epitaph += f" while {self._step}"
        lines = [line for line in self._last().splitlines() if line.strip()]
        if lines:
            epitaph += "\nit last wrote: " + " / ".join(line.strip() for line in lines[-_LINES:])
        self.epitaph = epitaph
        self._release()

    def close(self) -> None:
        """Lets it end by itself, and ends it if it does not."""
        with self._ending:
            if self.dead:
                return
            self._connection.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_PATIENCE)
            self._end("it was closed")

    def _release(self) -> None:
        self._connection.close()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()
        self.given.close()
        self.made.close()

    def _read(self, echo: bool) -> None:
        assert self._child.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(self._child.stdout.fileno(), 1 << 16):
                self._written.append(chunk[-4096:])
                if echo:
                    sys.stderr.write(chunk.decode("utf-8", "replace"))
                    sys.stderr.flush()

    def _last(self) -> str:
        return b"".join(self._written).decode("utf-8", "replace")


def _ended(status: int | None) -> str:
    """How a process ended."""
    if status is None:
        return "its process closed the connection"
    if status >= 0:
        return f"its process ended by itself, with status {status}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-status).name
        meaning = f" ({_MEANING[name]})" if name in _MEANING else ""
        return f"its process was ended by {name}{meaning}"
    return f"its process was ended by signal {-status}"


def _as_error(kind: str, text: str) -> LayerdiffError:
    """An exception of the other process, as one of here."""
    known: Mapping[str, Any] = vars(errors)
    cls = known.get(kind, RunnerError)
    error: LayerdiffError = cls.__new__(cls)
    Exception.__init__(error, text)
    return error
