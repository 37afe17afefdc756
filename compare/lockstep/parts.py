"""Parts of a network, opened by whatever runs it: a runtime that opens pieces of a graph, or one that runs whole
networks and takes inner tensors in the place of what computes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from ...graph.cutting.slices import backward, original_name
from ...runners.contract.session import Session
from ...runners.contract.workload import Feed, Workload

if TYPE_CHECKING:
    import numpy as np

    from ...graph.model import Model
    from ..sides import Side


@contextmanager
def opened_part(side: Side, part: Model, feed: Feed) -> Iterator[Session]:
    """A session on a part of a side's network.

    Args:
        side: Who runs it.
        part: A slice of its model, or several slices side by side.
        feed: What it will be run on: runtimes that build for shapes, or calibrate, do so for these arrays.

    Raises:
        LayerdiffError: It cannot be opened.
    """
    opened = side.model if not side.runner.capabilities.pieces else part
    workload = Workload(samples=lambda: iter([feed])) if opened is part else Workload()
    with side.runner.session(opened, workload=workload) as session:
        yield session if opened is part else PartSession(session, part)


class PartSession(Session):
    """A part of a network, run by a session on the whole of it, which stays open.

    Args:
        whole: The session, which takes inner tensors and gives them.
        part: A slice of the model that it runs, or several slices side by side, each fed from outside.
    """

    def __init__(self, whole: Session, part: Model) -> None:
        self._whole, self._part = whole, part
        self.inputs, self.outputs = part.inputs, part.outputs

    @cached_property
    def _slices(self) -> dict[str, tuple[str, ...]]:
        """Each output -> the inputs that it is computed from."""
        index = self._part.index
        given = {spec.name for spec in self.inputs}
        return {spec.name: backward(index, [spec.name], given).inputs for spec in self.outputs}

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Session.infer`."""
        names = [spec.name for spec in self.outputs] if fetch is None else list(fetch)
        together: dict[tuple[str, ...], list[str]] = {}
        for name in names:
            together.setdefault(self._slices[name], []).append(name)
        made: dict[str, np.ndarray] = {}
        for inputs, outputs in together.items():
            found = self._whole.infer({name: feed[name] for name in inputs}, [original_name(name) for name in outputs])
            made.update({name: found[original_name(name)] for name in outputs})
        return {name: made[name] for name in names}
