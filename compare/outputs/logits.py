"""Logits of a language model beside the reference's: not how far numbers are apart, but distributions.

Teacher-forced: at each position both sides have read the same tokens, those of the data, so that no position pays for
the one before it. Streaming: of every position a few numbers are kept, nothing else.

- Kullback-Leibler divergence, sum of p log(p / q) over the vocabulary, p the reference's distribution (S. Kullback,
  R. A. Leibler, *On information and sufficiency*, Ann. Math. Stat. 22, 1951);
- the change of the log-probability of the token that comes next in the data, or, where none does, of the one that the
  reference thinks most probable;
- perplexity, exp of minus the mean log-probability of the tokens that come next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ...graph.decoders import Decoder, decoder
from ...graph.errors import UsageError
from ...graph.operators import (
    CASTS,
    FLAT,
    POINTWISE,
    PROBABILITIES,
    QUANTIZERS,
    RESHAPES,
    STRETCHES,
    WINDOWED,
    operator,
)
from ...graph.specs import is_float
from ..notices import logits_shifted, not_measured
from ..report.logits import LogitsResult
from ..report.model import AccuracyResult
from .evidence import MetricLoss, OutputEvidence
from .metric import LOGITS, Criterion, Outputs

if TYPE_CHECKING:
    from ...dataloaders.base import Sample, Samples
    from ...graph.index import GraphIndex
    from ..report.model import Notice
    from ..sides import Sides

TAIL = 10.0
"""The 99th percentile of the divergence may be this many times what its mean may be."""
WORST = 20.0
"""Times what the mean divergence may be, how much any position may diverge, or its token lead where another one is most
probable: 2 nats unless the user says otherwise. Of 4,096 positions of a small decoder, those of INT8 diverge by 0.31 at
most, with a lead of 0.75, and those of E4M3, whose tail is too heavy, by 0.59 with one of 1.5."""
TOP = 5
"""How many of the most probable tokens are held against each other."""
RANKS = 2, 3
"""Dimensions of logits: rows, or a batch and positions, and the vocabulary. Pictures have one more."""
SHIFT = 1 / 8
"""Share of the logits' size from which on what is added to all of a position is told."""
UNIT = 0.01
"""How far the sum of a row of probabilities may be from 1: what roundings to 8 bits of the mantissa make of it."""
MANY = 64
"""Numbers that are all between 0 and 1 from which on they are no logits."""
BLOCK = 1 << 21
"""Logits that are looked at at once: 16 MiB as float64."""


@dataclass
class _Tally:
    """What is kept of one runner: an array of each kind for every sample, with a number for each position."""

    kl: list[np.ndarray] = field(default_factory=list)
    own: list[np.ndarray] = field(default_factory=list)
    reference: list[np.ndarray] = field(default_factory=list)
    taught: list[np.ndarray] = field(default_factory=list)
    of_zeros: list[np.ndarray] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)
    top1: int = 0
    top5: float = 0.0
    margin: float = -1.0
    margin_at: tuple[int, ...] | None = None
    squares: float = 0.0
    shifts: float = 0.0
    logits: int = 0
    failure: str | None = None


@dataclass(frozen=True)
class _Present:
    """The reference's answer to the present sample.

    Attributes:
        logits: Positions x vocabulary; of positions that are no padding alone.
        tokens: The token of each position.
        taught: Whether that comes from the data.
        places: Sample, row and position of each.
        keep: Which of all positions are no padding; None: all of them.
    """

    sample: int
    shape: tuple[int, ...]
    logits: np.ndarray
    tokens: np.ndarray
    taught: np.ndarray
    places: np.ndarray
    keep: np.ndarray


class LogitsMeter:
    """Measures every runner on each sample as it comes; of each sample, the reference's outputs come first."""

    def __init__(self, criterion: Criterion, sides: Sides, samples: Samples) -> None:
        model = sides.reference.model
        self._model = decoder(model.inputs, model.outputs)
        self._criterion = _bound(criterion, model.outputs, self._model)
        _check_maker(model.index, self._criterion.output)
        self._in_unit, self._one = True, True
        self._sides = sides
        self._tallies = {side.name: _Tally() for side in sides.all}
        self._feeds: Iterator[tuple[int, Sample]] = enumerate(samples)
        self._present: _Present | None = None

    def take(self, name: str, sample: int, outputs: Outputs) -> None:
        """Takes in the outputs of one runner for one sample.

        Raises:
            UsageError: The reference has no logits.
        """
        tally = self._tallies[name]
        if name == self._sides.reference.name:
            feed = next(feed for number, feed in self._feeds if number == sample)
            self._present = self._read(sample, self._logits(outputs, sample), feed)
            self._look(self._present.logits)
            self._add(tally, self._present, self._present.logits)
            tally.of_zeros.append(_of_zeros(self._present))
            return
        present = self._present
        if present is None or present.sample != sample or tally.failure:
            return
        try:
            logits = self._logits(outputs, sample)
        except UsageError as error:  # of the candidate's outputs alone: its verdict, not the end of the run
            tally.failure = str(error)
            return
        if logits.shape != present.shape:
            tally.failure = f"sample {sample} has logits {list(logits.shape)}, {list(present.shape)} expected."
            return
        self._add(tally, present, logits.reshape(-1, logits.shape[-1])[present.keep])

    def _logits(self, outputs: Outputs, sample: int) -> np.ndarray:
        name = self._criterion.output
        if name is None or name not in outputs:
            raise UsageError(f"--metric {LOGITS}: sample {sample} has no output {name!r}.")
        logits = np.asarray(outputs[name])
        if logits.ndim not in RANKS or not is_float(logits.dtype) or logits.dtype.kind == "c" or logits.shape[-1] < 2:
            raise _no_logits(f"{name} ({logits.dtype}, shape {list(logits.shape)})")
        return logits

    def _look(self, logits: np.ndarray) -> None:
        """Finds out whether the reference's logits may be probabilities."""
        if not self._in_unit:
            return
        self._in_unit = bool(((logits >= 0) & (logits <= 1)).all())
        sums = logits.sum(axis=-1, dtype=np.float64)
        self._one = self._one and self._in_unit and bool((np.abs(sums - 1) <= UNIT).all())

    def _read(self, sample: int, logits: np.ndarray, feed: Sample) -> _Present:
        """The reference's logits with the token that belongs to each position."""
        vocabulary = logits.shape[-1]
        rows = logits.reshape(len(logits), -1, vocabulary)  # batch x positions x vocabulary
        tokens, taught = _next_tokens(self._model, feed, rows.shape[:2])
        keep = _no_padding(self._model, feed, rows.shape[:2])
        taught[:, :-1] &= keep[:, 1:]
        best = rows.argmax(axis=-1)
        taught &= (tokens >= 0) & (tokens < vocabulary)
        tokens = np.where(taught, tokens, best)
        row, position = np.nonzero(keep)
        places = np.stack([np.full(len(row), sample), row, position], axis=1)
        flat = keep.reshape(-1)
        kept = rows.reshape(-1, vocabulary)[flat]
        return _Present(sample, logits.shape, kept, tokens[keep], taught[keep], places, flat)

    def _add(self, tally: _Tally, present: _Present, logits: np.ndarray) -> None:
        """Adds the positions of one sample, some at a time."""
        count = max(1, BLOCK // logits.shape[-1])
        for start in range(0, len(logits), count):
            part = slice(start, start + count)
            _add_block(tally, present.logits[part], logits[part], present.tokens[part], present.places[part])
        tally.taught.append(present.taught)
        tally.places.append(present.places)

    def finish(self) -> None:
        """Makes sure that the reference's were logits, after all samples.

        Raises:
            UsageError: All of them are probabilities.
        """
        seen = self._tallies[self._sides.reference.name].logits
        if seen and self._in_unit and (self._one or seen >= MANY):
            what = "its rows add up to 1" if self._one else "all its numbers are between 0 and 1"
            raise _probabilities(self._criterion.output, what)

    def results(self, outputs: Sequence[OutputEvidence]) -> tuple[AccuracyResult, ...]:
        """What each runner's logits are worth, the reference first.

        Args:
            outputs: What is known of the outputs: the error that rounding explains is what flips are held against.
        """
        name = self._criterion.output
        expected = {e.candidate: e.expected.expected for e in outputs if e.tensor == name and e.expected is not None}
        return tuple(self._result(runner, expected.get(runner)) for runner in self._tallies)

    def _result(self, name: str, expected: float | None = None) -> AccuracyResult:
        tally = self._tallies[name]
        found = None if tally.failure or not tally.kl else _summary(tally, expected)
        own = _mean(np.concatenate(tally.own)) if found is not None else None
        return AccuracyResult(
            runner=name,
            metric=LOGITS,
            value=own,
            difference=None if found is None else found.change_mean,
            samples=sum(map(len, tally.kl)),
            disagreements=None if found is None else found.flips,
            logits=found,
        )

    def loss(self, candidate: str, tensor: str) -> MetricLoss | None:
        """What was measured of one output: the logits, or a cache that they were computed from."""
        presents = () if self._model is None else [cache.present for cache in self._model.caches]
        if tensor != self._criterion.output and tensor not in presents:
            return None
        result = self._result(candidate)
        found, drop = result.logits, self._criterion.drop
        lost, reason = (math.nan, "") if found is None else _lost(found, drop)
        return MetricLoss(
            metric=LOGITS,
            rows=result.samples,
            value=result.value if math.isfinite(lost) else None,
            reference=0.0,
            lost=lost * result.samples,
            allowed=drop,
            guessing=self._guessing(),
            reason=reason,
            doubt="" if found is None else _far_off(found, drop),
            binding=True,
            cache=tensor != self._criterion.output,
        )

    def _guessing(self) -> float | None:
        """What zeros in the place of the logits, every token equally probable, would lose: less than nothing."""
        found = self._tallies[self._sides.reference.name].of_zeros
        if not found:
            return None
        kl, change = np.concatenate(found, axis=1)
        return -max(float(kl.mean()), float(change.mean()), float(np.quantile(kl, 0.99)) / TAIL) if len(kl) else None

    def notices(self) -> Iterator[Notice]:
        """Runners that could not be measured, and those whose logits are shifted, which the metric does not see."""
        for name, tally in self._tallies.items():
            if tally.failure:
                yield not_measured(name, tally.failure)
            elif tally.shifts > SHIFT**2 * tally.squares:
                yield logits_shifted(
                    name, math.sqrt(tally.shifts / tally.logits), math.sqrt(tally.squares / tally.logits)
                )


def _bound(criterion: Criterion, outputs: Sequence, model: Decoder | None) -> Criterion:
    """The criterion with the output that holds the logits.

    Raises:
        UsageError: It is not known which one does, or it is no float of at least two dimensions.
    """
    known = {spec.name: spec for spec in outputs}
    name = criterion.output or (None if model is None or model.logits is None else model.logits.name)
    if name is None:
        floats = [spec.name for spec in outputs if is_float(spec.dtype)]
        name = "logits" if "logits" in known else floats[0] if len(floats) == 1 else None
    if name is None or name not in known:
        have = f"{name}: no such output" if name else "no output is called logits"
        raise UsageError(f"--metric {LOGITS}: {have}; choose one with --metric-output: {', '.join(sorted(known))}.")
    shape = known[name].shape
    if not is_float(known[name].dtype) or (shape is not None and len(shape) not in RANKS):
        raise _no_logits(str(known[name]))
    return replace(criterion, output=name)


def _check_maker(index: GraphIndex, name: str | None) -> None:
    """Refuses an output that a Softmax or a Sigmoid makes, or a convolution, whose last axis is one of places.

    Raises:
        UsageError: It is one.
    """
    assert name is not None
    makers = (
        (index.moved_from(name, STRETCHES | CASTS | QUANTIZERS), PROBABILITIES),
        (
            index.moved_from(name, POINTWISE - PROBABILITIES | FLAT - RESHAPES | CASTS | QUANTIZERS),
            WINDOWED,
        ),
    )
    for source, kind in makers:
        position = index.producer.get(source)
        if position is None or operator(index.nodes[position]) not in kind:
            continue
        made = f"{operator(index.nodes[position])} makes it"
        if kind is PROBABILITIES:
            raise _probabilities(name, made)
        raise UsageError(
            f"--metric {LOGITS} takes logits whose last axis is the vocabulary; that of output {name!r} is one of "
            f"places ({made}). Measure it with package.module:function."
        )


def _probabilities(name: str | None, why: str) -> UsageError:
    return UsageError(
        f"--metric {LOGITS} takes logits, or log-probabilities; output {name!r} holds probabilities ({why}). "
        "--metric agree compares what they decide, --tolerance them."
    )


def _no_logits(what: str) -> UsageError:
    return UsageError(f"--metric {LOGITS} takes logits, batch x positions x vocabulary; output {what} is none.")


def _next_tokens(
    model: Decoder | None, feed: Mapping[str, np.ndarray], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The token of the data behind each position, and where there is one. Fewer logits than tokens are the last."""
    tokens, taught = np.zeros(shape, np.int64), np.zeros(shape, bool)
    ids = None if model is None else feed.get(model.ids.name)
    if ids is None or ids.shape[0] != shape[0] or ids.shape[1] < shape[1] or not shape[1]:
        return tokens, taught
    following = ids[:, ids.shape[1] - shape[1] + 1 :]
    tokens[:, : following.shape[1]] = following
    taught[:, : following.shape[1]] = True
    return tokens, taught


def _no_padding(model: Decoder | None, feed: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    mask = None if model is None or model.mask is None else feed.get(model.mask.name)
    if mask is None or mask.shape[0] != shape[0] or mask.shape[1] < shape[1]:
        return np.ones(shape, bool)
    return np.asarray(mask[:, mask.shape[1] - shape[1] :] != 0)


def _of_zeros(present: _Present) -> np.ndarray:
    """The divergence of zeros in the place of the logits, and by how much the log-probability of the token changes: of
    each position."""
    count = max(1, BLOCK // present.logits.shape[-1])
    found = [np.zeros((2, 0))]
    for start in range(0, len(present.logits), count):
        p = log_softmax(present.logits[start : start + count])
        even = math.log(p.shape[-1])
        token = p[np.arange(len(p)), present.tokens[start : start + count]]
        with np.errstate(invalid="ignore"):
            terms = np.where(np.isneginf(p), 0.0, np.exp(p) * (p + even))
        found.append(np.stack([terms.sum(axis=-1), np.abs(token + even)]))
    return np.concatenate(found, axis=1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities, float64; the last axis is the vocabulary."""
    wide = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):
        wide -= wide.max(axis=-1, keepdims=True)
        return np.asarray(wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True)))


def _add_block(
    tally: _Tally, reference: np.ndarray, candidate: np.ndarray, tokens: np.ndarray, places: np.ndarray
) -> None:
    """Adds some positions: logits of both sides, positions x vocabulary."""
    p, q = log_softmax(reference), log_softmax(candidate)
    with np.errstate(invalid="ignore"):
        terms = np.where(np.isneginf(p), 0.0, np.exp(p) * (p - q))
        shift = candidate.mean(axis=-1, dtype=np.float64) - reference.mean(axis=-1, dtype=np.float64)
    rows = np.arange(len(p))
    tally.kl.append(np.maximum(terms.sum(axis=-1), 0.0))
    tally.reference.append(p[rows, tokens])
    tally.own.append(q[rows, tokens])
    mine, theirs = p.argmax(axis=-1), q.argmax(axis=-1)
    same = mine == theirs
    tally.top1 += int(same.sum())
    tally.top5 += float(_in_common(p, q, min(TOP, p.shape[-1] - 1)).sum())
    lead = np.where(same, -1.0, p[rows, mine] - p[rows, theirs])
    if lead.size and (worst := float(lead.max())) > tally.margin:
        tally.margin, tally.margin_at = worst, tuple(int(i) for i in places[int(lead.argmax())])
    tally.shifts += p.shape[-1] * float(np.square(shift[np.isfinite(shift)]).sum())
    finite = reference[np.isfinite(reference)].astype(np.float64)
    tally.squares += float(finite @ finite)
    tally.logits += finite.size


def _in_common(p: np.ndarray, q: np.ndarray, k: int) -> np.ndarray:
    """Share of the ``k`` largest of each row that both have in common."""
    one, other = (np.argpartition(-x, k - 1, axis=-1)[:, :k] for x in (p, q))
    return np.asarray((one[:, :, None] == other[:, None, :]).any(axis=2).mean(axis=1))


def _summary(tally: _Tally, expected: float | None) -> LogitsResult:
    kl, own, reference = (np.concatenate(x) for x in (tally.kl, tally.own, tally.reference))
    taught, places = np.concatenate(tally.taught), np.concatenate(tally.places)
    with np.errstate(invalid="ignore"):  # a token that both think impossible
        change = own - reference
    size = math.sqrt(tally.squares / tally.logits) if tally.logits else 0.0
    deviation = (expected or 0.0) * size * math.sqrt(2)
    flips = len(kl) - tally.top1
    return LogitsResult(
        positions=len(kl),
        taught=int(taught.sum()),
        kl_mean=_mean(kl),
        kl_p99=_finite(np.quantile(kl, 0.99)) if len(kl) else None,
        kl_max=_finite(kl.max()) if len(kl) else None,
        kl_max_at=tuple(int(i) for i in places[int(kl.argmax())]) if len(kl) else None,
        change_mean=_mean(change),
        change_abs_mean=_mean(np.abs(change)),
        change_abs_max=_finite(np.abs(change).max()) if len(kl) else None,
        top1=tally.top1 / max(1, len(kl)),
        top5=tally.top5 / max(1, len(kl)),
        perplexity=_exp(None if not taught.any() else _mean(-own[taught])),
        perplexity_ratio=_exp(None if not taught.any() else _mean(-change[taught])),
        flips=flips,
        flip_margin=tally.margin if flips else None,
        flip_margin_at=tally.margin_at if flips else None,
        flip_margin_expected=tally.margin / deviation if flips and deviation else None,
    )


def _lost(found: LogitsResult, drop: float) -> tuple[float, str]:
    """What is lost, in nats a position, and how that is said: the mean divergence, the mean change of the token's
    log-probability, or a `TAIL`-th of the divergence's 99th percentile, whichever is most."""
    nan = math.nan
    kl, change, tail = (nan if x is None else x for x in (found.kl_mean, found.change_abs_mean, found.kl_p99))
    told = {
        f"the mean KL divergence is {kl:.3g} nats": kl,
        f"the log-probability of the token changes by {change:.3g} nats in the mean": change,
        f"the KL divergence is {tail:.3g} nats or more in 1% of all positions": tail / TAIL,
    }
    if any(math.isnan(value) for value in told.values()):
        return nan, ""
    text = max(told, key=lambda t: told[t])
    allowed = drop * TAIL if text.endswith("positions") else drop
    return told[text], f"{text}; --metric-drop {drop:g} allows {allowed:g}"


def _far_off(found: LogitsResult, drop: float) -> str:
    """Why a single position keeps the output from passing: one that is wrong among thousands moves no mean and no
    percentile, and may be the one that the next token is taken from. Empty: none does."""
    kl, lead = found.kl_max or 0.0, found.flip_margin or 0.0
    most = max(kl, lead)
    if most <= WORST * drop * (1 + 1e-9):
        return ""
    at = found.kl_max_at if kl == most else found.flip_margin_at
    sample, row, position = at or (0, 0, 0)
    what = f"the KL divergence is {kl:.3g} nats"
    if kl < most:
        what = f"another token is most probable, where the reference's leads by {lead:.3g} nats"
    return (
        f"at position {position} of row {row} in sample {sample} {what}, and no single position may be off by more "
        f"than {WORST * drop:g}; look at that position, or allow more of it with --metric-drop {_up(most / WORST)}"
    )


def _up(value: float) -> str:
    """A number of two digits that is no less."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / step) * step:.2g}"


def _mean(values: np.ndarray) -> float | None:
    return _finite(values.mean()) if len(values) else None


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _exp(value: float | None) -> float | None:
    return None if value is None or value > 700 else math.exp(value)
