"""The expected noise of layers that round inside: recurrent layers, at every step, and the bodies of If, Loop and Scan.

A probe (`noise_probe`) perturbs what a node reads and what it returns. A recurrent layer rounds its state at every step
and its gates besides, and the nodes of a body round as any others. So these layers are drawn as whole networks are
(`random_rounding`): each by itself, with noise in every step and body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import onnx

from ..cutting.slices import Slice, explode
from ..nodes import subgraphs
from ..operators import RECURRENT, operator
from ..specs import Arrays, TensorSpec
from .noise_probe import drawn
from .random_rounding import randomized
from .rounding_sides import Roundoff

if TYPE_CHECKING:
    from ..index import GraphIndex
    from ..model import Model


def rounds_within(index: GraphIndex, part: Slice) -> bool:
    """Whether a layer holds a recurrent operator or a body.

    A Loop that ends by what it computes counts only as a whole: draws of other lengths are no measure of its rounding.
    """
    nodes = (index.nodes[p] for p in part.nodes)
    return any(operator(node) in RECURRENT or any(_decided_outside(node, b) for b in subgraphs(node)) for node in nodes)


def _decided_outside(node: onnx.NodeProto, body: onnx.GraphProto) -> bool:
    """Whether how often a body runs is decided outside."""
    if operator(node) != "Loop":
        return True
    makers = {name: inner for inner in body.node for name in inner.output}
    name = body.output[0].name
    while name in makers and operator(makers[name]) == "Identity":
        name = makers[name].input[0]
    return name not in makers or operator(makers[name]) == "Constant"


def drawn_within(
    model: Model,
    part: tuple[int, Slice],
    specs: Mapping[str, TensorSpec],
    roundoff: Roundoff,
    feed: Arrays,
    number: int,
    run: Callable[[Model, Arrays], Arrays],
) -> tuple[Arrays, float]:
    """What one layer gives in one draw of all its roundings, and by how much these were enlarged.

    Args:
        model: The whole model.
        part: The layer's number and slice.
        specs: Types and shapes of the tensors that are fed, as measured.
        roundoff: What is rounded.
        feed: The values of the layer's inputs.
        number: Of the draw.
        run: Runs a model.

    Raises:
        LayerdiffError: The layer cannot be drawn or run.
    """
    random = randomized(explode(model, [part], specs), roundoff)
    return drawn(random.model, feed, number, run), random.gain
