"""What an engine is made of: its layers, with the ONNX nodes that each was fused from.

The engine inspector writes JSON, of which 8.6 leaves control characters raw (0x1e between the ONNX nodes of a fused
layer, 0x1f after it): read with ``strict=False``.

An engine of several profiles holds every layer once for each, ``[profile 1]`` in its name from the second profile on.
Where shapes are dynamic, formats are told only of a context that has been given shapes ("N/A due to dynamic shapes"):
each profile is asked about in its best shapes. Where they are not told even so, the type of the weights and the
kernel's name are what is left.

**What is counted.** TensorRT's own number of layers holds constants, and reformats that change a tensor's layout. Here

- *parsed layers*: layers of the network after parsing, without constants and shape queries;
- *engine layers*: layers of the engine in one profile, without constants, reformats and copies of tensors (no-ops).
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..contract.latency import KernelTime

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..contract.session import Formats, SessionInfo

_ONNX = re.compile(r"\[ONNX Layer: ([^\]\x1e]*(?:\][^\]\x1e\x1f\[]+)*)\]")
_FORMAT = re.compile(r"\b(FP32|FP16|BF16|FP8|INT8|INT32|INT64|INT4|BOOL|UINT8|Float|Half|Int8|Int32)\b")
_LONG = {"Float": "FP32", "Half": "FP16", "Int8": "INT8", "Int32": "INT32"}
_NARROWEST_FIRST = ("INT4", "INT8", "FP8", "BF16", "FP16", "FP32")
_KERNEL = re.compile(
    r"_(bf16|f16|f32|i8)(?:bf16|f16|f32|i8)_(?:tf32|bf16|f16|f32|i8)(f16|f32|i32)_(bf16|f16|f32|i8)(?=_)"
)
_KERNEL_TYPES = {"f16": "FP16", "bf16": "BF16", "f32": "FP32", "i8": "INT8", "i32": "INT32"}
_PROFILE = re.compile(r"\s*\[profile +(\d+)\]?")
_PASSIVE = ("constant", "reformat", "noop", "no-op", "signal", "wait")


def _named(text: str) -> str:
    """The number format that a text names; empty if it names none."""
    found = _FORMAT.search(text)
    return _LONG.get(found.group(1), found.group(1)) if found else ""


@dataclass(frozen=True)
class EngineTensor:
    """A tensor at a layer's border: name, shape and format as TensorRT words it (``Row major linear FP16 format``)."""

    name: str
    shape: tuple[int, ...]
    format: str

    @property
    def precision(self) -> str:
        """``FP32``, ``FP16``, ``INT8``, ... read off the format; empty if it names none."""
        return _named(self.format)


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine: one kernel, or a few that TensorRT counts as one.

    Attributes:
        name: TensorRT's name, made of those it fused: ``conv1 + relu1``; without the profile.
        kind: ``CaskConvolution``, ``Reformat``, ``Constant``, ...
        nodes: Names of the ONNX nodes it computes, as TensorRT's metadata tell; empty where it invented the layer.
        inputs, outputs: Tensors at its borders.
        tactic: Name of the kernel, where TensorRT tells.
        profile: Which optimization profile it runs in.
        weights: The number format of its weights, where TensorRT tells.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    tactic: str
    profile: int = 0
    weights: str = ""

    @property
    def passive(self) -> bool:
        """Whether it computes nothing: a constant, a reformat, a copy."""
        kind = self.kind.lower()
        return any(word in kind for word in _PASSIVE) or self.name.startswith("Reformatting CopyNode")

    @property
    def precision(self) -> str:
        """The narrowest float or INT8 format among its inputs and outputs; empty where it has neither.

        A layer that takes INT8 and gives FP32 multiplies in INT8; one that takes FP32 and gives FP16 computes in FP16.
        Where no formats are told, that of its weights, or of the kernel's operands.
        """
        found = {tensor.precision for tensor in (*self.inputs, *self.outputs)} - {""}
        kernel = _KERNEL.search(self.tactic)
        found = found or {self.weights or (_KERNEL_TYPES[kernel.group(1)] if kernel else "")}
        return next((p for p in _NARROWEST_FIRST if p in found), "")

    @property
    def result(self) -> str:
        """The format of its first output; empty where neither that nor the kernel's name tells."""
        told = self.outputs[0].precision if self.outputs else ""
        kernel = _KERNEL.search(self.tactic)
        return told or (_KERNEL_TYPES[kernel.group(3)] if kernel else "")

    @property
    def accumulator(self) -> str:
        """The format in which a matrix product adds, read off the kernel's name; empty if it does not tell.

        Names of xmma kernels give operands, the type multiplied in, the accumulator's and the epilogue's:
        ``sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_...`` adds in FP32, ``f16f16_f16f16_f16`` in FP16.
        """
        found = _KERNEL.search(self.tactic)
        return _KERNEL_TYPES[found.group(2)] if found else ""


def onnx_nodes(metadata: str) -> tuple[str, ...]:
    """Names of ONNX nodes in a layer's metadata, in their order there, each once; without the profile."""
    return tuple(dict.fromkeys(_PROFILE.sub("", name) for name in _ONNX.findall(metadata)))


def read(text: str) -> tuple[EngineLayer, ...]:
    """The layers in the engine inspector's JSON; those of engines that were not built with detailed profiling have
    names alone."""
    try:
        layers = json.loads(text, strict=False).get("Layers", [])
    except ValueError:  # an engine without profiling information says nothing, or an error
        return ()
    return tuple(_layer(item) for item in layers)


def _layer(item: Any) -> EngineLayer:
    whole = item if isinstance(item, str) else str(item.get("Name", ""))
    name, at = _PROFILE.sub("", whole), _PROFILE.search(whole)
    profile = int(at.group(1)) if at else 0
    if isinstance(item, str):
        return EngineLayer(name, "", (), (), (), "", profile)
    weights = item.get("Weights")
    return EngineLayer(
        name=name,
        kind=str(item.get("LayerType", "")),
        nodes=onnx_nodes(str(item.get("Metadata", ""))),
        inputs=_tensors(item.get("Inputs", ())),
        outputs=_tensors(item.get("Outputs", ())),
        tactic=str(item.get("TacticName", "") or item.get("TacticValue", "")),
        profile=profile,
        weights=_named(str(weights.get("Type", ""))) if isinstance(weights, dict) else "",
    )


def _tensors(items: Iterable[Any]) -> tuple[EngineTensor, ...]:
    return tuple(
        EngineTensor(
            _PROFILE.sub("", str(item.get("Name", ""))),
            tuple(int(d) for d in item.get("Dimensions", ())),
            str(item.get("Format/Datatype", item.get("Format", ""))),
        )
        for item in items
        if isinstance(item, dict)
    )


def inspect(engine: Any, trt: Any, enter: Callable[[int], Any] | None = None) -> tuple[EngineLayer, ...]:
    """The layers of a deserialized engine, those of the first profile first.

    Args:
        engine: The engine.
        trt: The TensorRT module.
        enter: Gives an execution context in a profile, with shapes for all inputs, or None where that cannot be had.
            Without it, or where shapes are fixed, the engine alone is asked.
    """
    inspector = engine.create_engine_inspector()

    def ask() -> tuple[EngineLayer, ...]:
        return read(str(inspector.get_engine_information(trt.LayerInformationFormat.JSON)))

    plain = ask()
    if enter is None:
        return plain
    profiles = engine.num_optimization_profiles
    found: list[EngineLayer] = []
    for profile in range(profiles):
        context = enter(profile)
        if context is not None:
            inspector.execution_context = context
        told = [layer for layer in _marked(ask(), profiles) if layer.profile == profile]
        # TensorRT 8.6.0 tells nothing of the first profile to whoever asks through a context
        found.extend(told or (layer for layer in _marked(plain, profiles) if layer.profile == profile))
    return tuple(found)


def _marked(layers: Sequence[EngineLayer], profiles: int) -> Sequence[EngineLayer]:
    """Layers with their profiles. Where no name tells one, the list is that of each profile, one after the other."""
    share, rest = divmod(len(layers), profiles)
    if profiles == 1 or rest or any(layer.profile for layer in layers):
        return layers
    return [replace(layer, profile=number // share) for number, layer in enumerate(layers)]


def by_profile(layers: Iterable[EngineLayer]) -> list[list[EngineLayer]]:
    """The layers of each profile."""
    found: dict[int, list[EngineLayer]] = {}
    for layer in layers:
        found.setdefault(layer.profile, []).append(layer)
    return [found[profile] for profile in sorted(found)]


def computing(layers: Iterable[EngineLayer]) -> int:
    """Number of *engine layers*, as this module counts them."""
    return sum(not layer.passive for layer in layers)


def formats(layers: Iterable[EngineLayer]) -> dict[str, int]:
    """Number of computing layers by the number format they run in."""
    counts: dict[str, int] = {}
    for layer in layers:
        if not layer.passive and layer.precision:
            counts[layer.precision] = counts.get(layer.precision, 0) + 1
    return counts


def node_formats(layers: Iterable[EngineLayer]) -> dict[str, Formats]:
    """Of each ONNX node, by name: the number format it computes in, and that of its layer's first output.

    The second is empty for nodes in Myelin's regions, of whose inside only the formats at the border are told.
    """
    found: dict[str, Formats] = {}
    for layer in layers:
        if layer.passive or not layer.precision or not layer.outputs:
            continue
        for node in layer.nodes:
            before = found.get(node)
            told = (layer.precision, "" if "myelin" in layer.kind.lower() else layer.result)
            narrower = before is None or _NARROWEST_FIRST.index(told[0]) < _NARROWEST_FIRST.index(before[0])
            # another profile may tell what the first did not
            if narrower or (before is not None and told[0] == before[0] and not before[1]):
                found[node] = told
    return found


def accumulators(layers: Iterable[EngineLayer]) -> dict[str, int]:
    """Number of matrix-product layers by the format in which they add, where the kernel's name tells."""
    counts: dict[str, int] = {}
    for layer in layers:
        if layer.accumulator:
            counts[layer.accumulator] = counts.get(layer.accumulator, 0) + 1
    return counts


def fp16_accumulation(layers: Iterable[EngineLayer]) -> frozenset[str]:
    """Names of the ONNX nodes in layers whose kernel is known to add in FP16."""
    return frozenset(node for layer in layers if layer.accumulator == "FP16" for node in layer.nodes)


def kernel_times(layers: Iterable[EngineLayer], seen: Mapping[str, Sequence[float]]) -> tuple[KernelTime, ...]:
    """What the layers take that are known to compute ONNX nodes.

    Args:
        layers: The layers.
        seen: Milliseconds of several runs, by the layers' names as the profiler calls them.
    """
    times: dict[str, list[float]] = {}
    for name, runs in seen.items():
        times.setdefault(_PROFILE.sub("", name), []).extend(runs)
    nodes = {layer.name: layer.nodes for layer in layers if layer.nodes and not layer.passive}
    return tuple(KernelTime(nodes[name], statistics.median(runs)) for name, runs in times.items() if name in nodes)


def groups(layers: Iterable[EngineLayer], model: Model) -> list[frozenset[int]]:
    """Sets of ONNX nodes (positions in ``graph.node``) that must not be cut apart: they run in one kernel.

    Layers that share a node are one group (TensorRT splits and clones nodes). A node that no layer names was folded or
    optimized away and is in no group.
    """
    position = {name: i for i, name in enumerate(model.index.names)}
    merged: list[set[int]] = []
    for layer in layers:
        nodes = {position[n] for n in layer.nodes if n in position}
        if not nodes:
            continue
        touching = [g for g in merged if g & nodes]
        for group in touching:
            merged.remove(group)
            nodes |= group
        merged.append(nodes)
    return [frozenset(g) for g in sorted(merged, key=min)]


def deployed_info(info: SessionInfo, layers: Sequence[EngineLayer], model: Model) -> SessionInfo:
    """``info`` of the engine of a whole model, with its kernels and formats, for those that observe it in pieces.

    A region of Myelin's is many kernels, of which the inspector does not tell. Where all layers run in one format, so
    do the nodes that no layer names.
    """
    formats = node_formats(layers)
    used = {layer.precision for layer in layers if not layer.passive}
    if len(used) == 1 and "" not in used and not model.opaque:
        formats = {**dict.fromkeys(model.index.names, (used.pop(), "")), **formats}
    told = [layer for layer in layers if "myelin" not in layer.kind.lower() and not layer.passive]
    return replace(info, node_formats=formats, kernels=tuple(groups(told, model)))
