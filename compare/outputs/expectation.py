"""The error that rounding is expected to make at the outputs, measured: the network run with random roundings.

One candidate at a time, for the samples and outputs that its errors leave in doubt. A few draws decide most of them;
where they do not, more are made (`DRAWS`), and each is held against the others to learn how far a healthy candidate may
go.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.cutting.dataflow import random_nodes
from ...graph.errors import LayerdiffError
from ...graph.formats import BY_DTYPE, FP32
from ...graph.rounding.roundings import KAPPA
from ...graph.specs import is_float
from ..journal.keys import runner_key
from ..journal.sessions import remembered
from ..runs.opening import open_whole
from .decisions import (
    TYPICAL,
    Decisions,
    hold_decisions,
    hold_jumps,
    jumping_tensors,
    numbers,
    relative_error,
)
from .drawing import Drawing, Pairs
from .draws import Drawn, Kind
from .equals import choice_of, equally_good
from .evidence import Measured
from .explained import Held, among_themselves, floors, hold, limits
from .roundoff import narrow_types, roundoff
from .tolerance import finer

if TYPE_CHECKING:
    from ...runners.contract.workload import Feed
    from ..comparison import Comparison
    from ..journal.sessions import RunJournal
    from ..sides import Side

DRAWS = (4, 8, 16)
"""Draws of all samples together at first, and of each sample where they do not decide."""
BETWEEN = 2
"""Draws that are added at a time where each may decide that an error is explained."""
CLEAR = {"rms": 0.5, "slice": 0.6, "magnitude": 0.6, "element": 0.75}
"""Shares of the limits up to which the first draws decide; healthy elements come to about 0.6. Of D draws in all the
mean square is d / D times that of the first d at least, so that up to a share of sqrt(d / D) these decide as all do."""
AMONG = (2, 4, 8)
"""Numbers of draws at which a candidate within its limits is held against them in another way: it is explained where
the draws, each held against the others, come to as much. A channel that errs as one, by the rounding of its weight, is
matched no better by few draws of a healthy network."""
HOPELESS = 8.0
"""Times a limit from which on more draws do not explain an error; its square, where there are few draws of a batch, and
its cube, where there is one of no batch."""
FAR = 5e3
"""Unit roundoffs from which on an error may be far beyond that of rounding, whatever the network."""
MANY_ENTRIES, FEW_ENTRIES = 8, 2
"""Entries of a batch from which on a few are drawn first where an error is that far; and how many these are."""
REPEATED = 1 / 16
"""Share of an input's elements from which on one value is called repeated: padding, a blank background."""

logger = logging.getLogger("layerdiff")


class Expectation:
    """Draws of the expected error of one candidate's outputs. A context manager: leaving it closes its sessions.

    Args:
        comparison: Who ran.
        candidate: Who is judged.
        fp16_sums: Names of nodes that are known to add up in FP16.
        pieces: Whether the network is run in pieces, since the weights of all sides do not fit in memory.
        samples: How many samples are to be judged. A fault shows in all of them, and in all entries of a batch, so few
            draws of each decide at first.
        drawn: What was drawn before, and where to keep what is drawn now.
    """

    def __init__(
        self,
        comparison: Comparison,
        candidate: Side,
        fp16_sums: frozenset[str] = frozenset(),
        *,
        pieces: bool = False,
        samples: int = 1,
        drawn: Drawn | None = None,
    ) -> None:
        self._comparison = comparison
        self._samples = samples
        self.side, self.roundoff = roundoff(comparison.reference, candidate, fp16_sums)
        self._drawing = Drawing(comparison, self.side, self.roundoff, pieces=pieces, drawn=drawn)
        self.jumping = jumping_tensors(self.side.model.index)
        self._numbers = numbers(self.side.model.index)
        self._small: frozenset[str] = frozenset()
        self._narrow = narrow = narrow_types(self.side.model)
        self._u = max(self.roundoff.coarse.u, *(BY_DTYPE[name].u for name in narrow), FP32.u)

    def __enter__(self) -> Expectation:
        return self

    def __exit__(self, *exc: object) -> None:
        self._drawing.close()

    def judge(self, sample: int, feed: Feed, pairs: Pairs) -> dict[str, Measured]:
        """Holds outputs of one sample against draws.

        Args:
            sample: Its number.
            feed: The inputs.
            pairs: The reference's and the candidate's output, by name.

        Raises:
            LayerdiffError: The network cannot be rewritten or run.
        """
        found, size = remembered(
            self._comparison.journal,
            lambda journal: self._depends(journal, sample, feed, pairs),
            lambda: (self._judged(sample, feed, pairs), self._drawing.size),
        )
        self._drawing.sized(size)
        self._small |= {name for name, held in found.items() if held.subnormals}
        return found

    def _depends(self, journal: RunJournal, sample: int, feed: Feed, pairs: Pairs) -> tuple[Any, ...] | None:
        """All that makes the answer on one sample what it is."""
        side = self.side
        if random_nodes(side.model.index):
            return None
        own = side is self._comparison.reference, self._drawing.pieces, self._u, self._drawing.size
        given = [journal.digests.of(a) for a in (feed, *({n: p[i] for n, p in pairs.items()} for i in (0, 1)))]
        runner = runner_key(self._drawing.runner)
        small = sorted(self._small)
        return "expectation", runner, side.model.digest, self.roundoff, self._samples, own, small, sample, given

    def _judged(self, sample: int, feed: Feed, pairs: Pairs) -> dict[str, Measured]:
        found: dict[str, Measured] = {}
        for jumping in (False, True):
            mine = {n: p for n, p in pairs.items() if (n in self.jumping or not is_float(p[0].dtype)) == jumping}
            # what explains an output on one sample does so on the next
            small, likely = Kind(jumping, subnormals=True), {n: p for n, p in mine.items() if n in self._small}
            found.update(self._excused(sample, feed, likely, {}, small))
            left = {n: p for n, p in mine.items() if n not in found}
            found.update(self._judge(sample, feed, left, Kind(jumping)))
            found.update(self._excused(sample, feed, left, found, Kind(jumping, by_value=True)))
            untried = {n: p for n, p in left.items() if n not in likely}
            found.update(self._excused(sample, feed, untried, found, small))
        return found

    def _excused(
        self, sample: int, feed: Feed, pairs: Pairs, found: Mapping[str, Measured], kind: Kind
    ) -> dict[str, Measured]:
        """Outputs that draws of another kind explain, where it applies and the first ones did not. Draws that cannot be
        made explain nothing."""
        doubtful = {n: p for n, p in pairs.items() if n not in found or not found[n].explained}
        if not doubtful or not (self._has_subnormals if kind.subnormals else any(map(_repeats, feed.values()))):
            return {}
        try:
            again = self._judge(sample, feed, doubtful, kind)
        except LayerdiffError as error:
            logger.debug("no draws of %s", kind, exc_info=error)
            return {}
        return {n: replace(held, subnormals=kind.subnormals) for n, held in again.items() if held.explained}

    @property
    def _has_subnormals(self) -> bool:
        """Whether the candidate's format ends far above where FP32 does, so that numbers become subnormal in it."""
        formats = [self.roundoff.coarse, *(BY_DTYPE[name] for name in narrow_types(self.side.model))]
        return any(fmt.smallest_normal > 1e3 * FP32.smallest_normal for fmt in formats)

    def _judge(self, sample: int, feed: Feed, pairs: Pairs, kind: Kind) -> dict[str, Measured]:
        if not pairs:
            return {}
        jumping, entries = kind.jumping, _entries(feed, pairs)
        drawn: dict[str, list[np.ndarray]] = {name: [] for name in pairs}
        base = self._drawing.base(feed, pairs, kind)
        done = {} if jumping else self._hopeless(sample, feed, pairs, base, kind, entries)
        # one draw alone does not show where its values have jumped
        for count in DRAWS if jumping else _draws(self._samples * entries):
            names = [name for name in pairs if name not in done]
            if not names:
                break
            have = len(drawn[names[0]])
            for number in range(have, count):
                outputs = self._drawing.draw(sample, feed, names, number, kind)
                for name in names:
                    drawn[name].append(outputs[name])
            for name in names:
                last = count == DRAWS[-1]
                held = self._hold(pairs[name], base[name], drawn[name], sample, kind, entries, last)
                if held is not None:
                    held = self._between_equals(held, feed, name, pairs[name])
                    done[name] = self._with_share(held, name, pairs[name])
        return done

    def _hopeless(
        self, sample: int, feed: Feed, pairs: Pairs, base: Mapping[str, np.ndarray], kind: Kind, entries: int
    ) -> dict[str, Measured]:
        """Outputs that are so far off that a draw of a few entries of the batch decides: its noise stands for that of
        the others. Where the entries are not computed each by itself, it is too large for that."""
        if entries < MANY_ENTRIES or not self._drawing.as_it_is:
            return {}
        far = {
            n: p for n, p in pairs.items() if p[0].shape == p[1].shape and relative_error(*p, self._u) > FAR * self._u
        }
        if not far:
            return {}
        try:
            few = {name: array[:FEW_ENTRIES] for name, array in feed.items()}
            outputs = self._drawing.draw_once(few, list(far), kind)
        except LayerdiffError as error:
            logger.debug("no draw of %d entries", FEW_ENTRIES, exc_info=error)
            return {}
        found = {}
        for name, pair in far.items():
            ground = base[name].astype(np.float64)
            if outputs[name].shape != ground[:FEW_ENTRIES].shape:
                continue
            noise = outputs[name] - ground[:FEW_ENTRIES]
            drawn = ground + noise[np.arange(len(ground)) % FEW_ENTRIES]
            held = self._hold(pair, base[name], [drawn], sample, kind, entries, False)
            if held is not None and not held.explained:
                found[name] = self._with_share(held, name, pair)
        return found

    def _hold(
        self,
        pair: tuple[np.ndarray, np.ndarray],
        base: np.ndarray,
        drawn: Sequence[np.ndarray],
        sample: int,
        kind: Kind,
        entries: int,
        last: bool,
    ) -> Measured | None:
        jumping = kind.jumping
        reference, candidate = pair
        if reference.shape != candidate.shape:
            seen = {base.shape, *(d.shape for d in drawn)}
            return _other_shape({reference.shape, candidate.shape} <= seen, sample, len(drawn)) if last else None
        alike = [d for d in drawn if d.shape == base.shape]
        if not is_float(reference.dtype):
            found = hold_decisions(reference, candidate, *_of_shape(reference, base, alike))
            hopeless = found.unexplained and found.different > HOPELESS * (TYPICAL * found.expected + 2)
            decided = last or hopeless or not found.different
            return _decided(found, sample, reference.shape, len(alike)) if decided else None
        y, error, draws = self._errors(pair, base, alike, kind)
        floor = self._floor(reference, candidate.dtype)
        jumps = Decisions(0)
        if jumping and len(alike) > 1:
            jumps, error, draws = hold_jumps(error, draws, floor)
        allowed = floors(reference.size)
        few = not jumping and len(alike) < DRAWS[0] <= entries
        held = hold(error, y, draws, floor, entries=few)
        sure = 0.0 if jumping else math.sqrt(len(alike) / DRAWS[-1])
        well_within = {name: max(CLEAR[name], sure) * limit for name, limit in allowed.items()}
        clear = not jumps.different and held.within(well_within)
        among = not jumping and len(alike) in AMONG
        if among and not clear:
            clear = _like_draws(held, y, draws, floor, allowed, well_within, few)
        if few and not clear:
            held = hold(error, y, draws, floor)
            clear = among and _like_draws(held, y, draws, floor, allowed, well_within)
        use, statistic = held.use(allowed)
        if not clear and use > 1 and len(alike) > 1:
            allowed = limits(y, draws, floor)
            use, statistic = held.use(allowed)
        # what jumps may have jumped in a draw that is not made yet, and one element's noise takes some draws to show:
        # behind a Relu there may be none of it in the first
        much = HOPELESS if len(alike) >= _first(self._samples) else HOPELESS**2
        far = use if len(alike) >= DRAWS[0] else held.without("element").use(allowed)[0]
        hopeless = far > (much if few or len(alike) > 1 else HOPELESS**3) and not jumping and bool(alike)
        if not (clear or hopeless or last):
            return None
        where = tuple(int(i) for i in np.unravel_index(held.worst, reference.shape)) if reference.size else None
        return _measured(held, statistic, allowed, jumps, sample=sample, index=where, draws=len(alike), u=self._u)

    def _between_equals(self, held: Measured, feed: Feed, name: str, pair: tuple[np.ndarray, np.ndarray]) -> Measured:
        """Leaves open which of equal values is chosen, where the reference is a program of its own."""
        choice = choice_of(self.side.model.index, name) if held.unexplained and not self._drawing.as_it_is else None
        if choice is None or pair[0].shape != pair[1].shape:
            return held
        side, plain = replace(self.side, runner=self._drawing.runner), replace(self._comparison, journal=None)
        given = {spec.name: feed[spec.name] for spec in side.model.inputs}
        values = given.get(choice.values)
        if values is None:
            with open_whole(plain, side, self._drawing.pieces, [choice.values]) as session:
                values = session.infer(given, [choice.values])[choice.values]
        if not equally_good(values, choice, *pair):
            return held
        return replace(held, use=1.0, unexplained=0, beyond=0, unseen=held.different)

    def _with_share(self, held: Measured, name: str, pair: tuple[np.ndarray, np.ndarray]) -> Measured:
        """Adds what part of an output was decided differently, and how far off it is with that."""
        if not held.different:
            return held
        share = (held.different - 1) / pair[0].size
        whole = relative_error(*pair, self._u) if name in self._numbers else math.inf
        return replace(held, share=share, whole=whole, u=self._u)

    def _errors(
        self, pair: tuple[np.ndarray, np.ndarray], base: np.ndarray, alike: Sequence[np.ndarray], kind: Kind
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The reference, the candidate's error and those of draws, as float64, with zeros where something is not
        finite."""
        y, c = (x.astype(np.float64) for x in pair)
        finite = np.isfinite(y) & np.isfinite(c)
        gain = 1.0 if kind.jumping else self._drawing.gain(kind)
        ground = base.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            draws = np.array([(d.astype(np.float64) - ground) / gain for d in alike])
            error = np.where(finite, c - y, 0.0)
        return np.where(finite, y, 0.0), error, np.where(np.isfinite(draws) & finite, draws, 0.0)

    def _floor(self, reference: np.ndarray, other: np.dtype) -> np.ndarray:
        """Standard deviation of the rounding of the output itself, and of numbers too small for a format."""
        fmt = self.roundoff.coarse
        typed = reference.dtype.name in self._narrow
        stored = BY_DTYPE.get((reference.dtype if typed else finer(reference.dtype, other)).name, FP32)
        u = max(fmt.u if fmt.u == fmt.u else 0.0, stored.u)
        step = max(f.smallest_subnormal for f in (fmt, stored)) / math.sqrt(12)
        with np.errstate(invalid="ignore"):
            size = np.abs(reference.astype(np.float64))
        return np.hypot(math.sqrt(KAPPA) * u * np.where(np.isfinite(size), size, 0.0), step)


def _like_draws(
    held: Held,
    reference: np.ndarray,
    draws: np.ndarray,
    floor: np.ndarray,
    allowed: Mapping[str, float],
    well_within: Mapping[str, float],
    entries: bool = False,
) -> bool:
    """Whether a candidate within its limits comes to no more than the draws do, each held against the others."""
    if held.use(allowed)[0] > 1:
        return False
    worst = among_themselves(reference, draws, floor, entries)
    return held.within({name: max(limit, worst[name]) for name, limit in well_within.items()})


def _repeats(array: np.ndarray) -> bool:
    """Whether one value makes up a large part of an input."""
    if array.size < 4 / REPEATED or array.dtype.kind not in "iuf":
        return False
    _, counts = np.unique(array, return_counts=True)
    return int(counts.max()) >= REPEATED * array.size


def _draws(samples: int) -> list[int]:
    """How many draws of each sample are held against it, one number after the other, where ``samples`` are judged."""
    first = _first(samples)
    return sorted({first, min(2 * first, DRAWS[0]), *range(DRAWS[0], DRAWS[-1], BETWEEN), *DRAWS})


def _first(samples: int) -> int:
    return -(-DRAWS[0] // samples)


def _entries(feed: Feed, pairs: Pairs) -> int:
    """Entries of a batch: the leading dimension that all inputs and outputs have in common, else 1."""
    leading = {np.shape(array)[:1] for array in (*feed.values(), *(reference for reference, _ in pairs.values()))}
    (common,) = leading if len(leading) == 1 else [()]
    return max((1, *common))


def _other_shape(drawn: bool, sample: int, draws: int) -> Measured:
    """A shape that differs: rounding explains it only where it gives those of both sides."""
    use = 1.0 if drawn else math.inf
    return Measured(use, "shape", use, 1.0, None, None, sample, None, draws, unseen=1)


def _of_shape(
    reference: np.ndarray, base: np.ndarray, drawn: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Draws of the reference's shape, and what they differ from; none where the drawn network gives another shape."""
    return ([*drawn], base) if base.shape == reference.shape else ([], reference)


def _measured(held: Held, statistic: str, limits: Mapping[str, float], jumps: Decisions, **where: Any) -> Measured:
    """A floating-point output held against draws, by the statistic that takes the largest share of its limit."""
    return Measured(
        use=held.statistics[statistic] / limits[statistic],
        statistic=statistic,
        value=held.statistics[statistic],
        limit=limits[statistic],
        expected=held.expected,
        relative=held.relative,
        different=jumps.different,
        expected_different=jumps.expected,
        unexplained=jumps.unexplained,
        unseen=jumps.unseen,
        beyond=held.beyond,
        statistics=held.statistics,
        **where,
    )


def _decided(found: Decisions, sample: int, shape: tuple[int, ...], draws: int) -> Measured:
    index = tuple(int(i) for i in np.unravel_index(found.first, shape)) if found.first >= 0 else None
    use = math.inf if found.unexplained else 1.0 if found.different else 0.0
    return Measured(
        use=use,
        statistic="decisions",
        value=float(found.different),
        limit=found.expected,
        expected=None,
        relative=None,
        sample=sample,
        index=index,
        draws=draws,
        different=found.different,
        expected_different=found.expected,
        unexplained=found.unexplained,
        unseen=found.unseen,
        beyond=found.unexplained,
    )
