"""Which scaled integers of a layer make its error, each rounded alone, and what their scale leaves of the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .judgement import output_axis
from .shared_scale import SharedScale, levels_of, shared_scale

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.specs import Arrays
    from ..lockstep.plan import LayerPair
    from .expected_noise import Noise

NEXT = 0.25
"""Share of the greatest error from which on another tensor of the layer is looked at too."""

Place = Literal["operand", "weights", "result"]


@dataclass(frozen=True)
class QuantizedLayer:
    """What of a layer is rounded to scaled integers to most effect.

    Attributes:
        tensor: The operand, the weights or the result, by the reference's name.
        place: Which of these.
        relative: The error of the layer's output that its rounding alone explains, relative to the output.
        shared: What its scale leaves of the channels; None where each keeps its levels.
    """

    tensor: str
    place: Place
    relative: float
    shared: SharedScale | None


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
        found.append(QuantizedLayer(tensor, place, relative, _shared(noise, pair, values, tensor, place)))
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
    return shared_scale(tensor, values[tensor], grid.step, grid.levels)


def _output_axis(index: GraphIndex, pair: LayerPair, weight: str) -> int | None:
    """The axis of weights along which the output channels lie; None where that is not known."""
    readers = (index.nodes[p] for p in pair.reference.nodes if weight in list(index.nodes[p].input)[1:2])
    node = next(readers, None)
    return None if node is None else output_axis(node, len(index.initializers[weight].dims))
