"""The reference's inner tensors after the run, for outputs that were kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from .samples import checked, feed_of

if TYPE_CHECKING:
    import numpy as np

    from ...runners.contract.session import Session
    from .run import Run


class Replay:
    """The reference once more, for inner tensors that nobody kept; opened when the first one is asked for."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stack = ExitStack()
        self._session: Session | None = None
        self._samples: Iterator[tuple[int, dict[str, np.ndarray]]] = iter(())
        self._at: tuple[int, dict[str, np.ndarray]] = (-1, {})

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def fetch(self, sample: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Tensors of the reference for one sample; samples may only be asked for in ascending order."""
        if self._session is None:
            side = self._run.sides.reference
            self._session = self._stack.enter_context(self._run.open(side, fetch=names))
            self._samples = enumerate(checked(self._run.samples))
        while self._at[0] < sample:
            self._at = next(self._samples)
        return self._session.infer(feed_of(self._session, self._at[1]), fetch=names)
