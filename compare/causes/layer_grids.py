"""What the tensors of a layer are rounded to, where the candidate holds them as scaled integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.slices import backward
from ...graph.errors import ModelError
from ...graph.operators import CASTS, FLAT, MOVEMENT, QUANTIZERS, SELECTION, SHAPES, operator
from ...graph.quantized.quantizers import Grid, Quantizer, holder, quantizer
from ...graph.specs import Arrays, is_float
from .stored_scale import StoredScale

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.pairing.matching import Matching
    from ..lockstep.plan import LayerPair
    from ..sides import Side


WIDE = 8.0
"""Times what the data take from which on a calibrated range is too wide: three bits of eight are lost."""
LOST = 0.25
"""Relative error from which on steps leave too little of a layer's output for it to be right by chance: 12 dB."""


@dataclass(frozen=True)
class LayerQuantizers:
    """The quantizers of one layer.

    Attributes:
        operands: Tensor of the reference that the layer is given, or that a node inside makes -> what quantizes it.
        results: The same of the layer's outputs.
        weights: Weight of the reference -> the step that it is stored in, shaped to broadcast against it.
        others: Whether there are some, and all of tensors that the reference has not.
        stored: Tensor of ``operands`` or ``results`` -> what the file says of what rounds it, where it has one scale.
    """

    operands: Mapping[str, Quantizer] = field(default_factory=dict)
    results: Mapping[str, Quantizer] = field(default_factory=dict)
    weights: Arrays = field(default_factory=dict)
    others: bool = False
    stored: Mapping[str, StoredScale] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.operands or self.results or self.weights)

    @property
    def measures(self) -> bool:
        """Whether a step follows from each tensor that comes."""
        return any(q.scale is None for q in self.operands.values())


NONE = LayerQuantizers()


class LayerGrids:
    """What stands in the candidate's file, layer by layer, and what its runner calibrated.

    Args:
        reference, candidate: Who is compared.
        matching: What corresponds in their graphs; None where both run one file.
    """

    def __init__(self, reference: Side, candidate: Side, matching: Matching | None) -> None:
        self.index: GraphIndex = reference.model.index
        self._file: GraphIndex = candidate.model.index
        self.ranges = candidate.runner.activation_ranges or {}
        self.matching = matching
        self._kept = not candidate.runner.capabilities.pieces  # tensors inside are what its own program keeps
        self._found: dict[LayerPair, LayerQuantizers] = {}
        self._back: dict[str, str] = {}
        for name, other in (matching.tensors if matching is not None else {}).items():
            self._back.setdefault(other, name)

    def in_file(self, pair: LayerPair) -> LayerQuantizers:
        """The quantizers that the candidate's file has in a layer, where the reference's has none."""
        if pair not in self._found:
            self._found[pair] = self._of(pair)
        return self._found[pair]

    def calibrated(self, pair: LayerPair, values: Arrays) -> dict[str, Grid]:
        """What the candidate's runner rounds the operands of a layer to, as far as it calibrated them itself."""
        names = (n for n in pair.reference.inputs if self.ranges.get(n, 0) > 0 and is_float(values[n].dtype))
        return {name: Grid.symmetric(self.ranges[name]) for name in names}

    def of(self, pair: LayerPair, values: Arrays) -> dict[str, Grid]:
        """What the tensors of a layer are rounded to, by the file or by the runner: what it is given, what it gives,
        and what nodes inside make, where that has one scale."""
        quantizers = self.in_file(pair)
        found: dict[str, Grid] = {}
        for name, held in {**quantizers.results, **quantizers.operands}.items():
            if name in values:
                found[name] = held.grid(values[name])
            elif (grid := held.typical()) is not None:
                found[name] = grid
        return {**self.calibrated(pair, values), **found}

    def end_step(self, pair: LayerPair, name: str, values: Arrays) -> float:
        """The step by which values at an end of the range of an output may be off, as far as a file says it: that of
        what rounds it, or of what it moves; 0 where nothing says it."""
        found = self.in_file(pair)
        if name in found.results:
            return float(np.max(found.results[name].grid(values[name]).step))
        if any(operator(self.index.nodes[p]) not in MOVEMENT | SELECTION | SHAPES for p in pair.reference.nodes):
            return 0.0
        steps = [q.grid(values[n]).step for n, q in found.operands.items() if n in values]
        return max((float(np.max(step)) for step in steps), default=0.0)

    def wide(self, pair: LayerPair, values: Arrays) -> bool:
        """Whether a calibrated range of what a layer is given or gives is far wider than the data."""
        return any(n in values and excess_of(grid, values[n]) is not None for n, grid in self.of(pair, values).items())

    def crowded(self, pair: LayerPair, values: Arrays) -> bool:
        """Whether what a layer is given, or makes inside, all but loses its values to those at the end of its range."""
        return any(n in values and crowd_of(grid, values[n]) is not None for n, grid in self.of(pair, values).items())

    def _of(self, pair: LayerPair) -> LayerQuantizers:
        if self.matching is None:
            return NONE
        reads = {n for p in pair.reference.nodes for n in self.index.reads[p]}
        weights = {name: step for name, step in self.matching.steps.items() if name in reads}
        form = self.matching.float_form
        if form is None:
            return LayerQuantizers(weights=weights)
        try:
            part = backward(form.index, pair.candidate.outputs, set(pair.candidate.inputs))
        except ModelError:  # a tensor that the float form does not have
            return LayerQuantizers(weights=weights)
        given = {self.matching.tensors.get(n, n): n for n in pair.reference.inputs}
        inner = {o for p in pair.reference.nodes for o in self.index.nodes[p].output if o}
        operands: dict[str, Quantizer] = {}
        results: dict[str, Quantizer] = {}
        stored: dict[str, StoredScale] = {}
        inside = set(part.nodes)
        for position in part.nodes:
            found = quantizer(form.index, position)
            if found is None:
                continue
            names = _copies(form.index, found.tensor, inside)
            says = StoredScale.of(self._file, form, position, found)
            source = next((given[n] for n in names if n in given), None)
            if source is not None:
                if operands.setdefault(source, found) is found and says is not None:
                    stored.setdefault(source, says)
                continue
            ends = _ends(form.index, form.index.nodes[position].output[0], inside, pair.candidate.outputs)
            if ends:
                mine = [pair.reference.outputs[pair.candidate.outputs.index(n)] for n in ends]
                results.update(dict.fromkeys(mine, found))
                stored.update(dict.fromkeys(mine, says) if says is not None else {})
                continue
            made = next((self._back[n] for n in names if self._back.get(n) in inner), None)
            if made is not None and operands.setdefault(made, found) is found and says is not None:
                stored.setdefault(made, says)
        if self._kept:  # what such a side is given there, it rounds
            everywhere = set(range(len(form.index.nodes)))
            for name in pair.candidate.inputs:
                source = next((given[n] for n in _copies(form.index, name, everywhere) if n in given), None)
                if source is not None and (held := holder(form.index, name)) is not None:
                    operands.setdefault(source, held)
        some = any(operator(form.index.nodes[p]) in QUANTIZERS for p in part.nodes)
        return LayerQuantizers(operands, results, weights, some and not (operands or results or weights), stored)


def excess_of(grid: Grid, values: np.ndarray) -> float | None:
    """How many times what some values take, with zero, a calibrated range is; None where it is not far wider."""
    if not grid.calibrated or not values.size or not np.isfinite(values).all():
        return None
    taken = max(float(values.max()), 0.0) - min(float(values.min()), 0.0)
    excess = float(np.min(grid.high - grid.low)) / taken if taken else 0.0
    return excess if excess >= WIDE else None


def crowd_of(grid: Grid, values: np.ndarray) -> np.ndarray | None:
    """The values beside those at an end of a range, where they are most of them and differ by less than a step: all
    become the same. A mask of -1e9 leaves the scores beside it so. None of others."""
    if grid.step.size != 1 or not values.size or not np.isfinite(values).all():
        return None
    step, low, high = (float(v.reshape(-1)[0]) for v in (grid.step, grid.low, grid.high))
    least, greatest = float(values.min()), float(values.max())
    if not 0 < step < greatest - least:
        return None
    for inner in (values > max(low, least) + step / 2, values < min(high, greatest) - step / 2):
        rest = values[inner]
        if 2 * rest.size >= values.size and 0 < float(rest.max()) - float(rest.min()) < step:
            return rest
    return None


def _copies(index: GraphIndex, name: str, inside: set[int]) -> list[str]:
    """A tensor and those that it is a copy of, up to rounding, within a slice."""
    found = [name]
    while (position := index.producer.get(found[-1], -1)) in inside:
        node = index.nodes[position]
        if operator(node) not in QUANTIZERS | CASTS | FLAT:
            break
        found.append(node.input[0])
    return found


def _ends(index: GraphIndex, name: str, inside: set[int], outputs: tuple[str, ...]) -> list[str]:
    """The outputs of a slice that are a tensor moved, but not computed with."""
    waiting, found, seen = [name], [], set()
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        if here in outputs:
            found.append(here)
        for position in index.consumers.get(here, ()):
            node = index.nodes[position]
            if position in inside and operator(node) in QUANTIZERS | CASTS | MOVEMENT | SELECTION:
                waiting.extend(o for o in node.output if o)
    return found
