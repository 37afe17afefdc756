"""Whose layers can be looked at: what a runtime cannot do is said, and costs no verdict."""

from __future__ import annotations

import dataclasses

from ...runners.onnxrt.runner import OnnxrtRunner
from ..notices import layers_not_seen, layers_stood_in_for
from ..report.model import Notice
from ..sides import Sides


def observable(sides: Sides) -> tuple[Sides, list[Notice]]:
    """Those candidates that open pieces, beside a reference that shows its layers.

    A reference that neither opens pieces nor gives inner tensors is stood in for by ONNX Runtime, on the same model.

    Returns:
        The sides, of which there may be no candidate left, and what is left out or stood in for.
    """
    notices = [layers_not_seen(side.name) for side in sides.candidates if not side.runner.capabilities.pieces]
    candidates = tuple(side for side in sides.candidates if side.runner.capabilities.pieces)
    reference = sides.reference
    can = reference.runner.capabilities
    if candidates and not can.pieces and not can.inner_tensors:
        notices.append(layers_stood_in_for(reference.name, reference.model.source))
        reference = dataclasses.replace(reference, runner=OnnxrtRunner())
    return dataclasses.replace(sides, reference=reference, candidates=candidates), notices
