"""The layers of a report as node data for Model Explorer: a folder with one file for each view of a candidate.

Model Explorer's ONNX adapter knows a node by its name and a graph by its own; names of tensors find nothing there.
Where a model has nodes without a unique name, or no name itself, the folder holds a copy of it that has them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

    from .model import LayerResult, Report

FLAG = "--model-explorer"
FOLDER = True
HELP = "write a folder of node data for Model Explorer (with --layers)"
FOLDER = LAYERS = True

EXACT = -16.0
"""What stands for the logarithm of no error at all."""
MAIN = "main"
COPY = "model.onnx"

_ERROR = ("#2e7d32", "#fdd835", "#c62828")
_VERDICTS = {
    "ok": "#a5d6a7",
    "healed": "#c5e1a5",
    "inherited": "#ffe082",
    "culprit": "#ef5350",
    "unmatched": "#b0bec5",
    "unknown": "#cfd8dc",
}


def render(report: Report) -> Mapping[str, str | bytes]:
    """The files of the folder by their names."""
    graph, copy = _named_model(report.model.source)
    files: dict[str, str | bytes] = {}
    candidates = list(dict.fromkeys(layer.candidate for layer in report.layers))
    for candidate in candidates:
        layers = [layer for layer in report.layers if layer.candidate == candidate]
        lead = f"{_safe(candidate)} " if len(candidates) > 1 else ""
        for number, (name, values) in enumerate(_VIEWS.items(), 1):
            data = {key: _graph(name, some, values) for key, some in _by_graph(layers, graph).items()}
            files[f"{lead}{number} {name}.json"] = json.dumps(data, indent=1, allow_nan=False) + "\n"
    return files if copy is None else {**files, COPY: copy}


def _by_graph(layers: Sequence[LayerResult], main: str) -> dict[str, list[LayerResult]]:
    """Layers by the graph that they are in, as the adapter names it."""
    found: dict[str, list[LayerResult]] = {main: []}
    for layer in layers:
        key = f"{layer.inside[-1].node}/{layer.inside[-1].body}" if layer.inside else main
        found.setdefault(key, []).append(layer)
    return found


def _graph(name: str, layers: Sequence[LayerResult], value: Callable[[LayerResult], Any]) -> dict[str, Any]:
    """One view of the layers of one graph. All nodes of a fused group have its value."""
    results: dict[str, Any] = {}
    for layer in layers:
        found = value(layer)
        if found is None:
            continue
        style = {"bgColor": _VERDICTS[found]} if isinstance(found, str) else {}
        for node in layer.nodes:
            before = results.get(node, {}).get("value")
            if before is None or (not isinstance(found, str) and found > before):
                results[node] = {"value": found, **style}
    data: dict[str, Any] = {"name": name, "results": results}
    if not any("bgColor" in result for result in results.values()):
        data["gradient"] = [{"stop": n / 2, "bgColor": colour} for n, colour in enumerate(_ERROR)]
    return data


def _log10(metrics: Mapping[str, Any] | None) -> float | None:
    if metrics is None:
        return None
    value = metrics.get("rel_l2")
    if value is None:  # not finite, or compared as text
        return None
    return max(EXACT, math.log10(value)) if value else EXACT


_VIEWS: Mapping[str, Callable[[LayerResult], Any]] = {
    "log10 of the cumulative error": lambda layer: _log10(layer.cumulative),
    "log10 of the local error": lambda layer: _log10(layer.local),
    "error over expected noise": lambda layer: (layer.expected or {}).get("rms_z"),
    "verdict": lambda layer: layer.verdict,
}


def _named_model(source: str) -> tuple[str, bytes | None]:
    """The name of a model's graph, and the model with the names that it lacks, if it lacks any."""
    if not source.endswith(".onnx") or not os.path.isfile(source):
        return MAIN, None
    import onnx

    from ...graph.index import GraphIndex

    proto = onnx.load(source, load_external_data=False)
    names = GraphIndex(proto).names
    unnamed = [node for node, name in zip(proto.graph.node, names, strict=True) if node.name != name]
    if not unnamed and proto.graph.name:
        return proto.graph.name, None
    for node, name in zip(proto.graph.node, names, strict=True):
        node.name = name
    proto.graph.name = proto.graph.name or MAIN
    _drop_external(proto)
    return proto.graph.name, proto.SerializeToString()


def _drop_external(proto: onnx.ModelProto) -> None:
    """Weights in other files are not copied: the copy is for its graph. They become inputs."""
    import onnx

    kept = [t for t in proto.graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
    gone = [t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    known = {value.name for value in proto.graph.input}
    values = [
        onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in gone if t.name not in known
    ]
    proto.graph.input.extend(values)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_.@" else "_" for c in name)
