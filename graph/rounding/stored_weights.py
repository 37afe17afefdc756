"""Weights that a file holds in FP16 or BF16 and makes FP32 of: its layers compute in FP32, with coarser values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..formats import BF16, BY_DTYPE, FP16, FP32, NumberFormat
from ..specs import dtype_from_onnx, dtype_name

if TYPE_CHECKING:
    from ..model import Model


def stored_weights(model: Model) -> dict[str, NumberFormat]:
    """The FP32 weights of a model that its file holds in a narrow format, and that format.

    Of an ONNX file, they are what a Cast makes of weights; a TFLite file's are known from itself.
    """
    index = model.index
    found = dict.fromkeys(model.tflite.halves & index.initializers.keys(), FP16) if model.tflite is not None else {}
    for node in index.nodes:
        if node.op_type != "Cast" or node.input[0] not in index.initializers:
            continue
        held = BY_DTYPE.get(dtype_from_onnx(index.initializers[node.input[0]].data_type).name)
        made = index.specs.get(node.output[0])
        if held in (FP16, BF16) and made is not None and BY_DTYPE.get(dtype_name(made.dtype)) == FP32:
            found[node.output[0]] = held
    return found
