"""Models of old opsets in one that has the operators which draw noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from ..errors import ModelError

if TYPE_CHECKING:
    from ..model import Model

DRAWS = 13
"""The oldest opset with the operators that draw in whole networks, and what older models are converted to."""


def in_newer_opset(model: Model) -> Model:
    """The model, converted to `DRAWS` where it is older. Tensors keep their names.

    Raises:
        ModelError: It cannot be converted.
    """
    opset = model.index.opset.get("", DRAWS)
    if opset >= DRAWS:
        return model
    try:
        return model.derive(onnx.version_converter.convert_version(model.proto, DRAWS))
    except Exception as error:  # whatever the converter says of operators that it does not know
        raise ModelError(f"{model.source}: opset {opset} cannot be converted to {DRAWS}: {error}") from error
