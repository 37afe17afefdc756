"""Models whose weights do not fit in memory: run piece by piece where others are run whole.

ONNX Runtime and its kin copy the weights of a session into the layout of their kernels. A piece is opened when its turn
comes, runs for all samples, and is closed before the next one is opened, so that the weights of one piece are all that
is in memory. Pieces are cut between fused groups, as when localizing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.extract import extract
from ...graph.cutting.fusion import fused_groups
from ...graph.cutting.pieces import Piece, plan_pieces
from ...graph.errors import ModelError, RunnerError
from ...graph.printable import counted
from ...graph.specs import TensorSpec
from ...graph.weights import external_bytes
from ...runners.contract.runner import Runner
from ...runners.contract.session import Session, SessionInfo
from ...runners.contract.workload import Feed, Workload
from .memory import budget, free_memory
from .samples import feed_of
from .spill import SHARE as KEPT
from .spill import Store

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..journal.sessions import RunJournal
    from ..sides import Side

SHARE = 0.5
"""Of the free memory, what the weights of all sessions may take where the user gives no limit: while a session opens,
it holds some of them twice."""
COPIES = 2
"""How often a piece's weights are there while it is opened: as they are in the file, and as its kernels want them."""


def in_pieces(sides: Iterable[Side], memory: int | None) -> bool:
    """Whether sessions on the whole models would take more memory than there is.

    Only external weights count: others are in memory already.

    Args:
        sides: All that are open at the same time.
        memory: Bytes that the user allows; None: what the machine, or the control group of this process, has left.
    """
    weights = sum(external_bytes(p.model.proto) for p in sides if p.runner.capabilities.pieces and p.model.tf is None)
    return weights > 0 and weights > (memory if memory is not None else SHARE * free_memory())


class PiecedSession(Session):
    """A model run in pieces, of which one is open at a time.

    Every `infer` opens all pieces anew; `infer_all` opens each once for all samples.

    Args:
        side: The runner, which must open pieces, and the model.
        workload: What will be run.
        memory: Bytes for a piece and for what is kept between pieces; None: from the machine.
        journal: Where results of pieces are kept; None: they are not.

    Raises:
        RunnerError: The runtime is not there, or refuses the first piece.
    """

    def __init__(self, side: Side, workload: Workload, memory: int | None, journal: RunJournal | None = None) -> None:
        self._journal = journal
        self._model = side.model
        self._name = side.name
        self._runner = calibrated(side, workload, memory, apart=True).for_pieces()
        self._memory = budget(memory)
        index = side.model.index
        self.inputs = side.model.inputs
        self.outputs = side.model.outputs
        self._specs: dict[str, TensorSpec] = {}
        self._pieces = plan_pieces(
            index, fused_groups(index), shapes=_shapes(side.model, workload), memory=self._memory // COPIES
        )
        self.info = self._described(side)

    def _described(self, side: Side) -> SessionInfo:
        """Of the first piece: what is wrong with the runner is known before anything is run."""
        try:
            with self._open(self._pieces[0], (), None) as session:
                info = session.info
        except ModelError:  # a piece without outputs, or without types before something ran
            info = SessionInfo()
        size = external_bytes(side.model.proto)
        weights = f"{size / 1e9:.2f} GB" if size >= 1e7 else counted(size, "byte")
        note = (
            f"{weights} of weights are too many to be in memory at "
            f"once; run in {len(self._pieces)} pieces, not as the one program that would be deployed."
        )
        # of one piece, neither its kernels nor its calibration nor what it rounds is what the model has
        ranges = self._runner.activation_ranges
        found = info.calibration if ranges is not None else None
        return dataclasses.replace(
            info, notes=(*info.notes, note), kernels=(), node_formats={}, calibration=found, timing_cache=b"", idle=""
        )

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Session.infer`. Reads all weights that are needed; for many samples use `infer_all`."""
        return next(self.infer_all(lambda: [feed], fetch))

    def infer_all(
        self, samples: Callable[[], Iterable[Feed]], fetch: Sequence[str] | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Runs all samples, each piece once for all of them, then yields what `infer` would return for each.

        Args:
            samples: Gives the samples anew at each call.
            fetch: See `Session.infer`.

        Raises:
            RunnerError: See `Session.infer`.
        """
        wanted = list(dict.fromkeys(spec.name for spec in self.outputs) if fetch is None else dict.fromkeys(fetch))
        with Store(self._memory // KEPT) as store:
            for _ in self._walk(samples, wanted, store, keep=True):
                pass
            for number, feed in enumerate(samples()):
                yield {name: self._given(name, feed, store, number) for name in wanted}
                store.drop("", number, wanted)

    def watch(self, names: Sequence[str], samples: Callable[[], Iterable[Feed]]) -> Iterator[dict[str, np.ndarray]]:
        """Runs all samples and gives tensors as they come: those of one piece for one sample at a time, kept no longer.

        Raises:
            RunnerError: See `Session.infer`.
        """
        given = [name for name in dict.fromkeys(names) if name in {spec.name for spec in self.inputs}]
        if given:
            yield from ({name: feed[name] for name in given} for feed in samples())
        with Store(self._memory // KEPT) as store:
            yield from self._walk(samples, list(dict.fromkeys(names)), store, keep=False)

    def _walk(
        self, samples: Callable[[], Iterable[Feed]], wanted: Sequence[str], store: Store, keep: bool
    ) -> Iterator[dict[str, np.ndarray]]:
        """Runs the pieces that make what is wanted, and gives that of each piece and sample.

        Args:
            samples: Gives the samples anew at each call.
            wanted: Names of tensors.
            store: Where tensors are that later pieces read.
            keep: Keep what is wanted there, to the end.
        """
        try:
            yield from self._pieces_of(samples, wanted, store, keep)
        except ModelError as error:
            raise RunnerError(f"{self._name}: {error}") from error

    def _pieces_of(
        self, samples: Callable[[], Iterable[Feed]], wanted: Sequence[str], store: Store, keep: bool
    ) -> Iterator[dict[str, np.ndarray]]:
        index = self._model.index
        asked = {name: index.producer[name] for name in wanted if name in index.producer}
        last: dict[str, int] = dict.fromkeys(asked, len(self._pieces)) if keep else {}
        for piece in self._pieces:
            for name in piece.inputs:
                last[name] = max(last.get(name, 0), piece.index)
        needed = {piece.index: self._outputs(piece, asked) for piece in self._pieces}
        final = max((p.index for p in self._pieces if any(n in asked for n in needed[p.index])), default=-1)
        given = {spec.name for spec in self.inputs}
        count = sum(1 for _ in samples())
        for piece in self._pieces[: final + 1]:
            if needed[piece.index]:
                reads_inputs = any(name in given for name in piece.inputs)
                feeds = samples() if reads_inputs else ({} for _ in range(count))
                for made in self._run(piece, needed[piece.index], feeds, store):
                    yield {name: array for name, array in made.items() if name in asked}
            gone = [name for name in (*piece.inputs, *needed[piece.index]) if last.get(name, -1) <= piece.index]
            for number in range(count):
                store.drop("", number, gone)

    def _outputs(self, piece: Piece, asked: Mapping[str, int]) -> tuple[str, ...]:
        nodes = set(piece.nodes)
        graph_outputs = set(self._model.index.outputs)
        borders = [n for n in piece.outputs if n in asked or n not in graph_outputs or self._read_later(n, nodes)]
        return tuple(dict.fromkeys((*borders, *(name for name, position in asked.items() if position in nodes))))

    def _read_later(self, name: str, nodes: set[int]) -> bool:
        return any(position not in nodes for position in self._model.index.consumers.get(name, ()))

    def _run(
        self, piece: Piece, outputs: tuple[str, ...], feeds: Iterable[Feed], store: Store
    ) -> Iterator[dict[str, np.ndarray]]:
        session: Session | None = None
        try:
            for number, feed in enumerate(feeds):
                values = {n: feed[n] if n in feed else store.get("", number, n) for n in piece.inputs}
                if session is None:
                    session = self._open(piece, outputs, values)
                made = session.infer(feed_of(session, values), outputs)
                for name, array in made.items():
                    if name not in self._model.index.specs:
                        self._specs[name] = TensorSpec(name, array.dtype, (None,) * array.ndim)
                    store.put("", number, name, array)
                yield made
        finally:
            if session is not None:
                session.close()

    def _open(self, piece: Piece, outputs: tuple[str, ...], values: Mapping[str, np.ndarray] | None) -> Session:
        model = extract(self._model, piece.nodes, outputs or piece.outputs, specs=self._specs or None)
        workload = None if values is None else Workload(samples=lambda: iter([values]))
        opened = self._runner.session if self._journal is None else partial(self._journal.session, self._runner)
        return opened(model, workload=workload)

    def _given(self, name: str, feed: Feed, store: Store, sample: int) -> np.ndarray:
        if store.has("", sample, name):
            return store.get("", sample, name)
        value = feed[name] if name in feed else self._model.index.weight(name)
        if value is None:
            raise RunnerError(f"{self._name}: {self._model.source} has no tensor {name!r}.")
        return np.array(value)


def calibrated(side: Side, workload: Workload, memory: int | None, apart: bool) -> Runner:
    """A side's runner with the ranges of the whole model, where its format needs them.

    Args:
        side: The runner and the model.
        workload: The samples.
        memory: See `PiecedSession`.
        apart: Whether the whole model does not fit in memory, and is run in pieces for that too.
    """

    def run(
        engine: Runner, names: Sequence[str], samples: Callable[[], Iterable[Feed]]
    ) -> Iterable[dict[str, np.ndarray]]:
        alone = dataclasses.replace(side, runner=engine)
        return PiecedSession(alone, Workload(samples=samples), memory).watch(names, samples)

    return side.runner.calibrated(side.model, workload, run=run if apart else None)


def _shapes(model: Model, workload: Workload) -> dict[str, tuple[int, ...]] | None:
    """Shapes of all tensors for the first sample, where the graph leaves them open."""
    from ...graph.cutting.propagate import propagate

    if all(s.shape is not None and all(isinstance(d, int) for d in s.shape) for s in model.inputs):
        return None
    first = next(iter(workload.samples()), None) if workload.samples is not None else None
    if first is None:
        return None
    found = propagate(model, {name: array.shape for name, array in first.items()})
    return {name: shape for name, shape in found.items() if shape is not None}
