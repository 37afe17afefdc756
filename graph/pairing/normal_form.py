"""One way of writing for what ONNX can write in several: nodes and constants, made comparable across files.

Opsets moved attributes to inputs (axes, pads, min and max), gave them defaults and renamed them; exporters write a bias
as part of a Gemm or as an Add, a BatchNormalization as a node or inside the weights before it. `canonical` undoes the
first kind, `affine` the second.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from ..index import GraphIndex, attribute
from ..specs import TensorSpec

COMMUTATIVE = frozenset(
    {"Add", "Mul", "Sum", "Max", "Min", "Mean", "And", "Or", "Xor", "Equal", "BitwiseAnd", "BitwiseOr", "BitwiseXor"}
)
_FAMILY = {
    "Gemm": "MatMul",
    "FusedMatMul": "MatMul",
    "FusedGemm": "MatMul",
    "FusedConv": "Conv",
    "Upsample": "Resize",
    "SkipLayerNormalization": "Add",
    "SkipSimplifiedLayerNormalization": "Add",
    "BiasAdd": "Add",
    "BiasGelu": "Gelu",
    "FastGelu": "Gelu",
}
EPILOGUES = frozenset(
    {"FusedConv", "FusedGemm", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "BiasGelu"}
)
"""Operators of ONNX Runtime that do more than the operator of their family: their output is a later tensor."""

ELEMENTWISE_CUSTOM = frozenset({"BiasGelu", "FastGelu", "QuickGelu", "Gelu", "BiasAdd", "Inverse", "GroupNorm"})
"""Operators of other domains that have one source of data and no weights of a product."""
# fmt: off
_SETTINGS = frozenset({
    "axes", "min", "max", "pads", "constant_value", "starts", "ends", "steps", "split", "k", "scales", "sizes", "ratio",
    "shape", "repeats", "roi", "depth", "output_shape", "kernel_shape", "trip_count", "max_output_boxes_per_class",
    "iou_threshold", "score_threshold", "training_mode", "seq_length", "axis",
})
# fmt: on
# input and attribute names that changed between opsets
_RENAMED = {"mean": "input_mean", "var": "input_var"}
_IGNORED = {
    "BatchNormalization": {"momentum", "is_test", "consumed_inputs", "training_mode", "spatial"},
    "Dropout": {"seed", "ratio", "is_test", "training_mode"},
    "LayerNormalization": {"stash_type"},
    "Split": {"num_outputs"},
    "Resize": {"roi"},
    "MaxPool": {"storage_order"},
    "Gemm": {"broadcast"},
    "Add": {"broadcast", "axis", "consumed_inputs"},
    "Mul": {"broadcast", "axis", "consumed_inputs"},
    "Sub": {"broadcast", "axis", "consumed_inputs"},
    "Div": {"broadcast", "axis", "consumed_inputs"},
    "Reshape": {"allowzero", "consumed_inputs"},
    "Cast": {"saturate", "round_mode"},
}
_WINDOWED = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"})


@dataclass(frozen=True)
class Canonical:
    """A node, written so that the same computation reads the same in every opset.

    Attributes:
        op: Operator, with its domain where that is not the default one.
        family: Operator of which `op` is a way of writing (MatMul for Gemm).
        settings: Attributes and attribute-like constant inputs by name, defaults filled in.
        data: Slot and name of the inputs that depend on the data.
        weights: Slot and name of the other inputs, shape arithmetic among them.
    """

    op: str
    family: str
    settings: Mapping[str, Any]
    data: tuple[tuple[str, str], ...]
    weights: Mapping[str, str]

    @property
    def commutative(self) -> bool:
        """Whether the order of the data inputs says nothing."""
        return self.op in COMMUTATIVE


@functools.lru_cache(maxsize=4096)
def _schema(op: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, version, domain)
    except Exception:  # a custom operator
        return None


@functools.lru_cache(maxsize=4096)
def schema_defaults(op: str, version: int, domain: str) -> dict[str, Any]:
    """Attributes that an operator has where a node does not give them; empty for a custom operator."""
    schema = _schema(op, version, domain)
    if schema is None:
        return {}
    found = {}
    for name, a in schema.attributes.items():
        if a.default_value.type:
            value = onnx.helper.get_attribute_value(a.default_value)
            found[name] = value.decode() if isinstance(value, bytes) else value
    return found


def slots(node: onnx.NodeProto, version: int) -> list[str]:
    """A name for each input position, the same in every opset: the schema's, numbered where it takes any number."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    standard = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}.get(node.op_type)
    if domain and standard is not None:
        schema = _schema(standard, onnx.defs.onnx_opset_version(), "")
    else:
        schema = _schema(node.op_type, version, domain)
    names = []
    for position in range(len(node.input)):
        if schema is None or not schema.inputs:
            names.append(f"in{position}")
        elif position < len(schema.inputs) - 1:
            names.append(schema.inputs[position].name.lower())
        else:
            last = schema.inputs[-1]
            variadic = last.option == onnx.defs.OpSchema.FormalParameterOption.Variadic
            names.append(f"{last.name.lower()}{position}" if variadic else last.name.lower())
    return [_RENAMED.get(name, name) for name in names]


def canonical(index: GraphIndex, position: int, constant: Any) -> Canonical:
    """The node at ``position``, rewritten. ``constant(name)`` tells whether a tensor is independent of the data."""
    node = index.nodes[position]
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = index.opset.get(domain, 1)
    op = f"{domain}::{node.op_type}" if domain else node.op_type
    settings: dict[str, Any] = dict(schema_defaults(node.op_type, version, domain))
    for a in node.attribute:
        if a.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            settings[a.name] = attribute(node, a.name)
    settings = {name.lower(): value for name, value in settings.items()}
    if op == "Pad" and "value" in settings:
        settings.setdefault("constant_value", settings.pop("value"))
    data: list[tuple[str, str]] = []
    weights: dict[str, str] = {}
    for slot, name in zip(slots(node, version), node.input, strict=True):
        if not name:
            continue
        if not constant(name):
            data.append(("*" if op in COMMUTATIVE else slot, name))
            continue
        value = index.constant(name) if slot in _SETTINGS and not domain else None
        if value is not None and value.size <= 4096:
            settings[slot] = value.item() if value.ndim == 0 else value.tolist()
        else:
            weights["const" if op in COMMUTATIVE else slot] = name
    listed = set(node.input)
    for i, name in enumerate(r for r in index.reads[position] if r not in listed):
        if constant(name):
            weights[f"captured{i}"] = name
        else:
            data.append((f"captured{i}", name))
    if not domain:
        _settle(index, node, version, settings, weights)
    for name in _IGNORED.get(op, ()):
        settings.pop(name, None)
    return Canonical(op, _FAMILY.get(node.op_type, node.op_type), settings, tuple(data), weights)


def _shape(index: GraphIndex, name: str) -> tuple[Any, ...] | None:
    spec: TensorSpec | None = index.specs.get(name)
    return None if spec is None else spec.shape


def _settle(
    index: GraphIndex, node: onnx.NodeProto, version: int, settings: dict[str, Any], weights: Mapping[str, str]
) -> None:
    """Fills in what is implied, and writes axes as non-negative numbers where the rank is known."""
    op = node.op_type
    shape = _shape(index, node.input[0]) if node.input else None
    rank = None if shape is None else len(shape)
    if op in _WINDOWED:
        kernel = settings.get("kernel_shape")
        if not kernel and "w" in weights:
            dims = _shape(index, weights["w"])
            kernel = list(dims[2:]) if dims is not None else None
        if kernel:
            n = len(kernel)
            settings["kernel_shape"] = [int(k) for k in kernel]
            settings["strides"] = list(settings.get("strides") or [1] * n)
            settings["dilations"] = list(settings.get("dilations") or [1] * n)
            settings["pads"] = _pads(op, settings, shape, n)
        if settings.get("auto_pad") in ("NOTSET", "VALID") or settings.get("pads") is not None:
            settings.pop("auto_pad", None)
    if op in ("Softmax", "LogSoftmax", "Hardmax"):
        axis = settings.get("axis", -1)
        if rank is not None:
            axis %= rank
        old = version < 13
        # before opset 13 the operator runs over all axes from `axis` on: the same thing if that is the last one
        settings["axis"] = f"{axis} and all after it" if old and axis != -1 and axis != (rank or 0) - 1 else axis
    elif isinstance(settings.get("axis"), int) and rank:
        settings["axis"] %= rank + (1 if op in ("Unsqueeze", "OneHot") else 0)
    if settings.get("axes") is not None and rank is not None and op not in ("Unsqueeze", "Slice", "Pad"):
        axes = settings["axes"] if isinstance(settings["axes"], list) else [settings["axes"]]
        settings["axes"] = sorted(a % rank for a in axes) if rank else axes
    if op.startswith("Reduce") and settings.get("axes") is None and rank is not None:
        settings["axes"] = list(range(rank))
        settings.pop("noop_with_empty_axes", None)
    elif op.startswith("Reduce"):
        settings.pop("noop_with_empty_axes", None)
    if op == "Slice" and "starts" in settings and not settings.get("axes"):
        settings["axes"] = list(range(len(settings["starts"])))
    if op == "Slice":
        if "starts" in settings and not settings.get("steps"):
            settings["steps"] = [1] * len(settings["starts"])
        if rank and settings.get("axes"):
            settings["axes"] = [a % rank for a in settings["axes"]]
    if op == "Pad" and settings.get("constant_value") in (None, [], 0):
        settings["constant_value"] = 0.0
    if op == "Clip":
        for name in ("min", "max"):
            value = settings.pop(name, None)
            value = value[0] if isinstance(value, list) and value else value
            if isinstance(value, (int, float)) and abs(value) < 3.4e38:
                settings[name] = value
    if op == "Transpose" and "perm" not in settings and rank is not None:
        settings["perm"] = list(range(rank))[::-1]
    if op in ("Reshape", "Expand", "Tile", "Squeeze", "Unsqueeze", "Flatten", "Split") and node.output:
        out = _shape(index, node.output[0])
        if out is not None and all(isinstance(d, int) for d in out) and op in ("Reshape", "Squeeze", "Unsqueeze"):
            settings.clear()
            settings["output shape"] = list(out)
    if op in ("Resize", "Upsample"):
        out = _shape(index, node.output[0])
        scales = settings.pop("scales", None)
        sizes = settings.pop("sizes", None)
        if out is not None and all(isinstance(d, int) for d in out):
            settings["output shape"] = list(out)
        else:
            settings.update({k: v for k, v in (("scales", scales), ("sizes", sizes)) if v})
        if op == "Upsample" or version < 11:
            settings.setdefault("coordinate_transformation_mode", "asymmetric")
            if settings.get("mode") == "nearest":
                settings["nearest_mode"] = "floor"
        settings["mode"] = {"bilinear": "linear"}.get(settings.get("mode", "nearest"), settings.get("mode", "nearest"))
        if settings["mode"] != "nearest":
            settings.pop("nearest_mode", None)


def _pads(op: str, settings: Mapping[str, Any], shape: Sequence[Any] | None, n: int) -> list[int] | None:
    mode = settings.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return [int(p) for p in settings.get("pads") or [0] * (2 * n)]
    if mode == "VALID":
        return [0] * (2 * n)
    spatial = None if shape is None else shape[2:]
    if op == "ConvTranspose" or spatial is None or not all(isinstance(d, int) for d in spatial):
        return None
    before, after = [], []
    for size, k, s, d in zip(
        spatial, settings["kernel_shape"], settings["strides"], settings["dilations"], strict=True
    ):
        total = max((math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
        half = total // 2
        before.append(half if mode == "SAME_UPPER" else total - half)
        after.append(total - before[-1])
    return before + after
