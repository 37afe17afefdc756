"""Whether a runtime that carries FP32 past tensors typed FP16 gives what an FP16 device would give.

ONNX Runtime's CPU computes FP16 nodes in FP32 and leaves out the casts between them, so that a value above 65504 does
no harm there, and a value below 3e-8 is no zero. The network is run once more on every sample as its types say, and
once with the same 11 bits and the range of FP32: outputs that differ depend on values that FP16 cannot hold.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.dataflow import unseeded
from ...graph.cutting.fusion import static_tensors
from ...graph.errors import UsageError, first_line
from ...graph.formats import FP16
from ...graph.operators import CASTS, operator
from ...graph.rounding.emulation import by_types
from ...graph.rounding.widening import to_fp32
from ...graph.specs import is_float
from ..progress import SILENT, Progress
from ..report.out_of_range import OutOfRange
from ..runs.opening import for_rewritten, open_whole
from ..runs.samples import checked, feed_of
from .by_expectation import SMALL
from .evidence import Decision, OutputEvidence
from .formats_in_play import model_formats

if TYPE_CHECKING:
    from ...graph.specs import Arrays
    from ...runners.contract.session import Session
    from ..comparison import Comparison
    from ..runs.run import RunLog
    from ..sides import Side

logger = logging.getLogger("layerdiff")

ROUNDS = 4
"""Most times that a network is run to find what FP16 cannot hold, each with more of it in FP32."""


def not_as_typed(evidence: OutputEvidence) -> Decision | None:
    """An output that agrees, and that a device which takes the graph's types as law would not give."""
    found = evidence.out_of_range
    if found is None:
        return None
    if found.unknown:
        why = f"whether values exceed the range of FP16, past which {found.runner} carries FP32, could not be found out"
        return Decision("undecided", f"{why}: {found.unknown}")
    if found.overflow and found.value > FP16.max:
        what = f"{found.node} overflows FP16 ({found.value:.6g} > {FP16.max:g})"
    elif found.overflow:
        what = f"a value inside {found.node or 'a body'} overflows FP16 (> {FP16.max:g})"
    else:
        what = (
            f"{found.node} underflows FP16 ({found.value:.3g} becomes 0; the smallest is {FP16.smallest_subnormal:.2g})"
        )
    return Decision(
        "undecided",
        f"{what} in sample {found.sample}; {found.runner} went on in FP32, an FP16 device would not, and would give "
        f"another {evidence.tensor}",
    )


def hold_to_types(
    comparison: Comparison, log: RunLog, evidence: Sequence[OutputEvidence], progress: Progress = SILENT
) -> tuple[OutputEvidence, ...]:
    """Adds to evidence what candidates computed otherwise than the types of their graphs say; not of outputs that are
    made of random values, which two runs draw otherwise.

    Args:
        comparison: Who ran.
        log: How the run went.
        evidence: What is known of each output of each candidate.
        progress: Told what is going on.
    """
    found: dict[tuple[str, str], OutOfRange] = {}
    for side in comparison.candidates:
        drawn = unseeded(side.model.index)
        mine = (e.tensor for e in evidence if e.candidate == side.name and e.absent is None)
        names = [name for name in mine if name not in drawn]
        if names and not side.runner.rounds_to_types and FP16 in model_formats(side.model):
            progress.stage(f"{side.name}: looking for values that FP16 cannot hold")
            for name, held in _held(comparison, log, side, names).items():
                found[side.name, name] = held
    return tuple(replace(e, out_of_range=found.get((e.candidate, e.tensor))) for e in evidence)


def _held(comparison: Comparison, log: RunLog, side: Side, names: Sequence[str]) -> dict[str, OutOfRange]:
    found: dict[str, OutOfRange] = {}
    finished = log.of(side.name).samples
    try:
        with _Typed(comparison, side, any(runner.in_pieces for runner in log.runners)) as typed:
            for number, sample in enumerate(checked(comparison.samples)):
                left = [name for name in names if name not in found]
                if number >= finished or not left:
                    break
                narrow, wide = typed.run(sample, left)
                lost = [name for name in left if _differ(narrow[name], wide[name])]
                if lost:
                    first, beyond = typed.first(sample, number)
                    heals = typed.healing(beyond, islice(checked(comparison.samples), finished), names)
                    found.update(dict.fromkeys(lost, replace(first, heals=heals)))
    except Exception as error:  # whatever a runtime raises: the output is undecided, and the report says so
        if isinstance(error, UsageError):
            raise
        logger.debug("the network could not be run as its types say", exc_info=error)
        why = first_line(error)
        found.update({name: OutOfRange(side.name, unknown=why) for name in names if name not in found})
    return found


class _Typed:
    """The network of a side as its types say, and the same with the range of FP32. A context manager."""

    def __init__(self, comparison: Comparison, side: Side, pieces: bool) -> None:
        # fusions leave out casts, which are what makes the types law
        self._runner = replace(for_rewritten(side), optimization="disable")
        self._comparison = comparison
        self._side = side
        self._pieces = pieces
        self._stack = ExitStack()
        self._sessions = [self._opened(wide_range) for wide_range in (False, True)]

    def _opened(self, wide_range: bool | frozenset[str]) -> Session:
        run = replace(self._side, runner=self._runner, model=by_types(self._side.model, wide_range=wide_range))
        return self._stack.enter_context(open_whole(self._comparison, run, self._pieces))

    def __enter__(self) -> _Typed:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def run(self, sample: Arrays, names: Sequence[str]) -> tuple[Arrays, Arrays]:
        """Some tensors with the range of FP16, and with that of FP32."""
        narrow, wide = (s.infer(to_fp32(feed_of(s, sample)), names) for s in self._sessions)
        return narrow, wide

    def first(self, sample: Arrays, number: int) -> tuple[OutOfRange, frozenset[str]]:
        """Where the range of FP16 matters first, at a node that is given the same and gives something else, and all
        tensors that FP16 cannot hold and that matter: from there on, and from where it matters next."""
        index = self._side.model.index
        typed = [n for node in index.nodes for n in node.output if (s := index.specs.get(n)) and s.dtype == np.float16]
        narrow, wide = self.run(sample, typed)
        start = self._start(typed, narrow, wide)
        if not start:  # inside a function, or the graph's types are not known
            return OutOfRange(self._side.name, number), frozenset()
        overflow, value = _lost(narrow[start], wide[start])
        found = OutOfRange(self._side.name, number, index.names[index.producer[start]], overflow, value)
        beyond: set[str] = set()
        for _ in range(ROUNDS):
            beyond |= self._behind(start, typed, wide)
            session = self._opened(frozenset(beyond))
            start = self._start(typed, session.infer(to_fp32(feed_of(session, sample)), typed), wide)
            if not start or start in beyond:
                break
        return found, frozenset(beyond)

    def _start(self, typed: Sequence[str], narrow: Arrays, wide: Arrays) -> str:
        """The first tensor that a node makes otherwise with the range of FP16, of the same; empty where there is none
        that the outputs could depend on."""
        index = self._side.model.index
        lost = {n for n in typed if _differ(narrow[n], wide[n])}
        starts = [n for n in typed if n in lost and lost.isdisjoint(index.reads[index.producer[n]])]
        # a constant that overflows is a mask more often than a fault
        static = static_tensors(index)
        return next((n for n in starts if n not in static), next(iter(starts), ""))

    def _behind(self, start: str, typed: Sequence[str], wide: Arrays) -> set[str]:
        """A tensor that FP16 cannot hold, those that the same operator makes elsewhere, as in every block of a network,
        and those that are made of them."""
        index = self._side.model.index
        op = operator(index.nodes[index.producer[start]])
        beyond = {start}
        for name in typed:  # in the order of the graph
            position = index.producer[name]
            alike = operator(index.nodes[position]) == op
            if (alike or not beyond.isdisjoint(index.reads[position])) and _beyond(wide[name]):
                beyond.add(name)
        return beyond

    def healing(self, beyond: frozenset[str], samples: Iterable[Arrays], names: Sequence[str]) -> tuple[str, ...]:
        """The nodes that make or read tensors that FP16 cannot hold, if no output depends on its range where these have
        that of FP32; else none."""
        if not beyond:
            return ()
        try:
            session = self._opened(beyond)
            for sample in samples:
                feed = to_fp32(feed_of(session, sample))
                kept, wide = session.infer(feed, names), self._sessions[1].infer(feed, names)
                if any(_differ(kept[name], wide[name]) for name in names):
                    return ()
        except Exception:  # whatever a runtime raises: no remedy is known, and the range matters all the same
            logger.debug("what FP16 cannot hold could not be tried in FP32", exc_info=True)
            return ()
        index = self._side.model.index
        readers = (p for name in beyond for p in index.consumers.get(name, ()) if operator(index.nodes[p]) not in CASTS)
        return tuple(index.names[p] for p in sorted({*(index.producer[name] for name in beyond), *readers}))


def _beyond(wide: np.ndarray) -> bool:
    """Whether FP16 loses more of a tensor than what passes for small."""
    with np.errstate(over="ignore"):
        return _differ(wide.astype(np.float16).astype(np.float32), wide)


def _differ(narrow: np.ndarray, wide: np.ndarray) -> bool:
    """Whether the range of FP16 changes a tensor by more than what passes for small."""
    if narrow.shape != wide.shape:
        return True
    if not is_float(narrow.dtype):
        return not np.array_equal(narrow, wide)
    a, b = narrow.astype(np.float64), wide.astype(np.float64)
    finite = np.isfinite(b)
    if not np.isfinite(a[finite]).all():
        return True
    error, size = np.linalg.norm(a[finite] - b[finite]), np.linalg.norm(b[finite])
    return bool(error > SMALL * size)


def _lost(narrow: np.ndarray, wide: np.ndarray) -> tuple[bool, float]:
    """Whether values overflow, and the greatest magnitude of those that do, or else of those that become zero."""
    size = np.where(np.isfinite(wide), np.abs(wide.astype(np.float64)), 0.0)
    above = size[~np.isfinite(narrow)]
    if above.size:
        return True, float(above.max())
    return False, float(size[(narrow == 0) & (size > 0)].max(initial=0.0))
