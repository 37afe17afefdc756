"""Models without local functions, whose nodes stand in the place of their calls."""

from __future__ import annotations

import onnx.inliner

from ..model import Model


def inlined(model: Model) -> Model:
    """The same model without local functions; itself where it has none."""
    if not model.proto.functions:
        return model
    return model.derive(onnx.inliner.inline_local_functions(model.proto))
