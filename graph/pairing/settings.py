"""Settings of a node with everything filled in that its operator, its opset and the shapes around it imply."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from ..cutting.dataflow import trains
from ..index import GraphIndex
from ..operators import INTEGER_PRODUCTS, QUANTIZERS, RANDOM, WINDOWED, operator
from ..specs import Dim

Settings = dict[str, Any]
"""Attributes and attribute-like constant inputs by name."""

GIVEN_BY = " given by"
"""What the name of a setting ends with that says from what another one follows."""

_UNBOUNDED = 3.4e38
"""Bounds of a Clip that are as large are none."""
_RATIO = 0.5
"""The ratio of a Dropout that gives none."""


_IGNORED = {
    "BatchNormalization": {"momentum", "is_test", "consumed_inputs", "spatial"},
    "Dropout": {"seed", "is_test"},
    "LayerNormalization": {"stash_type"},
    "Split": {"num_outputs"},
    "Resize": {"roi"},
    "Gemm": {"broadcast"},
    "Add": {"broadcast", "axis", "consumed_inputs"},
    "Mul": {"broadcast", "axis", "consumed_inputs"},
    "Sub": {"broadcast", "axis", "consumed_inputs"},
    "Div": {"broadcast", "axis", "consumed_inputs"},
    "Reshape": {"allowzero", "consumed_inputs"},
    "Cast": {"saturate", "round_mode"},
}
"""Attributes that say nothing about what an operator computes at inference, or that only old opsets have."""


@dataclass(frozen=True)
class AxesFrom:
    """All axes from one on, which a Softmax runs over before opset 13.

    Attributes:
        first: The first of them, as the attribute of the node has it.
    """

    first: int

    def __str__(self) -> str:
        return f"{self.first} and all after it"


def settle(
    index: GraphIndex, node: onnx.NodeProto, version: int, settings: Settings, weights: Mapping[str, str]
) -> None:
    """Fills in what is implied, and writes axes as non-negative numbers where the rank is known.

    Args:
        index: The graph.
        node: A node of an operator that ONNX defines.
        version: The opset of the graph.
        settings: The node's settings, which are changed in place.
        weights: Slot and name of the inputs that do not depend on the data.
    """
    op = node.op_type
    shape = index.shape(node.input[0]) if node.input else None
    if op in WINDOWED - INTEGER_PRODUCTS:
        _window(op, settings, shape, None if "w" not in weights else index.shape(weights["w"]))
    _axes(op, version, None if shape is None else len(shape), settings)
    if op in _RULES:
        _RULES[op](settings, None if shape is None else len(shape))
    if operator(node) in QUANTIZERS and len(node.input) > 1 and index.shape(node.input[1]) in ((), (1,)):
        settings.pop("axis", None)  # one scale lies along no axis
    made = index.shape(node.output[0]) if node.output else None
    known = None if made is None or not all(isinstance(d, int) for d in made) else list(made)
    if op in ("Reshape", "Squeeze", "Unsqueeze") and known is not None:
        settings.clear()
        settings["output shape"] = known
    if op == "Slice":
        _within(settings, shape)
    if op in ("Resize", "Upsample"):
        _resize(settings, shape, known, op == "Upsample" or version < 11)
    if op == "Scan" and version > 8:
        _scan(node, settings)
    if op == "Dropout":
        _dropout(settings, trains(index, node))
    if operator(node) in RANDOM:
        settings.pop("dtype", None)
    if op == "AveragePool" and not settings.get("ceil_mode") and settings.get("pads") and not any(settings["pads"]):
        settings.pop("count_include_pad", None)  # without padding there is none to count
    if op == "MaxPool" and len(node.output) < 2:
        settings.pop("storage_order", None)  # of the places, which nobody asks for
    for name in _IGNORED.get(op, ()):
        settings.pop(name, None)


def _scan(node: onnx.NodeProto, settings: Settings) -> None:
    """The directions and axes of a Scan, which are zeros where it gives none."""
    read = int(settings.get("num_scan_inputs", 0))
    made = len(node.output) - (len(node.input) - read)
    for side, count in (("input", read), ("output", made)):
        for name in (f"scan_{side}_directions", f"scan_{side}_axes"):
            settings[name] = [int(value) for value in settings.get(name) or [0] * count]


def _window(op: str, settings: Settings, shape: Sequence[Dim] | None, weight: Sequence[Dim] | None) -> None:
    kernel = settings.get("kernel_shape")
    if not kernel and weight is not None:
        kernel = list(weight[2:])
    if kernel:
        n = len(kernel)
        settings["kernel_shape"] = [int(k) for k in kernel]
        settings["strides"] = list(settings.get("strides") or [1] * n)
        settings["dilations"] = list(settings.get("dilations") or [1] * n)
        settings["pads"] = _pads(op, settings, shape, n)
    if settings.get("auto_pad") in ("NOTSET", "VALID") or settings.get("pads") is not None:
        settings.pop("auto_pad", None)


def _pads(op: str, settings: Mapping[str, Any], shape: Sequence[Dim] | None, n: int) -> list[int] | None:
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


def _axes(op: str, version: int, rank: int | None, settings: Settings) -> None:
    if op in ("Softmax", "LogSoftmax", "Hardmax"):
        axis = settings.get("axis", -1)
        if rank is not None:
            axis %= rank
        old = version < 13
        # before opset 13 the operator runs over all axes from `axis` on: the same thing if that is the last one
        settings["axis"] = AxesFrom(axis) if old and axis != -1 and axis != (rank or 0) - 1 else axis
    elif isinstance(settings.get("axis"), int) and rank:
        settings["axis"] %= rank + (1 if op in ("Unsqueeze", "OneHot") else 0)
    if settings.get("axes") is not None and rank is not None and op not in ("Unsqueeze", "Slice", "Pad"):
        axes = settings["axes"] if isinstance(settings["axes"], list) else [settings["axes"]]
        settings["axes"] = sorted(a % rank for a in axes) if rank else axes
    if op.startswith("Reduce"):
        if settings.get("axes") is None and rank is not None:
            settings["axes"] = list(range(rank))
        settings.pop("noop_with_empty_axes", None)


def _slice(settings: Settings, rank: int | None) -> None:
    # what is computed is not known; how many axes are cut, any of the others tells
    given = next((value for name in ("starts", "ends", "axes") if (value := settings.get(name))), ())
    if given and not settings.get("axes"):
        settings["axes"] = list(range(len(given)))
    if given and not settings.get("steps"):
        settings["steps"] = [1] * len(given)
    if rank and settings.get("axes"):
        settings["axes"] = [a % rank for a in settings["axes"]]


def _within(settings: Settings, shape: Sequence[Dim] | None) -> None:
    """Writes where a Slice begins and ends as places from the front, where the sizes are known."""
    whole = [settings.get(name) for name in ("starts", "ends", "axes", "steps")]
    if shape is None or not all(isinstance(v, list) and len(v) == len(whole[0] or []) for v in whole):
        return
    starts, ends, axes, steps = whole
    for i, (axis, step) in enumerate(zip(axes or [], steps or [], strict=True)):
        size = shape[axis] if -len(shape) <= axis < len(shape) else None
        if isinstance(size, int) and step > 0:
            for places in (starts, ends):
                assert places is not None
                places[i] = min(max(places[i] + size if places[i] < 0 else places[i], 0), size)


def _grid(settings: Settings, rank: int | None) -> None:
    settings["mode"] = {"bilinear": "linear", "bicubic": "cubic"}.get(mode := settings.get("mode", "linear"), mode)


def _pad(settings: Settings, rank: int | None) -> None:
    if settings.get("constant_value") in (None, [], 0):
        settings["constant_value"] = 0.0


def _clip(settings: Settings, rank: int | None) -> None:
    for name in ("min", "max"):
        value = settings.pop(name, None)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, (int, float)) and abs(value) < _UNBOUNDED:
            settings[name] = value


def _dropout(settings: Settings, trains: bool) -> None:
    """``trains``: whether it is in training mode, or may be; else the ratio says nothing."""
    settings["training_mode"] = trains
    if trains:
        settings.setdefault("ratio", _RATIO)
    else:
        settings.pop("ratio", None)


def _transpose(settings: Settings, rank: int | None) -> None:
    if "perm" not in settings and rank is not None:
        settings["perm"] = list(range(rank))[::-1]


_RULES: dict[str, Callable[[Settings, int | None], None]] = {
    "Slice": _slice,
    "GridSample": _grid,
    "Pad": _pad,
    "Clip": _clip,
    "Transpose": _transpose,
}


def _scales(shape: Sequence[Dim], made: Sequence[Dim]) -> list[float] | None:
    """The factors between two shapes; None where they are not known."""
    pairs = [(a, b) for a, b in zip(shape, made, strict=False) if isinstance(a, int) and isinstance(b, int) and a]
    return [b / a for a, b in pairs] if len(pairs) == len(shape) == len(made) else None


def _resize(settings: Settings, shape: Sequence[Dim] | None, made: list[Dim] | None, old: bool) -> None:
    """``shape``, ``made``: the shapes of the input and the output, if known; ``old``: before opset 11, which had no
    choice of coordinates."""
    scales, sizes = settings.pop("scales", None), settings.pop("sizes", None)
    if made is not None:
        settings["output shape"] = made
        corners = settings.get("coordinate_transformation_mode") in ("align_corners", "tf_crop_and_resize")
        stretched = settings.get("keep_aspect_ratio_policy", "stretch") == "stretch"
        if sizes and stretched and shape is not None:  # 1.6 times 13 is 20 wide as 20 is, and lies elsewhere
            scales = _scales(shape, made)
            settings[f"scales{GIVEN_BY}"] = f"sizes {sizes}"
        if scales and len(scales) == len(made) and not corners:
            settings["scales"] = [float(scale) for scale in scales]
    else:
        settings.update({k: v for k, v in (("scales", scales), ("sizes", sizes)) if v})
    if old:
        settings.setdefault("coordinate_transformation_mode", "asymmetric")
        if settings.get("mode") == "nearest":
            settings["nearest_mode"] = "floor"
    mode = settings.get("mode", "nearest")
    settings["mode"] = "linear" if mode == "bilinear" else mode
    if settings["mode"] != "nearest":
        settings.pop("nearest_mode", None)
