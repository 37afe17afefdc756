"""Sessions on probes of the noise of layers (`graph.rounding.noise_probe`)."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...graph.model import Model
    from ...runners.contract.runner import Runner
    from ...runners.contract.session import Session


class Probes:
    """The session on the probe that was run last, until the outermost block ends: draws of one layer are often of one
    probe, fed with other random numbers."""

    def __init__(self) -> None:
        self._depth = 0
        self._stack = ExitStack()
        self._last: tuple[bytes, Session] | None = None

    def __enter__(self) -> Probes:
        self._depth += 1
        return self

    def __exit__(self, *exc: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._close()

    def on(self, model: Model, runner: Runner) -> Session:
        """A session on a probe: not optimized, which would take longer than running it once, and moves results by far
        less than its noise."""
        key = hashlib.sha256(model.serialized()).digest() if self._depth > 1 else b""
        if self._last is None or not key or self._last[0] != key:
            self._close()
            unoptimized = next(iter(runner.levels().values()), runner)
            self._last = key, self._stack.enter_context(unoptimized.session(model))
        return self._last[1]

    def _close(self) -> None:
        self._last = None
        self._stack.close()
