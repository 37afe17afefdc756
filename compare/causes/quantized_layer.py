"""Which scaled integers of a layer make its error, each rounded alone, and what their scale leaves of the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ...graph.operators import QUANTIZED, STRETCHES, operator
from ...graph.pairing.changes import OperatorChange
from .judgement import output_axis
from .shared_scale import SharedScale, levels_of, shared_scale

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx

    from ...graph.index import GraphIndex
    from ...graph.specs import Arrays
    from ..lockstep.plan import LayerPair
    from .expected_noise import Noise
    from .layer_grids import LayerQuantizers

NEXT = 0.25
"""Share of the greatest error from which on another tensor of the layer is looked at too."""

LOST = 0.5
"""Share of the channels of tensors in one that have to be zero throughout for a part of it to be lost."""

STEPS = 0.02
"""Relative error up to which operands of 8 bits explain what a product is off by: about 0.01 of normal values each."""

UNUSED = 2.0
"""Times what a tensor takes from which on a range is not set by its greatest values."""

Place = Literal["operand", "weights", "result"]


@dataclass(frozen=True)
class QuantizedLayer:
    """What of a layer is rounded to scaled integers to most effect.

    Attributes:
        tensor: The operand, the weights or the result, by the reference's name.
        place: Which of these.
        relative: The error of the layer's output that its rounding alone explains, relative to the output.
        shared: What its scale leaves of the channels; None where each keeps its levels.
        joins: Of a result: the Concat that puts it together, by its position in the reference's graph.
    """

    tensor: str
    place: Place
    relative: float
    shared: SharedScale | None
    joins: int | None = None

    @property
    def part_lost(self) -> bool:
        """Whether the one scale of tensors that were put together leaves nothing of most of their channels."""
        shared = self.shared
        return self.joins is not None and shared is not None and shared.none >= LOST * shared.channels


def replaced(quantizers: LayerQuantizers, changes: Sequence[object], reference: Iterable[onnx.NodeProto]) -> bool:
    """Whether other operators compute a layer, of scaled integers whose steps are those of tensors that the reference
    has not.

    Args:
        quantizers: Those of the layer.
        changes: In what its nodes differ.
        reference: The reference's nodes; where it has no scaled integers there, operators need not be told to differ.
    """
    if any(isinstance(change, OperatorChange) for change in changes):
        return quantizers.others
    return quantizers.others and not changes and not any(operator(node) in QUANTIZED for node in reference)


def look_at(noise: Noise, pair: LayerPair, values: Arrays) -> QuantizedLayer | None:
    """The quantized tensor that matters most in a layer; None where nothing of it is quantized.

    Args:
        noise: What rounding is expected to do.
        pair: The layer.
        values: The reference's tensors on one sample.
    """
    roundings = noise.roundings
    if not roundings.of(pair).steps:
        return None
    alone = noise.each_step(pair, values)
    if not alone:
        return None
    found = []
    for tensor, relative in alone.items():
        if relative < NEXT * max(alone.values()):
            continue
        place: Place = "result" if tensor in pair.reference.outputs else "operand"
        place = "weights" if tensor in noise.index.initializers else place
        shared = _shared(noise, pair, values, tensor, place)
        joins = _joins(noise.index, tensor) if place == "result" else None
        found.append(QuantizedLayer(tensor, place, relative, shared, joins))
    # what is lost in small channels hardly shows in the error of all
    return max(found, key=lambda one: (one.shared is not None, one.relative))


def _shared(noise: Noise, pair: LayerPair, values: Arrays, tensor: str, place: Place) -> SharedScale | None:
    grids = noise.roundings.grids
    if place == "weights":
        weight, step = noise.index.weight(tensor), grids.in_file(pair).weights.get(tensor)
        if weight is None or step is None:
            return None
        axis = _output_axis(noise.index, pair, tensor)
        return shared_scale(tensor, weight, step, levels_of(weight, step), weights=True, output_axis=axis)
    if tensor not in values:
        return None
    grid = grids.of(pair, values).get(tensor)
    if grid is None:
        return None
    stored = grids.in_file(pair).stored.get(tensor)
    if stored is not None and stored.times(float(values[tensor].min()), float(values[tensor].max())) >= UNUSED:
        return None  # no channel sets such a range
    return shared_scale(tensor, values[tensor], grid.step, grid.levels)


def _joins(index: GraphIndex, tensor: str) -> int | None:
    """The Concat that makes a tensor, which is then at most moved."""
    position = index.producer.get(index.moved_from(tensor, STRETCHES))
    if position is None or operator(index.nodes[position]) != "Concat":
        return None
    made = [name for name in index.nodes[position].input if index.constant(name) is None]
    return position if len(made) > 1 else None


def _output_axis(index: GraphIndex, pair: LayerPair, weight: str) -> int | None:
    """The axis of weights along which the output channels lie; None where that is not known."""
    readers = (index.nodes[p] for p in pair.reference.nodes if weight in list(index.nodes[p].input)[1:2])
    node = next(readers, None)
    return None if node is None else output_axis(node, len(index.initializers[weight].dims))
