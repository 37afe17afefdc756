"""What is decided about each output of each candidate, sample after sample; statistics are all that is kept."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.errors import RunnerError
from ...graph.specs import is_float
from ...runners.contract.device import DeviceArray
from ..runs.run import Fetch, Outputs
from ..statistics import device as ondevice
from ..statistics.statistics import Statistics
from .evidence import Coverage, OutputEvidence
from .term_sizes import Terms, terms
from .ties import Decider, count_ties, decider
from .tolerance import EXACT, Allowed, Depth, Tolerance, automatic, depths, user
from .transposition import transposition

if TYPE_CHECKING:
    from ...graph.formats import NumberFormat
    from ..comparison import Rules
    from ..sides import Side, Sides

DOUBTFUL = 4
"""Most samples of an output that are kept in mind as doubtful."""


class Judge:
    """Compares each candidate's outputs with the reference's as they come.

    Attributes:
        formats: Number formats in play for each candidate.
        warnings: What the user should know, whatever the verdicts.
    """

    def __init__(
        self,
        sides: Sides,
        formats: Mapping[str, tuple[NumberFormat, ...]],
        rules: Rules,
        narrow: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        """Takes the rules.

        Args:
            sides: Who is compared.
            formats: Number formats in play for each candidate.
            rules: The user's rules.
            narrow: Names of the nodes that a candidate, or the reference, is known to add up in FP16.
        """
        self.formats = dict(formats)
        self._narrow = dict(narrow or {})
        self._depths: dict[frozenset[str], Mapping[str, Depth]] = {}
        self.warnings: dict[str, None] = {}
        self._sides = sides
        self._rules = rules
        self._reference = _Reference()
        self._pairs: dict[str, dict[str, _Pair]] = {side.name: {} for side in sides.candidates}
        self._missing: dict[str, dict[str, None]] = {side.name: {} for side in sides.candidates}
        self._extra: dict[str, dict[str, None]] = {side.name: {} for side in sides.candidates}
        self._deciders: dict[str, Decider | None] = {}
        self._terms: dict[str, Terms | None] = {}

    def take(self, name: str, sample: int, outputs: Outputs, fetch: Fetch | None = None) -> None:
        """Takes in the outputs of one side for one sample; of each sample, the reference's come first.

        Args:
            fetch: With the reference's outputs, where it can give inner tensors too. Asked for only where outputs
                differ: for what decided integers, and for the terms that floats were made of.
        """
        if name == self._sides.reference.name:
            self._reference = _Reference(sample, dict(outputs), fetch)
            return
        reference = self._reference
        if reference.sample != sample:
            return  # the reference failed on this sample
        for tensor in reference.outputs:
            expected = reference.outputs[tensor]
            if tensor not in outputs:
                self._missing[name][tensor] = None
                continue
            pair = self._pairs[name].get(tensor)
            if pair is None:
                tolerance = self.tolerance(name, tensor, _dtype(expected))
                pair = _Pair(name, tensor, tolerance, self._rules.nan_equal, self.warnings)
                self._pairs[name][tensor] = pair
            new = pair.take(expected, outputs[tensor], sample, functools.partial(self._sizes, tensor))
            if new and pair.statistics_of_choices:
                ties, explained = self._ties(name, tensor, outputs[tensor])
                pair.ties += ties
                pair.explained += explained
        self._extra[name].update(dict.fromkeys(t for t in outputs if t not in reference.outputs))

    def _ties(self, name: str, tensor: str, found: np.ndarray | DeviceArray) -> tuple[int, int]:
        """How many of the elements that differ are ties, and how many more may be, by sums in FP16."""
        decider = self._decider(tensor)
        if decider is None:
            return 0, 0
        reference = self._reference
        values = {t: reference.outputs[t] for t in decider.tensors if t in reference.outputs}
        inner = [t for t in decider.tensors if t not in values]
        if inner:
            try:
                values.update(reference.inner(inner))
            except Exception as error:  # whatever the runtime raises
                text = f"{tensor} was decided by {decider}, which {self._sides.reference.name} does not show: {error}"
                self.warnings[f"{text.rstrip('.')}. Ties count as mismatches."] = None
                self._deciders[tensor] = None
                return 0, 0
        rules = {t: self.tolerance(name, t, _dtype(v)) for t, v in values.items()}
        arrays = {t: np.asarray(v) for t, v in values.items()}
        sides = np.asarray(reference.outputs[tensor]), np.asarray(found)
        ties, mismatches = count_ties(decider, arrays, *sides, rules)
        if not mismatches:
            return ties, 0
        sizes = {t: self._sizes(t, rules[t], v) for t, v in arrays.items() if rules[t].scaled}
        ties, mismatches = count_ties(decider, arrays, *sides, rules, sizes)
        if not mismatches or all(rule.sums == 1 for rule in rules.values()):
            return ties, 0
        more, _ = count_ties(decider, arrays, *sides, {t: rule.explained for t, rule in rules.items()}, sizes)
        return ties, more - ties

    def _decider(self, tensor: str) -> Decider | None:
        if tensor not in self._deciders:
            self._deciders[tensor] = decider(self._sides.reference.model.index, tensor)
        return self._deciders[tensor]

    def _sizes(self, tensor: str, tolerance: Tolerance, value: np.ndarray) -> np.ndarray | None:
        """The sizes of the terms that the reference made a tensor of, in the present sample; None: of its values."""
        reference, model = self._reference, self._sides.reference.model
        if tensor not in self._terms:
            self._terms[tensor] = None if model.opaque else terms(model.index, tensor)
        found = self._terms[tensor]
        if found is None:
            return None
        if tensor not in reference.behind:
            try:
                reference.behind[tensor] = reference.inner(found.tensors) if found.tensors else {}
            except Exception as error:  # whatever the runtime raises
                text = f"{tensor} was made of terms that {self._sides.reference.name} does not show: {error}"
                self.warnings[f"{text.rstrip('.')}. Where they are larger, its tolerance is too strict."] = None
                reference.behind[tensor] = {}
        values = {t: np.asarray(v) for t, v in reference.behind[tensor].items()}
        return found.sizes(value, values, tolerance.share)

    def like(self, side: Side) -> Judge:
        """A judge of one candidate by the rules of that of its name."""
        return Judge(replace(self._sides, candidates=(side,)), self.formats, self._rules, self._narrow)

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
        for side in self._sides.candidates:
            name = side.name
            done = min(run.get(name, 0), run.get(reference, 0))
            whole = Coverage(done, total)
            for tensor, pair in self._pairs[name].items():
                if tensor not in self._missing[name]:
                    found.append(pair.evidence(reference, whole))
            found += [OutputEvidence(name, t, reference, whole, absent="missing") for t in self._missing[name]]
            found += [OutputEvidence(name, t, reference, whole, absent="extra") for t in self._extra[name]]
        return tuple(found)

    def tolerance(self, candidate: str, tensor: str, dtype: np.dtype) -> Tolerance:
        """What this output is allowed. Integers, bools and strings are exact unless named by the user."""
        named = self._rules.tolerances.get(tensor)
        if named is not None and dtype.kind not in "OSUTb":
            return user(*named) or EXACT
        if not is_float(dtype):
            return EXACT
        given = user(self._rules.rtol, self._rules.atol)
        if given is not None:
            return given
        model = self._sides.reference.model
        if model.opaque:
            reason = f"nobody knows the network behind {model.label}, nor the error that its arithmetic explains"
            return Tolerance(0, 0, "auto", scaled=True, decidable=False, reason=reason)
        index = model.index
        narrow = self._narrow.get(candidate, frozenset())
        if narrow not in self._depths:
            self._depths[narrow] = depths(index, narrow=narrow)
        return automatic(index, tensor, self.formats[candidate], dtype, depths=self._depths[narrow])


@dataclass(frozen=True)
class _Reference:
    """The reference's outputs for the present sample."""

    sample: int = -1
    outputs: dict[str, np.ndarray | DeviceArray] = field(default_factory=dict)
    fetch: Fetch | None = None
    behind: dict[str, Outputs] = field(default_factory=dict)
    """Inner tensors that tensors were made of, by tensor."""

    def inner(self, names: Sequence[str]) -> Outputs:
        """Inner tensors.

        Raises:
            RunnerError: Nobody can give them; a runtime may raise anything else.
        """
        if self.fetch is None:
            raise RunnerError("it gives outputs alone")
        for name, value in self.outputs.items():
            self.outputs[name] = np.asarray(value)  # on a device it is overwritten when the session runs again
        return self.fetch(names)


class _Pair:
    """One output of one candidate."""

    def __init__(
        self, candidate: str, tensor: str, tolerance: Tolerance, nan_equal: bool, warnings: dict[str, None]
    ) -> None:
        self.candidate = candidate
        self.tensor = tensor
        self.tolerance = tolerance
        self.nan_equal = nan_equal
        self.warnings = warnings
        self.ties = 0
        self.explained = 0
        self.over: dict[int, float] = {}
        self.statistics_of_choices = False
        self.plain = Statistics(equal_nan=nan_equal)
        self.axes: tuple[int, ...] | None = None
        self.turned: Statistics | None = None
        self.clash: str | None = None
        self.smallest_atol = math.inf
        self.sizes: np.ndarray | None = None
        self.settled = False

    def take(
        self,
        reference: np.ndarray | DeviceArray,
        candidate: np.ndarray | DeviceArray,
        sample: int,
        sizes: Callable[[Tolerance, np.ndarray], np.ndarray | None],
    ) -> int:
        """Takes in one sample; returns how many elements mismatch in it.

        Args:
            reference, candidate: The tensor on both sides.
            sample: Number of the sample.
            sizes: Gives the sizes of the terms that the tensor was made of. Asked for where elements differ by more
                than their own size allows, until some differ by more than those allow either.
        """
        if ondevice.common(reference, candidate) is None:
            reference, candidate = np.asarray(reference), np.asarray(candidate)
        kinds = _kind(reference.dtype), _kind(candidate.dtype)
        if kinds[0] != kinds[1]:
            self.clash = self.clash or f"dtype {_name(candidate.dtype)} where {_name(reference.dtype)} is expected"
            return 0
        if reference.dtype != candidate.dtype and kinds[0] != "string":
            dtypes = f"{_name(candidate.dtype)}, the reference as {_name(reference.dtype)}"
            self.warnings[f"{self.candidate} gives {self.tensor!r} as {dtypes}; values were compared."] = None
        self.statistics_of_choices = kinds[0] in ("int", "bool")
        allowed = self._allowed(reference)
        found = Statistics(equal_nan=self.nan_equal).update(reference, candidate, allowed, sample)
        if allowed is not None and allowed.scale is not None and found.mismatched > found.broken:
            worst = found.max_abs_at
            self.settled = self.settled or (worst is not None and self.tolerance.beyond(allowed, worst, reference))
            if not self.settled:
                reference, candidate = np.asarray(reference), np.asarray(candidate)
                self.sizes = sizes(self.tolerance, reference)
            if self.sizes is not None and _fits(self.sizes.shape, reference.shape):
                allowed = self.tolerance.allowed(reference, self.sizes)
                found = Statistics(equal_nan=self.nan_equal).update(reference, candidate, allowed, sample)
            self.settled = self.settled or found.broken > 0 or (found.use or 0) > self.tolerance.sums
        if found.mismatched and self.tolerance.sums > 1:
            over = {**self.over, sample: found.use or 0.0}
            self.over = dict(sorted(over.items(), key=lambda item: -item[1])[:DOUBTFUL])
        if allowed is not None:
            self.smallest_atol = min(self.smallest_atol, allowed.smallest_atol)
        self.plain.merge(found)
        if self.plain.samples == 1 and self.plain.mismatched:
            self.axes = transposition(reference, candidate, allowed)
            self.turned = None if self.axes is None else Statistics(equal_nan=self.nan_equal)
        if self.turned is not None and self.axes is not None:
            reference, candidate = np.asarray(reference), np.asarray(candidate)
            fits = candidate.ndim == len(self.axes)
            self.turned.update(reference, np.transpose(candidate, self.axes) if fits else candidate, allowed, sample)
        return found.mismatched

    def _allowed(self, reference: np.ndarray | DeviceArray) -> Allowed | None:
        if not self.tolerance.decidable or self.tolerance.exact:
            return None
        return self.tolerance.allowed(reference)

    def evidence(self, reference: str, coverage: Coverage) -> OutputEvidence:
        """What is known of the pair."""
        return OutputEvidence(
            candidate=self.candidate,
            tensor=self.tensor,
            reference=reference,
            coverage=coverage,
            clash=self.clash,
            statistics=self.plain,
            axes=self.axes,
            turned=self.turned,
            tolerance=self.tolerance,
            smallest_atol=self.smallest_atol if math.isfinite(self.smallest_atol) else None,
            choices=self.statistics_of_choices,
            ties=self.ties,
            ties_by_fp16_sums=self.explained,
            worst_samples=tuple(self.over),
        )


def _fits(small: Sequence[int], large: Sequence[int]) -> bool:
    """Whether one shape broadcasts to the other."""
    return len(small) == len(large) and all(n in (1, m) for n, m in zip(small, large, strict=True))


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
