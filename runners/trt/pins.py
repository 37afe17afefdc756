"""The number formats that layers are held to: what the user keeps, and what the deployed engine chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...graph.cutting.slices import original_name
from ..contract.session import Formats
from .network import layers_of
from .plan import Plan

if TYPE_CHECKING:
    from .config import TrtConfig


def pinned(config: TrtConfig, plan: Plan) -> dict[str, Formats]:
    """ONNX node -> formats that it must have: what the user keeps in FP32 and, in observed engines (pieces, marked
    outputs), what the deployed engine chose.

    TensorRT picks a layer's format by its speed in that very network: a small piece comes out in FP32 where the whole
    engine runs in FP16, and would show errors that the deployed engine does not make.
    """
    if plan.strongly_typed or not set(plan.flags) & set(FORMAT_TYPES):
        return {}
    wanted = {} if config.deployed is None else dict(config.deployed.node_formats)
    wanted.update(dict.fromkeys(config.keep, ("FP32", "FP32")))
    return wanted


FORMAT_TYPES = {"FP32": "FLOAT", "FP16": "HALF", "BF16": "BF16", "INT8": "INT8"}


def pin_layers(network: Any, wanted: Mapping[str, Formats], trt: Any) -> None:
    """Gives the layers of ONNX nodes the precision and, for floats, the output type that ``wanted`` says.

    The output type matters at the borders of a piece: an FP16 kernel that may write FP32 does not overflow there.
    Where it is not known (inside Myelin's regions, which may keep sums of a normalization in FP32), only matrix
    products are given a precision.
    """
    from .inspector import onnx_nodes

    floats = {trt.DataType.FLOAT, trt.DataType.HALF}
    kinds = trt.LayerType
    products = {kinds.CONVOLUTION, kinds.DECONVOLUTION, kinds.MATRIX_MULTIPLY}
    for layer in layers_of(network):
        named = onnx_nodes(getattr(layer, "metadata", "") or "") or (layer.name,)
        nodes = [original_name(n) for n in named]  # layers that are run side by side carry a number
        formats = {wanted[n] for n in nodes if n in wanted}
        if len(formats) != 1 or layer.type in (trt.LayerType.CONSTANT, trt.LayerType.SHAPE):
            continue
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        if any(o.dtype not in floats or o.is_shape_tensor for o in outputs):
            continue
        if not next(iter(formats))[1] and layer.type not in products:
            continue
        inside, outside = (getattr(trt.DataType, FORMAT_TYPES.get(f, ""), None) for f in formats.pop())
        if inside is not None:
            layer.precision = inside
        if outside is not None and outside in floats:
            for i in range(layer.num_outputs):
                layer.set_output_type(i, outside)
