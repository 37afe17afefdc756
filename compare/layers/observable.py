"""Whose layers can be looked at: what a runtime cannot do is said, and costs no verdict."""

from __future__ import annotations

import dataclasses

from ...runners.onnxrt.runner import OnnxrtRunner
from ..outputs.formats_in_play import quantizes_more
from ..report.model import Notice
from ..sides import Side, Sides
from .texts import layers_not_seen, layers_stood_in_for, layers_swapped, layers_turned_round


def observable(sides: Sides) -> tuple[list[Sides], list[Notice]]:
    """The pairs that can be walked: a side whose layers can be run alone, beside one that shows its tensors.

    A reference that neither opens pieces nor gives inner tensors is stood in for by ONNX Runtime, on the same model. A
    candidate that shows inner tensors, but runs no parts (recorded, or fed otherwise), takes the reference's place:
    each layer of the reference is fed what the candidate had there, which shows the same local error. So does one in
    floating point beside a quantized reference.

    Returns:
        The pairs, each of a reference and one candidate, and what is left out or stood in for.
    """
    pairs: list[Sides] = []
    notices: list[Notice] = []
    reference = sides.reference
    shown = _shows(reference)
    for side in sides.candidates:
        if _first_in_floats(reference, side):
            pairs.append(Sides(side, (reference,)))
            notices.append(layers_turned_round(side, reference))
            continue
        if not side.runner.capabilities.runs_parts:
            swapped = reference.runner.capabilities.pieces and _shows(side)
            if swapped:
                pairs.append(Sides(side, (reference,)))
            notices.append(layers_swapped(side.name, reference.name) if swapped else layers_not_seen(side.name))
            continue
        if not shown:
            notices.append(layers_stood_in_for(reference.name, reference.model.source))
            reference, shown = dataclasses.replace(reference, runner=OnnxrtRunner()), True
        pairs.append(Sides(reference, (side,)))
    return pairs, notices


def _first_in_floats(reference: Side, side: Side) -> bool:
    """Whether a candidate has to take the reference's place, which is quantized: what rounding to integers explains is
    known of a quantized layer beside one in floating point."""
    can = reference.runner.capabilities
    return can.pieces and can.any_model and side.runner.capabilities.pieces and quantizes_more(reference, side)


def turned_round(sides: Sides) -> Side | None:
    """The first of the candidates that take the reference's place for what is said of layers; None where none does."""
    return next((side for side in sides.candidates if _first_in_floats(sides.reference, side)), None)


def _shows(side: Side) -> bool:
    """Whether tensors inside the network can be seen: in pieces of it, or as a session gives them."""
    can = side.runner.capabilities
    if can.pieces or (can.inner_tensors and can.computes):
        return True
    shown = side.runner.tensors_shown(side.model) if can.inner_tensors else ()
    return shown is None or bool({*shown} & {*side.model.index.producer} - {*side.model.index.outputs})
