"""What is known about each output of each candidate, sample after sample.

Statistics are kept of all of them; arrays only of those that differ by more than their own rounding explains,
since what rounding explains is found out afterwards (`expectation`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.specs import is_float
from ...runners.contract.device import DeviceArray
from ..notices import other_dtype
from ..runs.spill import Store
from ..statistics import device as ondevice
from ..statistics.statistics import Statistics
from .evidence import Coverage, OutputEvidence
from .formats_in_play import calibrated, undecidable, undeclared
from .lookalike import Lookalikes, exchanged
from .tolerance import EXACT, Tolerance, finer, last_place, user
from .transposition import transposition

if TYPE_CHECKING:
    from ..comparison import Rules
    from ..report.model import Notice, OutputVerdict
    from ..sides import Side, Sides

Outputs = Mapping[str, "np.ndarray | DeviceArray"]

KEPT = 1 << 29
"""Bytes of outputs in doubt that stay in memory; the rest goes to disk."""


class Judge:
    """Compares each candidate's outputs with the reference's as they come.

    Attributes:
        notices: What the user should know, whatever the verdicts.
    """

    def __init__(self, sides: Sides, rules: Rules) -> None:
        self.notices: dict[Notice, None] = {}
        self._sides = sides
        self._rules = rules
        self._reference = _Reference()
        self._store = Store(KEPT)
        self._candidates = {side.name: side for side in sides.candidates}
        self._pairs: dict[str, dict[str, _Pair]] = {side.name: {} for side in sides.candidates}
        self._lookalikes = {side.name: Lookalikes() for side in sides.candidates}
        self._missing: dict[str, dict[str, None]] = {side.name: {} for side in sides.candidates}
        self._extra: dict[str, dict[str, None]] = {side.name: {} for side in sides.candidates}

    def take(self, name: str, sample: int, outputs: Outputs) -> None:
        """Takes in the outputs of one side for one sample; of each sample, the reference's come first."""
        if name == self._sides.reference.name:
            self._reference = _Reference(sample, dict(outputs))
            return
        reference = self._reference
        if reference.sample != sample:
            return  # the reference failed on this sample
        suspects = [t for t in outputs if t not in reference.outputs]
        self._extra[name].update(dict.fromkeys(suspects))
        for tensor, expected in reference.outputs.items():
            if tensor not in outputs:
                self._missing[name][tensor] = None
                continue
            pair = self._pairs[name].get(tensor)
            if pair is None:
                pair = self._pairs[name][tensor] = self._pair(name, tensor, _dtype(expected))
            if pair.take(expected, outputs[tensor], sample):
                # on a device, arrays are overwritten when their session runs again
                if not self._store.has(self._sides.reference.name, sample, tensor):
                    self._store.put(self._sides.reference.name, sample, tensor, np.asarray(expected))
                self._store.put(name, sample, tensor, np.asarray(outputs[tensor]))
                pair.doubts.append(sample)
            if pair.off:
                suspects.append(tensor)
        self._lookalikes[name].take(suspects, outputs, reference.outputs)

    def _pair(self, name: str, tensor: str, dtype: np.dtype) -> _Pair:
        tolerance = self.tolerance(tensor, dtype)
        sides = self._sides.reference, self._candidates[name]
        why = "" if tolerance is not None else undecidable(*sides, tensor, dtype)
        scaled = tolerance is None and calibrated(*sides, dtype)
        return _Pair(sides, tensor, tolerance, why, scaled, self._rules.nan_equal, self.notices)

    def tolerance(self, tensor: str, dtype: np.dtype) -> Tolerance | None:
        """What the user allows this output; None: nothing is said about it.

        Strings and booleans have no tolerance. Integers have one only if the user names them.
        """
        named = self._rules.tolerances.get(tensor)
        if named is not None and dtype.kind not in "OSUTb":
            return user(*named)
        return user(self._rules.rtol, self._rules.atol) if is_float(dtype) or dtype.kind == "c" else None

    def kept(self, candidate: str, tensor: str, sample: int) -> tuple[np.ndarray, np.ndarray]:
        """The reference's and a candidate's output of a sample that is in doubt."""
        reference = self._sides.reference.name
        return self._store.get(reference, sample, tensor), self._store.get(candidate, sample, tensor)

    def devices(self) -> dict[str, str]:
        """Where statistics of each candidate were computed, and by what, if not by NumPy."""
        found = {
            name: next((p.plain.device for p in pairs.values() if p.plain.device), "")
            for name, pairs in self._pairs.items()
        }
        return {name: device for name, device in found.items() if device}

    def evidence(self, total: int, run: Mapping[str, int]) -> tuple[OutputEvidence, ...]:
        """What is known of each output of each candidate.

        Args:
            total: Number of samples that were asked for.
            run: Number of samples that each side finished, by name.
        """
        found: list[OutputEvidence] = []
        reference = self._sides.reference.name
        for name in self._candidates:
            done = min(run.get(name, 0), run.get(reference, 0))
            whole = Coverage(done, total)
            held, apart = self._lookalikes[name].held, self._lookalikes[name].apart
            round_about = exchanged(held)
            renamed = {held[t]: t for t in self._extra[name] if held.get(t) in self._missing[name]}
            for tensor, pair in self._pairs[name].items():
                if tensor not in self._missing[name]:
                    seen = pair.evidence(reference, whole)
                    there = held.get(tensor)
                    far = apart.get(tensor, 0.0)
                    found.append(replace(seen, holds=there, apart=far, exchanged=tensor in round_about))
            absent: tuple[tuple[OutputVerdict, Iterable[str], Mapping[str, str]], ...] = (
                ("missing", self._missing[name], renamed),
                ("extra", self._extra[name], held),
            )
            for kind, tensors, holds in absent:
                for t in tensors:
                    far = next((apart[n] for n in (t, holds.get(t)) if n in apart), 0.0)
                    found.append(OutputEvidence(name, t, reference, whole, kind, holds.get(t), far))
        return tuple(found)


@dataclass(frozen=True)
class _Reference:
    """The reference's outputs for the present sample."""

    sample: int = -1
    outputs: dict[str, np.ndarray | DeviceArray] = field(default_factory=dict)


class _Pair:
    """One output of one candidate."""

    def __init__(
        self,
        sides: tuple[Side, Side],
        tensor: str,
        tolerance: Tolerance | None,
        undecidable: str,
        calibrated: bool,
        nan_equal: bool,
        notices: dict[Notice, None],
    ) -> None:
        self.sides = sides
        self.tensor = tensor
        self.tolerance = tolerance
        self.undecidable = undecidable
        self.calibrated = calibrated
        self.nan_equal = nan_equal
        self.notices = notices
        self.plain = Statistics(equal_nan=nan_equal)
        self.relative = 0.0
        self.axes: tuple[int, ...] | None = None
        self.turned: Statistics | None = None
        self.clash: str | None = None
        self.doubts: list[int] = []

    def take(self, reference: np.ndarray | DeviceArray, candidate: np.ndarray | DeviceArray, sample: int) -> bool:
        """Takes in one sample; returns whether it has to be kept, to find out what rounding explains."""
        if ondevice.common(reference, candidate) is None:
            reference, candidate = np.asarray(reference), np.asarray(candidate)
        kinds = _kind(reference.dtype), _kind(candidate.dtype)
        if kinds[0] != kinds[1]:
            self.clash = self.clash or f"dtype {_name(candidate.dtype)} where {_name(reference.dtype)} is expected"
            return False
        if reference.dtype != candidate.dtype and kinds[0] != "string":
            self.notices[self._other_dtype(reference.dtype, candidate.dtype)] = None
        allowed = self.tolerance
        if allowed is None:
            own = finer(reference.dtype, candidate.dtype)
            allowed = last_place(own) if kinds[0] in ("float", "complex") else EXACT
        found = Statistics(equal_nan=self.nan_equal).update(reference, candidate, allowed, sample)
        self.plain.merge(found)
        relative = found.metrics().get("rel_l2") if kinds[0] in ("float", "complex") else 0.0
        self.relative = max(self.relative, math.inf if relative is None else float(relative))
        if self.plain.samples == 1 and self.plain.mismatched:
            self.axes = transposition(reference, candidate, allowed)
            self.turned = None if self.axes is None else Statistics(equal_nan=self.nan_equal)
        if self.turned is not None and self.axes is not None:
            reference, candidate = np.asarray(reference), np.asarray(candidate)
            fits = candidate.ndim == len(self.axes)
            self.turned.update(reference, np.transpose(candidate, self.axes) if fits else candidate, allowed, sample)
        doubtful = bool(found.mismatched) and self.tolerance is None and not self.undecidable
        return doubtful and not found.not_finite

    def _other_dtype(self, expected: np.dtype, given: np.dtype) -> Notice:
        sides = ((self.sides[0], expected), (self.sides[1], given))
        found = [(s.name, str(f), str(s.runner.arithmetic)) for s, d in sides if (f := undeclared(s, self.tensor, d))]
        return other_dtype(self.sides[1].name, self.tensor, _name(given), _name(expected), *found[:1])

    @property
    def off(self) -> bool:
        """Whether anything differs by more than its own rounding, or the user's tolerance, explains."""
        return bool(self.clash or self.plain.mismatched or self.plain.shape_mismatch)

    def evidence(self, reference: str, coverage: Coverage) -> OutputEvidence:
        """What is known of the pair."""
        return OutputEvidence(
            candidate=self.sides[1].name,
            tensor=self.tensor,
            reference=reference,
            coverage=coverage,
            clash=self.clash,
            statistics=self.plain,
            relative=self.relative,
            axes=self.axes,
            turned=self.turned,
            tolerance=self.tolerance,
            doubts=tuple(self.doubts),
            undecidable=self.undecidable,
            calibrated=self.calibrated,
        )


def _kind(dtype: np.dtype) -> str:
    """What sort of values a dtype has; those of one sort are compared by value."""
    if dtype.kind in "OSUT":
        return "string"
    if dtype.kind == "b":
        return "bool"
    if dtype.kind == "c":
        return "complex"
    return "float" if is_float(dtype) else "int"


def _dtype(x: Any) -> np.dtype:
    """The dtype of an array, wherever it is."""
    return x.dtype if isinstance(x, DeviceArray) else np.asarray(x).dtype


def _name(dtype: np.dtype) -> str:
    return "string" if dtype.kind in "OSUT" else dtype.name
