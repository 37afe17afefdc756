"""The far end: a process that opens sessions and runs them as it is told, until nobody tells it any more."""

from __future__ import annotations

import logging
import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from ....graph.errors import LayerdiffError, said
from ....graph.foreign import contained
from ....runners.contract.session import STEPS
from ....runners.contract.workload import Workload
from .arena import Arena

if TYPE_CHECKING:
    from ....runners.contract.session import Session
    from ....runners.contract.workload import Feed


def main(connection: int, given: int, made: int) -> None:
    """Serves until the other end is closed.

    Args:
        connection, given, made: Descriptors: of the connection, and of the arenas for inputs and for outputs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other end
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    server = _Server(Connection(connection), Arena(given), Arena(made))
    steps = logging.getLogger(STEPS)
    steps.setLevel(logging.DEBUG)
    steps.addHandler(_Steps(server.connection))
    server.serve()
    os.killpg(0, signal.SIGKILL)  # what a runtime does while Python ends is nobody's concern any more


class _Steps(logging.Handler):
    """Tells the other end what is being done, which this one may not survive."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        self.connection.send(("step", record.getMessage()))


@dataclass
class _Server:
    connection: Connection
    given: Arena
    made: Arena
    sessions: dict[int, Session] = field(default_factory=dict)
    infos: dict[int, Any] = field(default_factory=dict)

    def serve(self) -> None:
        """Answers one message after the other."""
        while True:
            try:
                message = self.connection.recv_bytes()
            except EOFError:
                return
            try:
                with contained():
                    what, *arguments = pickle.loads(message)
                    answer = ("done", getattr(self, f"_{what}")(*arguments))
                    content = pickle.dumps(answer)
            except Exception as error:
                content = pickle.dumps(("failed", *_plain(error)))
            self.connection.send_bytes(content)

    def _open(self, key: int, runner: Any, model: Any, fetch: Any, workload: Workload, calls: tuple[bool, bool]) -> Any:
        samples, calibration = (self._samples(i) if there else None for i, there in enumerate(calls))
        workload = replace(workload, samples=samples, calibration=calibration)
        session = runner.session(model, fetch=fetch, workload=workload, progress=self._progress)
        self.sessions[key] = session
        self.infos[key] = session.info
        return session.inputs, session.outputs, session.info

    def _call(self, runner: Any, method: str, model: Any, *more: Any) -> Any:
        return getattr(runner, method)(model, *more)

    def _infer(self, key: int, slots: Any, fetch: Any) -> Any:
        session = self.sessions[key]
        outputs = session.infer(self.given.get(slots, copy=False), fetch)
        return self.made.put(outputs), self._news(key, session)

    def _latency(self, key: int, slots: Any, runs: int) -> Any:
        session = self.sessions[key]
        return session.latency(self.given.get(slots, copy=False), runs), self._news(key, session)

    def _close(self, key: int) -> None:
        self.sessions.pop(key).close()

    def _news(self, key: int, session: Session) -> Any:
        """What a session has learned since it was last asked; None if it has learned nothing."""
        info = session.info
        if info is self.infos[key]:
            return None
        self.infos[key] = info
        return info

    def _progress(self, phrase: str) -> None:
        self.connection.send(("progress", phrase))

    def _samples(self, kind: int) -> Callable[[], Iterable[Feed]]:
        """Samples that are at the other end, which gives one after the other."""

        def samples() -> Iterator[Feed]:
            self.connection.send(("samples", kind))
            key = self.connection.recv()
            while True:
                self.connection.send(("next", key))
                slots = self.connection.recv()
                if slots is None:
                    return
                yield self.given.get(slots, copy=True)

        return samples


def _plain(error: Exception) -> tuple[str, str]:
    """An exception as its kind and its text: its class may not be there at the other end."""
    kind = next((c.__name__ for c in type(error).__mro__ if issubclass(c, LayerdiffError)), "")
    text = "\n".join(said(error).splitlines()[:2])
    if not kind or kind == "LayerdiffError":
        return "", f"{type(error).__name__}: {text}" if text else type(error).__name__
    return kind, text
