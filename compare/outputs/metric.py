"""Accuracy on labelled data: what the runtimes' differences do to the decisions that people use.

Where no tolerance can be derived (INT8, FP8), this is what decides: the candidate may be right a little less often than
the reference (``drop``). Streaming: of every batch the counts are kept, nothing else.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...graph.errors import DataError, UsageError, first_line
from ...graph.foreign import contained
from ...graph.imports import named_object
from ...graph.printable import counted
from ...graph.specs import is_float
from ..notices import not_measured
from ..report.model import AccuracyResult
from .evidence import MetricLoss, OutputEvidence

if TYPE_CHECKING:
    from ...graph.specs import TensorSpec
    from ..comparison import Rules
    from ..report.model import Notice
    from ..sides import Sides

Outputs: TypeAlias = "Mapping[str, np.ndarray]"
Function: TypeAlias = "Callable[[dict[str, np.ndarray], Any], float]"
"""``function(outputs, labels)``: the value of one sample, higher is better. ``outputs`` are its arrays by the names of
the outputs, ``labels`` those of its rows; None where none were given. It is asked once more of zeros in the place of
the reference's outputs, which have to be worse."""

AGREE = "agree"
LOGITS = "logits"
TOP = {"top1": 1, "top5": 5, AGREE: 1}
"""Metrics by name: among how many of the highest scores the right answer must be."""
METRICS = "top1, top5, agree, logits or package.module:function"
"""What `Rules.metric` may be, for messages."""

DROP = 0.01
"""How far the candidate's metric may lie under the reference's by default: one point of accuracy."""
LOGITS_DROP = 0.1
"""The same of logits, in nats: probabilities change by a tenth."""


@dataclass(frozen=True)
class Criterion:
    """What is measured, and how much of it may be lost.

    Attributes:
        metric: Its name in the report.
        k: The label must be among the ``k`` highest scores; 0 with a function.
        function: A metric of the user's own; None for top-k. Over batches, the mean of its values weighted by rows.
        labels: One for each row of all batches together, along the first axis; int for top-k. None for ``agree``.
        output: The output that is measured and decided; None with a function that looks at all of them.
        drop: The candidate's value may be lower than the reference's by this much.
    """

    metric: str
    k: int
    function: Function | None
    labels: np.ndarray | None
    output: str | None
    drop: float

    @property
    def by_reference(self) -> bool:
        """Whether the right answers are the reference's own decisions: ``agree``."""
        return self.k > 0 and self.labels is None

    def bind(self, outputs: Sequence[TensorSpec]) -> Criterion:
        """The criterion for a model with these outputs.

        Raises:
            UsageError: There is no such output, it is no matrix, or there are several to choose from.
        """
        known = {spec.name: spec for spec in outputs}
        if self.output is not None and self.output not in known:
            raise UsageError(f"--metric-output {self.output}: no such output; there are: {', '.join(sorted(known))}.")
        if self.k == 0:
            return self
        name = self.output
        if name is None:
            floats = [spec.name for spec in outputs if is_float(spec.dtype)]
            if len(floats) != 1:
                have = f"{len(floats)} outputs are floats" if floats else "no output is a float"
                names = ", ".join(floats or sorted(known))
                raise UsageError(f"--metric {self.metric}: {have}; choose one with --metric-output: {names}.")
            (name,) = floats
        shape = known[name].shape
        if shape is not None and len(shape) != 2:
            raise _not_a_matrix(self.metric, known[name])
        return replace(self, output=name)


def allowed_drop(rules: Rules) -> float:
    """How far a metric may fall: what the user says, else what is usual for it."""
    if rules.metric_drop is not None:
        return rules.metric_drop
    return LOGITS_DROP if rules.metric == LOGITS else DROP


def criterion(rules: Rules) -> Criterion | None:
    """What the user asked to be measured; None if nothing.

    Raises:
        UsageError: The metric does not exist, labels are missing or cannot serve, or something is given without it.
    """
    if rules.metric is None:
        given = {
            "--labels": rules.labels,
            "--metric-output": rules.metric_output,
            "--metric-drop": rules.metric_drop,
        }
        for option, value in given.items():
            if value is not None:
                raise UsageError(f"{option} needs --metric: {METRICS}.")
        return None
    name, k, function = _metric(rules.metric)
    if k and rules.metric_drop is not None and rules.metric_drop >= 1:
        raise UsageError(
            f"--metric-drop {rules.metric_drop:g}: {name} is a share of all rows, of which a drop of 1 is everything; "
            "0.01 is one point."
        )
    array = None if rules.labels is None else _labels(rules.labels)
    if name in (AGREE, LOGITS) and array is not None:
        raise UsageError(f"--metric {name} holds outputs against the reference's and reads no labels; top1 does.")
    if k and array is None and name != AGREE:
        raise UsageError(f"--metric {name} needs the right answers: --labels FILE, .npy or .npz.")
    if k and array is not None and (array.ndim != 1 or array.dtype.kind not in "iu"):
        found = f"{array.dtype} of shape {list(array.shape)}"
        raise UsageError(f"--metric {name} takes one whole number for each row as label, an int array; found {found}.")
    return Criterion(name, k, function, array, rules.metric_output, allowed_drop(rules))


def _metric(metric: str | Function) -> tuple[str, int, Function | None]:
    if not isinstance(metric, str):
        module, name = getattr(metric, "__module__", ""), getattr(metric, "__qualname__", type(metric).__name__)
        return f"{module}:{name}", 0, metric
    if metric in TOP or metric == LOGITS:
        return metric, TOP.get(metric, 0), None
    function = named_object("--metric", metric, METRICS)
    if not callable(function):
        raise UsageError(
            f"--metric {metric}: {metric.rpartition(':')[2]} is a {type(function).__name__}, not a function."
        )
    return metric, 0, function


def _labels(source: np.ndarray | Sequence[Any] | str | os.PathLike[str]) -> np.ndarray:
    """The labels, from an array or from ``FILE.npy``, ``FILE.npz`` or ``FILE.npz:NAME``."""
    array = _read(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else np.asarray(source)
    if array.ndim == 0:
        raise DataError(f"labels: expected an array with one label for each row; found a single {array.dtype}.")
    return array


def _read(source: str) -> np.ndarray:
    path, name = source, ""
    if not Path(source).exists() and ".npz:" in source:
        path, _, name = source.rpartition(":")
    try:
        content = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"--labels {path}: cannot be read: {error.strerror or first_line(error)}.") from error
    except Exception as error:  # whatever NumPy and zipfile say of a broken file
        raise DataError(f"--labels {path}: neither .npy nor .npz with plain arrays: {first_line(error)}.") from error
    if isinstance(content, np.ndarray):
        return content
    with content as archive:
        names = archive.files
        if not name and len(names) == 1:
            (name,) = names
        if name not in names:
            raise DataError(
                f"--labels {source}: name one of its arrays, {path}:NAME; it holds: {', '.join(names) or 'none'}."
            )
        try:
            return np.asarray(archive[name])
        except Exception as error:
            raise DataError(f"--labels {source}: {name!r} cannot be read: {first_line(error)}.") from error


@dataclass
class _Tally:
    """Sums over the rows that a runner and the reference both answered."""

    rows: int = 0
    own: float = 0.0
    reference: float = 0.0
    disagreements: int = 0
    failure: str | None = None


@dataclass(frozen=True)
class _Answers:
    """One batch of one runner: the metric's sum over its rows and, for top-k, what was decided for each row."""

    rows: int
    total: float
    decisions: np.ndarray | None = None


@dataclass(frozen=True)
class _Present:
    """The reference's answers for the present sample, and where its labels begin."""

    sample: int = -1
    start: int = 0
    answers: _Answers = field(default_factory=lambda: _Answers(0, 0.0))


class Meter:
    """Measures every runner on each sample as it comes; of each sample, the reference's outputs come first."""

    def __init__(self, criterion: Criterion, sides: Sides) -> None:
        self._criterion = criterion.bind(sides.reference.model.outputs)
        self._sides = sides
        self._tallies = {side.name: _Tally() for side in sides.all}
        self._present = _Present()
        self._seen = 0
        self._label_counts = np.zeros(0, np.int64)
        self._zeros: float | None = 0.0

    def take(self, name: str, sample: int, outputs: Outputs) -> None:
        """Takes in the outputs of one runner for one sample.

        Raises:
            UsageError: The labels do not fit the outputs, or the metric fails on the reference's outputs.
        """
        tally = self._tallies[name]
        if name == self._sides.reference.name:
            answers = self._answer(outputs, self._seen, sample)
            self._take_zeros(outputs, sample)
            self._present = _Present(sample, self._seen, answers)
            self._seen += answers.rows
            tally.rows += answers.rows
            tally.own += answers.total
            tally.reference += answers.total
            return
        present = self._present
        if present.sample != sample or tally.failure:
            return
        try:
            answers = self._answer(outputs, present.start, sample)
        except UsageError as error:  # of the candidate's outputs alone: its verdict, not the end of the run
            tally.failure = str(error)
            return
        if answers.rows != present.answers.rows:
            tally.failure = f"sample {sample} has {answers.rows:,} rows, {present.answers.rows:,} expected."
            return
        tally.rows += answers.rows
        tally.own += answers.total
        tally.reference += present.answers.total
        if answers.decisions is not None and present.answers.decisions is not None:
            one, other = answers.decisions, present.answers.decisions
            same = one.shape == other.shape
            tally.disagreements += int((one != other).any(axis=1).sum()) if same else answers.rows

    def _take_zeros(self, outputs: Outputs, sample: int) -> None:
        """What a function of the user's says of zeros in the place of the reference's outputs; None where it fails."""
        if self._criterion.function is None or self._zeros is None:
            return
        arrays = {name: np.asarray(array) for name, array in outputs.items()}
        zeros = {name: x if x.dtype.kind in "OSUT" else np.zeros_like(x) for name, x in arrays.items()}
        try:
            with np.errstate(all="ignore"):
                self._zeros += self._answer(zeros, self._seen, sample).total
        except UsageError:
            self._zeros = None

    def _answer(self, outputs: Outputs, start: int, sample: int) -> _Answers:
        rule = self._criterion
        if rule.output is not None and rule.output not in outputs:
            raise UsageError(f"--metric {rule.metric}: sample {sample} has no output {rule.output!r}.")
        if rule.function is not None:
            return self._own(rule.function, outputs, start, sample)
        assert rule.output is not None
        scores = np.asarray(outputs[rule.output])
        if scores.ndim != 2 or scores.dtype.kind in "OSUTcb":
            raise _not_a_matrix(rule.metric, f"{rule.output} ({scores.dtype}, shape {list(scores.shape)})")
        classes = scores.shape[1]
        if classes <= rule.k:
            named = counted(classes, "class", "classes")
            raise UsageError(
                f"--metric {rule.metric}: output {rule.output!r} has {named}, so any answer would be right."
            )
        decisions = decide(scores, rule.k)
        labels = self._right_answers(start, decisions, sample, classes)
        if start == self._seen:  # the reference's batch
            counts = np.bincount(labels[labels >= 0].astype(np.int64), minlength=classes)
            counts[: self._label_counts.size] += self._label_counts
            self._label_counts = counts
        right = (decisions == labels[:, None]).any(axis=1) & (labels >= 0)
        return _Answers(len(decisions), float(right.sum()), decisions)

    def _right_answers(self, start: int, decisions: np.ndarray, sample: int, classes: int) -> np.ndarray:
        """The labels of a batch; for ``agree`` what the reference decides, -1 where it decides nothing."""
        rule = self._criterion
        if rule.by_reference:
            reference = decisions if start == self._seen else self._present.answers.decisions
            assert reference is not None
            if len(reference) != len(decisions):
                raise UsageError(f"sample {sample} has {len(decisions):,} rows, {len(reference):,} expected.")
            return reference[:, 0]
        labels = self._slice(start, len(decisions), sample)
        assert labels is not None
        assert rule.labels is not None
        wrong = np.flatnonzero((labels < 0) | (labels >= classes))
        if wrong.size:
            at = start + int(wrong[0])
            raise UsageError(
                f"--labels: label {rule.labels[at]} at {at}; output {rule.output!r} has classes 0 to {classes - 1}."
            )
        return labels

    def _own(self, function: Function, outputs: Outputs, start: int, sample: int) -> _Answers:
        rule = self._criterion
        rows = self._rows(outputs if rule.output is None else {rule.output: np.asarray(outputs[rule.output])})
        labels = self._slice(start, rows, sample)
        try:
            with contained():
                value = float(function({name: _read_only(array) for name, array in outputs.items()}, labels))
        except Exception as error:  # whatever the user's function raises
            raise UsageError(
                f"--metric {rule.metric} failed on sample {sample}: {type(error).__name__}: {first_line(error)}."
            ) from error
        return _Answers(rows, value * rows if rows else 0.0)

    def _rows(self, outputs: Outputs) -> int:
        """The rows of a batch: the first dimension that outputs have in common."""
        sizes = {np.shape(array)[0] for array in outputs.values() if np.ndim(array)}
        if len(sizes) > 1:
            raise UsageError(
                f"--metric {self._criterion.metric}: outputs have {' or '.join(map(str, sorted(sizes)))} rows; "
                "name the one whose rows are the batch: --metric-output NAME."
            )
        return sizes.pop() if sizes else 1

    def _slice(self, start: int, rows: int, sample: int) -> np.ndarray | None:
        labels = self._criterion.labels
        if labels is None:
            return None
        if start + rows > len(labels):
            raise UsageError(
                f"--labels: {len(labels):,} labels, but the data have {start + rows:,} rows up to sample {sample}."
            )
        return _read_only(labels[start : start + rows])

    def finish(self) -> None:
        """Makes sure that every label was used, after all samples.

        Raises:
            UsageError: There are more labels than rows, so they belong to other data.
        """
        labels = self._criterion.labels
        if labels is not None and self._seen != len(labels):
            raise UsageError(f"--labels: {len(labels):,} labels, but the data have {self._seen:,} rows in all.")

    def results(self, outputs: Sequence[OutputEvidence] = ()) -> tuple[AccuracyResult, ...]:
        """The value of each runner, the reference first. A value that is not finite, or not there, is None."""
        return tuple(self._result(name, tally) for name, tally in self._tallies.items())

    def _result(self, name: str, tally: _Tally) -> AccuracyResult:
        rule = self._criterion
        value = tally.own / tally.rows if tally.rows and not tally.failure else math.nan
        difference = (tally.own - tally.reference) / tally.rows if math.isfinite(value) else math.nan
        measured = math.isfinite(value) and math.isfinite(difference)
        return AccuracyResult(
            runner=name,
            metric=rule.metric,
            value=value if math.isfinite(value) else None,
            difference=difference if measured else None,
            samples=tally.rows,
            disagreements=tally.disagreements if measured and rule.function is None else None,
        )

    def loss(self, candidate: str, tensor: str) -> MetricLoss | None:
        """What was measured of one output; None where the metric looks at another one.

        A function that was given no output measures all of them at once.
        """
        rule, tally = self._criterion, self._tallies[candidate]
        if rule.output not in (None, tensor):
            return None
        result = self._result(candidate, tally)
        return MetricLoss(
            metric=rule.metric,
            rows=tally.rows,
            value=None if result.difference is None else result.value,
            reference=tally.reference / tally.rows if tally.rows else math.nan,
            lost=tally.reference - tally.own,
            allowed=rule.drop,
            guessing=self._chance(),
            own=rule.function is not None,
        )

    def _chance(self) -> float | None:
        """How often somebody is right who always gives the most frequent answers; of a function, its value of zeros."""
        if not self._seen:
            return None
        if self._criterion.k == 0:
            return None if self._zeros is None else self._zeros / self._seen
        return float(np.sort(self._label_counts)[-self._criterion.k :].sum()) / self._seen

    def notices(self) -> Iterator[Notice]:
        """Runners that could not be measured."""
        return (not_measured(name, tally.failure) for name, tally in self._tallies.items() if tally.failure)


def decide(scores: np.ndarray, k: int) -> np.ndarray:
    """What a classifier decides: the ``k`` classes of the highest scores of each row, in ascending order.

    Args:
        scores: (rows, classes), more than ``k`` classes. Of equal scores the first counts as higher, as in ArgMax.
        k: Number of classes.

    Returns:
        (rows, k), int64; -1 in rows that hold NaN: nothing was decided, so no label is met there.
    """
    if is_float(scores.dtype) and scores.dtype.kind != "f":
        scores = scores.astype(np.float32)  # exact: bfloat16 and the formats of 8 bits and less
    if k == 1:
        chosen = scores.argmax(axis=1)[:, None].astype(np.int64)
    else:
        # Reversed twice, a stable ascending order is descending with the first of equals first.
        order = scores.shape[1] - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")
        chosen = np.sort(order[:, -k:], axis=1)
    if is_float(scores.dtype):
        chosen[np.isnan(scores).any(axis=1)] = -1
    return chosen


def _not_a_matrix(metric: str, what: object) -> UsageError:
    return UsageError(
        f"--metric {metric} takes a matrix of scores, rows x classes; output {what} is none. "
        "Name another with --metric-output, or measure with package.module:function."
    )


def _read_only(array: np.ndarray) -> np.ndarray:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view
