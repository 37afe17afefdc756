"""A plan in the words of other tools: one renderer each, all made from the plan's file."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..report.plan import Plan


@dataclass(frozen=True)
class Export:
    """A form of a plan.

    Attributes:
        help: One line: for which tool.
        render: The text, for a plan and the path of its model.
    """

    help: str
    render: Callable[[Plan, str], str]


def _trtexec(plan: Plan, model: str) -> str:
    mode = {"e4m3": "--fp8", "tf32": ""}.get(plan.format, f"--{plan.format}")
    fit = [name for name in plan.keep if not set(name) & set(",:*")]
    words = ["trtexec", f"--onnx={model}", mode]
    if fit:
        listed = ",".join(f"{name}:fp32" for name in fit)
        words += ["--precisionConstraints=obey", f"--layerPrecisions={listed}", f"--layerOutputTypes={listed}"]
    left = [f"# trtexec cannot name {name!r}: it holds a comma, a colon or an asterisk" for name in plan.keep]
    left = [line for line, name in zip(left, plan.keep, strict=True) if name not in fit]
    return "\n".join([*left, shlex.join(word for word in words if word)])


def _polygraphy(plan: Plan, model: str) -> str:
    mode = {"e4m3": "--fp8", "tf32": "--tf32"}.get(plan.format, f"--{plan.format}")
    return f'''"""Keeps layers in FP32 (TensorRT 8.5 to 10).

polygraphy run {model} --trt {mode} --precision-constraints obey --trt-network-postprocess-script THIS_FILE
"""

import tensorrt as trt

KEEP = {_listed(plan.keep, "    ")}


def postprocess(network):
    floats = (trt.float32, trt.float16)
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.name not in KEEP or layer.type in (trt.LayerType.CONSTANT, trt.LayerType.SHAPE):
            continue
        outputs = [layer.get_output(j) for j in range(layer.num_outputs)]
        if any(output.dtype not in floats or output.is_shape_tensor for output in outputs):
            continue
        layer.precision = trt.float32
        for j in range(layer.num_outputs):
            layer.set_output_type(j, trt.float32)'''


def _autocast(plan: Plan, model: str) -> str:
    words = ["python", "-m", "modelopt.onnx.autocast", "--onnx_path", model, "--low_precision_type", plan.format]
    patterns = [f"^{re.escape(name)}$" for name in plan.keep]
    return shlex.join([*words, *(["--nodes_to_exclude", *patterns] if patterns else [])])


def _onnxconverter(plan: Plan, model: str) -> str:
    return f"""import onnx
from onnxconverter_common.float16 import convert_float_to_float16  # or onnxruntime.transformers.float16

fixed = convert_float_to_float16(
    onnx.load({json.dumps(model)}),
    keep_io_types=True,
    node_block_list={_listed(plan.keep, "    ")},
)"""


def _quantization(plan: Plan, model: str) -> str:
    return f"""from onnxruntime.quantization import quantize_static

quantize_static(
    {json.dumps(model)},
    OUTPUT,
    CALIBRATION_DATA_READER,
    nodes_to_exclude={_listed(plan.keep, "    ")},
)"""


def _nncf(plan: Plan, model: str) -> str:
    return f"""import nncf

nncf.quantize(
    MODEL,
    CALIBRATION_DATASET,
    ignored_scope=nncf.IgnoredScope(names={_listed(plan.keep, "    ")}),
)"""


def _nodes(plan: Plan, model: str) -> str:
    return "\n".join(plan.keep)


def _listed(names: tuple[str, ...], indent: str) -> str:
    """A list as Python and JSON write it, a name on each line."""
    if not names:
        return "[]"
    inner = "".join(f"\n{indent}    {json.dumps(name, ensure_ascii=False)}," for name in names)
    return f"[{inner}\n{indent}]"


EXPORTS: Mapping[str, Export] = {
    "nodes": Export("the names of the nodes that stay FP32, one a line", _nodes),
    "trtexec": Export("a line for trtexec of TensorRT 8.5 to 10", _trtexec),
    "polygraphy": Export("a network script for polygraphy, TensorRT 8.5 to 10", _polygraphy),
    "autocast": Export("a line for ModelOpt's AutoCast", _autocast),
    "onnxconverter": Export("Python for onnxconverter-common, or ONNX Runtime's float16 tool", _onnxconverter),
    "quantization": Export("Python for onnxruntime.quantization", _quantization),
    "nncf": Export("Python for NNCF", _nncf),
}
"""The forms, by the word that names each: ``layerdiff plan plan.json --as trtexec``."""
