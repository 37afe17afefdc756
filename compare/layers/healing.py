"""Is nothing left of a layer's error some layers on? Then it is another tensor of the same name, or does not matter."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from ...graph.formats import FP32, NumberFormat
from ...graph.operators import QUANTIZERS, operator
from ...graph.rounding.depth import depths
from ...graph.specs import is_float
from .observation import ANOTHER, relative_error

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..report.model import LayerVerdict
    from ..statistics.statistics import Statistics
    from .observation import LayerObservation
    from .turning import Axes

HEALED = 0.1
"""A layer whose error shrinks to this share of it right behind the layer has healed."""
LOUD = 100.0
"""Times the size of values from which on others beside them hide an error."""
QUIET = 4.0
"""Roundings, of one for each node on the way, up to which a cumulative error is that of rounding alone."""
GROWN = 3.0
"""Times the local error from which on the cumulative one was made before."""
INTEGER_ROUNDOFF = 1e-2
"""What stands for the unit roundoff of INT8."""
LEAST = 1e-5
"""Relative error below which layers that are rewritten are not told apart."""
TURNED = 0.06
"""Relative error to within which values are turned where products of integers are added to them: some hundredths."""


class Healing:
    """Tells what heals from what a candidate's own run showed of all layers.

    Args:
        layers: What was seen of them, in the order of the graph.
        index: The reference's graph.
        fmt: The coarsest format that rounding is expected in.
        same: Whether both sides run one file, where a name is always the same value.
        failed: Outputs of the whole model that disagree: their error is not healed.
        agreed: Outputs of the whole model whose error rounding explains.
        quantized: Whether the candidate computes with scaled integers.
    """

    def __init__(
        self,
        layers: Sequence[LayerObservation],
        index: GraphIndex,
        fmt: NumberFormat,
        *,
        same: bool,
        failed: Collection[str] = (),
        agreed: Collection[str] = (),
        quantized: bool = False,
    ) -> None:
        self.layers = {s.number: s for s in layers}
        self.maker = {n: s.number for s in layers for n in s.pair.reference.outputs}
        self.outputs = tuple(index.outputs)
        self._index = index
        self._same = same
        self._failed = frozenset(failed)
        self.agreed = frozenset(agreed)
        self._u = INTEGER_ROUNDOFF if fmt.is_integer else fmt.u
        self.quantized = quantized
        self._coarse = self._u > FP32.u or any(operator(node) in QUANTIZERS for node in index.nodes)
        self._depth = depths(index)
        self._readers: dict[int, list[int]] = {}
        for s in layers:
            for name in s.pair.reference.inputs:
                if name in self.maker:
                    self._readers.setdefault(self.maker[name], []).append(s.number)
        self._touched = self.behind(s.number for s in layers if s.exceeds_noise)

    def verdict(self, s: LayerObservation) -> LayerVerdict | None:
        """Whether a layer that the candidate cannot run, or that exceeds its noise, is a culprit or has healed; None of
        one of which neither is true. One whose noise is not known may have healed, too."""
        if s.refused is not None:
            return "healed" if not self._same and self._healed(s) else "culprit"
        if s.exceeds_noise and not s.inside.clean:
            return "healed" if not s.comes_and_goes and self._healed(s) else "culprit"
        return "healed" if self._is_another(s) and self._healed(s) else None

    def _is_another(self, s: LayerObservation) -> bool:
        """Whether the error of a layer whose noise is not known is more than rounding."""
        if self._same or s.judgement is None or s.judgement.known:
            return False
        return s.local_error > (ANOTHER if self._coarse else self.tolerance(s.pair.reference.outputs[0]))

    def culprits(self, numbers: Iterable[int]) -> list[LayerObservation]:
        """Those of some layers that are culprits."""
        return [self.layers[number] for number in numbers if self.verdict(self.layers[number]) == "culprit"]

    def leans(self, s: LayerObservation) -> bool:
        """Whether a layer has healed only if what is off behind it has come from other faults: without these, it may
        turn out not to have."""
        return self.verdict(s) == "healed" and not self._healed(s, alone=True)

    def reading(self, s: LayerObservation) -> list[LayerObservation]:
        """The layers that read what a layer makes."""
        return [self.layers[number] for number in self._readers.get(s.number, [])]

    def makers(self, s: LayerObservation) -> list[LayerObservation]:
        """The layers that make what a layer reads."""
        numbers = {self.maker[n] for n in s.pair.reference.inputs if n in self.maker}
        return [self.layers[number] for number in sorted(numbers)]

    def behind(self, numbers: Iterable[int]) -> set[int]:
        """Some layers, and all behind them."""
        found = set(numbers)
        for s in self.layers.values():
            if any(self.maker.get(n) in found for n in s.pair.reference.inputs):
                found.add(s.number)
        return found

    def quiet(self, s: LayerObservation) -> bool:
        """Whether the cumulative error of a layer is one of rounding alone. No integer is rounded."""
        if self.agreed.issuperset(s.pair.reference.outputs):
            return True
        if not any(self.rounds(name) for name in s.pair.reference.outputs):
            return not s.cumulative_error
        return s.cumulative_error <= self._rounding(s.pair.reference.outputs[0])

    def near(self, s: LayerObservation) -> bool:
        """Whether the cumulative error of a layer is one of rounding alone, to integers if the candidate has some."""
        if not self.quantized or self.quiet(s):
            return self.quiet(s)
        return s.cumulative_error <= self._rounding(s.pair.reference.outputs[0], INTEGER_ROUNDOFF)

    def turns(self, s: LayerObservation) -> bool:
        """Whether all that a layer makes is turned, to within rounding to integers where the candidate has some."""
        return all(self.turned(name, TURNED if self.quantized else None) for name in s.pair.reference.outputs)

    def multiple(self, s: LayerObservation) -> bool:
        """Whether a layer makes a multiple of the reference's values, of its first output."""
        seen = s.cumulative.get(s.pair.reference.outputs[0])
        cosine = None if seen is None else seen.metrics()["cosine"]
        return cosine is not None and 1 - cosine**2 <= self._rounding(s.pair.reference.outputs[0]) ** 2

    def carried(self, s: LayerObservation) -> bool | None:
        """Whether a layer makes the reference's values turned, or each channel with a factor of its own; None where
        that is not known, since they are not far off."""
        if not all(name in s.scaling for name in s.pair.reference.outputs):
            return None
        return all(
            s.scaling[name] <= 2 * self._rounding(name) or self.turned(name, TURNED if self.quantized else None)
            for name in s.pair.reference.outputs
        )

    def rounding(self, tensor: str, statistics: Statistics) -> bool:
        """Whether the error of a tensor is one that rounding alone makes on the way to it."""
        return relative_error(statistics) <= self._rounding(tensor)

    def tolerance(self, tensor: str) -> float:
        """Relative error that rounding may make of a tensor in a layer that is given others in the same terms."""
        return max(LEAST, self._rounding(tensor))

    def turned(self, tensor: str, error: float | None = None, among: Collection[Axes] | None = None) -> bool:
        """Whether a tensor is far from the reference's, but the same in another order, or turned: of one length, and
        with the same products of its rows; to within rounding, or a relative error. ``among``: axes; any, else."""
        s = self.layers[self.maker[tensor]] if tensor in self.maker else None
        seen = None if s is None else s.cumulative.get(tensor)
        if seen is None or not ANOTHER < relative_error(seen) < math.inf:
            return False
        rounding = self._rounding(tensor) if error is None else error
        alike = abs(math.sqrt(seen.sum_cc / seen.sum_rr) - 1) <= rounding
        how = None if s is None else s.turning.get(tensor)
        return alike and how is not None and how.along(among) <= 2 * rounding

    def _rounding(self, tensor: str, u: float | None = None) -> float:
        return QUIET * (self._u if u is None else u) * math.sqrt(max(1, self._depth.get(tensor, 1)))

    def rounds(self, name: str) -> bool:
        """Whether a tensor holds numbers that are rounded."""
        spec = self._index.specs.get(name)
        return spec is None or is_float(spec.dtype)

    def _gone(self, s: LayerObservation, error: float, alone: bool, way: Collection[int] = ()) -> bool:
        """Whether nothing of an error is left at a layer: what is off there has come from elsewhere than the layers on
        the ``way``, from a fault before them. ``alone``: nothing may be off there."""
        if not s.cumulative or not s.cumulative_error < HEALED * error:
            return False
        if alone or self.quiet(s):
            return self.quiet(s)
        # of another tensor, an error may be many times its size; and the steps of integers are brought everywhere
        little = s.cumulative_error < HEALED * min(error, 1.0) and self._u < INTEGER_ROUNDOFF
        return little and s.cumulative_error <= GROWN * self._brought(s, way)

    def _brought(self, s: LayerObservation, way: Collection[int]) -> float:
        """The greatest cumulative error of what a layer, and those on the way to it, read of layers before all of
        these and behind another one that exceeds its noise: no other error is sure to come from elsewhere. Of floats:
        integers of another scale are the error of their quantizer."""
        first = min((s.number, *way))
        layers = [s, *(self.layers[number] for number in way)]
        read = (n for layer in layers for n in layer.pair.reference.inputs if self.rounds(n))
        makers = {self.maker.get(n, first) for n in read}
        return max((self.layers[m].cumulative_error for m in makers & self._touched if m < first), default=0.0)

    def hides(self, layer: LayerObservation, guilty: LayerObservation) -> bool:
        """Whether values of another size (a mask) are what makes an error look gone at a layer, which is as large as it
        was in numbers. Of values that cannot be compared, since they have another shape or the candidate takes none of
        the reference's, all is off: the error is as large as what they are made of."""
        values, error = _values(layer.cumulative.values()), _error(layer.cumulative.values())
        before, made = _values(guilty.local.values()), _error(guilty.local.values())
        if not made:
            before = made = max((_values(m.cumulative.values()) for m in self.makers(guilty)), default=0.0)
        return values > LOUD * before and error > made / LOUD

    def _healed(self, s: LayerObservation, alone: bool = False) -> bool:
        """Whether nothing of a layer's error is left right behind it. Between two graphs that may be some layers on:
        tensors of one name are others, or what differs does not matter, until both graphs come to the same values.

        Beside a mask of -1e9 an error looks gone that is not: it has to be behind such a layer, too.

        Args:
            s: The layer.
            alone: Whether no error may be left that other faults can have brought.
        """
        if not self._failed.isdisjoint(s.blamed_outputs):
            return False
        error = s.judgement.relative if s.judgement is not None else math.inf
        if self._gone(s, error, alone):
            return True
        # a small error that coarse rounding hides is not gone
        elsewhere = not self._same and (error > ANOTHER or not self._coarse)
        outputs = set(self._index.outputs)
        waiting, seen = [(s, False)], {s.number}
        while waiting:
            here, hidden = waiting.pop()
            readers = self._readers.get(here.number, [])
            if not hidden and (not readers or not outputs.isdisjoint(here.pair.reference.outputs)):
                return False
            for layer in (self.layers[number] for number in readers if number not in seen):
                gone = self._gone(layer, error, alone, seen)
                if here is not s and error <= ANOTHER:  # what others bring says little of one as small as theirs
                    gone = gone and self.quiet(layer)
                if gone and not self.hides(layer, s):
                    continue
                if not gone and not elsewhere:
                    return False
                seen.add(layer.number)
                waiting.append((layer, gone))
        return True


def _values(statistics: Iterable[Statistics]) -> float:
    """The root mean square of the reference's values; the greatest over some tensors."""
    return max((math.sqrt(one.sum_rr / one.finite) for one in statistics if one.finite), default=0.0)


def _error(statistics: Iterable[Statistics]) -> float:
    """The root mean square of the error; the greatest over some tensors whose values can be compared."""
    return max((one.metrics()["rmse"] or 0.0 for one in statistics), default=0.0)
