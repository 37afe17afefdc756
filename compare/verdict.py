"""What is decided about each output of each candidate, sample after sample; statistics are all that is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.specs import is_float
from .report.model import OutputResult, OutputVerdict, ToleranceUsed
from .statistics import Place, Statistics
from .tolerance import EXACT, Allowed, Tolerance, automatic, depths, user

if TYPE_CHECKING:
    from ..graph.formats import NumberFormat
    from .context import Settings
    from .parties import Lineup

Outputs = Mapping[str, "np.ndarray"]


class Judge:
    """Compares each candidate's outputs with the reference's as they come.

    Attributes:
        formats: Number formats in play for each candidate.
        warnings: What the user should know, whatever the verdicts.
    """

    def __init__(
        self, lineup: Lineup, formats: Mapping[str, tuple[NumberFormat, ...]], settings: Settings
    ) -> None:
        self.formats = dict(formats)
        self.warnings: list[str] = []
        self._lineup = lineup
        self._settings = settings
        self._reference: tuple[int, Outputs] = (-1, {})
        self._pairs: dict[str, dict[str, _Pair]] = {party.name: {} for party in lineup.candidates}
        self._missing: dict[str, dict[str, None]] = {party.name: {} for party in lineup.candidates}
        self._extra: dict[str, dict[str, None]] = {party.name: {} for party in lineup.candidates}

    def take(self, name: str, sample: int, outputs: Outputs) -> None:
        """Takes in the outputs of one party for one sample; of each sample, the reference's come first."""
        if name == self._lineup.reference.name:
            self._reference = (sample, outputs)
            return
        at, reference = self._reference
        if at != sample:
            return  # the reference failed on this sample
        for tensor, expected in reference.items():
            if tensor not in outputs:
                self._missing[name][tensor] = None
                continue
            pair = self._pairs[name].get(tensor)
            if pair is None:
                pair = self._pairs[name][tensor] = _Pair(self, name, tensor, expected)
            pair.take(expected, outputs[tensor], sample)
        self._extra[name].update(dict.fromkeys(t for t in outputs if t not in reference))

    def results(self, total: int, run: Mapping[str, int]) -> tuple[OutputResult, ...]:
        """The verdicts.

        Args:
            total: Number of samples that were asked for.
            run: Number of samples that each party finished, by name.
        """
        found: list[OutputResult] = []
        for party in self._lineup.candidates:
            name = party.name
            done = min(run.get(name, 0), run.get(self._lineup.reference.name, 0))
            for tensor, pair in self._pairs[name].items():
                if tensor not in self._missing[name]:
                    found.append(pair.result(done, total))
            for tensor in self._missing[name]:
                reason = f"{name} has no output of this name"
                found.append(OutputResult(name, tensor, "missing", reason))
            for tensor in self._extra[name]:
                reason = f"{self._lineup.reference.name} has no output of this name"
                found.append(OutputResult(name, tensor, "extra", reason))
        return tuple(found)

    def tolerance(self, candidate: str, tensor: str, dtype: np.dtype) -> Tolerance:
        """What this output is allowed. Integers, bools and strings are exact unless named by the user."""
        named = self._settings.tolerances.get(tensor)
        if named is not None and dtype.kind not in "OSUTb":
            return user(*named) or EXACT
        if not is_float(dtype):
            return EXACT
        given = user(self._settings.rtol, self._settings.atol)
        if given is not None:
            return given
        index = self._lineup.reference.model.index
        return automatic(index, tensor, self.formats[candidate], dtype, depths=self._depths)

    @cached_property
    def _depths(self) -> dict[str, int]:
        return depths(self._lineup.reference.model.index)

    @property
    def nan_equal(self) -> bool:
        """Whether NaN equals NaN."""
        return self._settings.nan_equal

    def warn(self, text: str) -> None:
        """Says something once."""
        if text not in self.warnings:
            self.warnings.append(text)


class _Pair:
    """One output of one candidate."""

    def __init__(self, judge: Judge, candidate: str, tensor: str, reference: np.ndarray) -> None:
        self.judge = judge
        self.candidate = candidate
        self.tensor = tensor
        self.tolerance = judge.tolerance(candidate, tensor, np.asarray(reference).dtype)
        self.plain = Statistics(equal_nan=judge.nan_equal)
        self.axes: tuple[int, ...] | None = None
        self.transposed: Statistics | None = None
        self.clash: str | None = None
        self.smallest_atol = math.inf

    def take(self, reference: np.ndarray, candidate: np.ndarray, sample: int) -> None:
        reference, candidate = np.asarray(reference), np.asarray(candidate)
        kinds = _kind(reference.dtype), _kind(candidate.dtype)
        if kinds[0] != kinds[1]:
            self.clash = self.clash or f"dtype {_name(candidate.dtype)} where {_name(reference.dtype)} is expected"
            return
        if reference.dtype != candidate.dtype and kinds[0] != "string":
            self.judge.warn(
                f"{self.candidate} gives {self.tensor!r} as {_name(candidate.dtype)}, the reference as "
                f"{_name(reference.dtype)}; values were compared."
            )
        allowed = self._allowed(reference)
        first = self.plain.samples == 0
        self.plain.update(reference, candidate, allowed, sample)
        if first and self.plain.mismatched:
            self._look_for_transposition(reference, candidate)
        if self.transposed is not None and self.axes is not None:
            turned = np.transpose(candidate, self.axes) if candidate.ndim == len(self.axes) else candidate
            self.transposed.update(reference, turned, allowed, sample)

    def _allowed(self, reference: np.ndarray) -> Allowed | None:
        if not self.tolerance.decidable or self.tolerance.exact:
            return None
        allowed = self.tolerance.allowed(reference)
        self.smallest_atol = min(self.smallest_atol, allowed.smallest_atol)
        return allowed

    def _look_for_transposition(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        from .layout import transposition

        self.axes = transposition(reference, candidate, self._allowed(reference))
        if self.axes is not None:
            self.transposed = Statistics(equal_nan=self.judge.nan_equal)

    def result(self, done: int, total: int) -> OutputResult:
        """The verdict after ``done`` of ``total`` samples."""
        turned = self.transposed is not None and self.transposed.agree
        statistics = self.transposed if turned and self.transposed is not None else self.plain
        verdict, reason = self._decide(statistics, turned, done, total)
        return OutputResult(
            candidate=self.candidate,
            tensor=self.tensor,
            verdict=verdict,
            reason=reason,
            transposed=self.axes if turned else None,
            tolerance=self._tolerance_used(),
            ties=0,
            metrics=None if self.clash else statistics.metrics(),
            worst_sample=statistics.worst_sample,
            use=statistics.use,
            values={} if self.clash else _values(statistics),
        )

    def _tolerance_used(self) -> ToleranceUsed | None:
        rule = self.tolerance
        if not rule.decidable:
            return None
        source = "user" if rule.source == "user" else "auto"
        if rule.scaled:
            return ToleranceUsed(rule.rtol, self.smallest_atol if math.isfinite(self.smallest_atol) else None, source)
        return ToleranceUsed(rule.rtol, rule.atol, source)

    def _decide(
        self, statistics: Statistics, turned: bool, done: int, total: int
    ) -> tuple[OutputVerdict, str | None]:
        if self.clash:
            return "fail", self.clash
        if turned:
            return "fail", f"transposed: agrees with the reference when its axes are taken in the order {_list(self.axes)}"
        if statistics.shape_mismatch:
            expected, got = statistics.shape_mismatch
            return "fail", f"shape {_list(got)} where {_list(expected)} is expected"
        if statistics.broken and not statistics.text:
            return "fail", _broken(statistics)
        if statistics.mismatched and self.tolerance.decidable:
            return "fail", self._mismatch(statistics)
        if statistics.mismatched:
            name = f"--tolerance {self.tensor}:RTOL,ATOL"
            return "undecided", f"{self.tolerance.reason}; say what is good enough with {name}"
        if done < total:
            return "undecided", f"agrees on {done} of {total} samples; the others were not run"
        return "pass", None

    def _mismatch(self, statistics: Statistics) -> str:
        share = f"{statistics.mismatched:,} of {statistics.count:,} elements"
        worst = statistics.worst
        if worst is None:
            return f"{share} differ"
        where = f"worst at {_list(worst.index)} of sample {worst.sample}: {_show(worst)}"
        if statistics.use and math.isfinite(statistics.use) and statistics.use > 0:
            limit = abs(worst.candidate - worst.reference) / statistics.use
            return f"{share} differ by more than allowed; {where}, allowed ±{limit:.3g}"
        return f"{share} differ; {where}" + (", exact expected" if self.tolerance.exact else "")


def _broken(statistics: Statistics) -> str:
    place = statistics.broken_at
    what = f"{statistics.broken:,} of {statistics.count:,} elements are NaN or infinite on one side"
    if statistics.nan[0] == statistics.nan[1] == statistics.broken:
        what = f"{statistics.broken:,} of {statistics.count:,} elements are NaN on both sides (--nan-equal lets them pass)"
    return what if place is None else f"{what}; first at {_list(place.index)} of sample {place.sample}: {_show(place)}"


def _show(place: Place) -> str:
    return f"{_value(place.reference)} expected, {_value(place.candidate)} found"


def _value(x: Any) -> str:
    return f"{x:.7g}" if isinstance(x, float) else repr(x)


def _list(items: Sequence[int] | None) -> str:
    return "[" + ", ".join(str(i) for i in items or ()) + "]"


def _values(statistics: Statistics) -> dict[str, Any]:
    """The elements behind the maxima, for the report."""
    places = {
        "max_abs": statistics.max_abs_at,
        "max_rel": statistics.max_rel_at,
        "worst": statistics.worst,
        "not_finite": statistics.broken_at,
    }
    found: dict[str, Any] = {
        key: {
            "value": place.value,
            "sample": place.sample,
            "index": place.index,
            "reference": place.reference,
            "candidate": place.candidate,
        }
        for key, place in places.items()
        if place is not None
    }
    if statistics.histogram:
        found["histogram"] = {str(key): statistics.histogram[key] for key in sorted(statistics.histogram)}
    return found


def _kind(dtype: np.dtype) -> str:
    """What sort of values a dtype has; those of one sort are compared by value."""
    if dtype.kind in "OSUT":
        return "string"
    if dtype.kind == "b":
        return "bool"
    if dtype.kind == "c":
        return "complex"
    return "float" if is_float(dtype) else "int"


def _name(dtype: np.dtype) -> str:
    return "string" if dtype.kind in "OSUT" else dtype.name
