"""The layers of a report as node data for Model Explorer: a folder with one file for each view of a candidate.

Model Explorer's ONNX adapter knows a node by its name and a graph by its own; names of tensors find nothing there.
Where a model has nodes without a unique name, or no name itself, the folder holds a copy of it that has them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

    from .model import LayerResult, Report

FLAG = "--model-explorer"
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
    places, copy = _places(report.model.source)
    files: dict[str, str | bytes] = {}
    candidates = list(dict.fromkeys(layer.candidate for layer in report.layers))
    for candidate in candidates:
        layers = [layer for layer in report.layers if layer.candidate == candidate]
        lead = f"{_safe(candidate)} " if len(candidates) > 1 else ""
        for number, (name, values) in enumerate(_VIEWS.items(), 1):
            data = _graphs(name, layers, values, places)
            files[f"{lead}{number} {name}.json"] = json.dumps(data, indent=1, allow_nan=False) + "\n"
    return files if copy is None else {**files, COPY: copy}


def _graphs(
    name: str, layers: Sequence[LayerResult], value: Callable[[LayerResult], Any], places: Places
) -> dict[str, Any]:
    """One view of the layers, by graph. All nodes of a fused group have its value."""
    results: dict[str, dict[str, Any]] = {places.main: {}}
    for layer in layers:
        found = value(layer)
        if found is None:
            continue
        style = {"bgColor": _VERDICTS[found]} if isinstance(found, str) else {}
        for node in layer.nodes:
            graph, key = places.of(layer, node)
            if graph is None:
                continue
            mine = results.setdefault(graph, {})
            before = mine.get(key, {}).get("value")
            if before is None or (not isinstance(found, str) and found > before):
                mine[key] = {"value": found if isinstance(found, str) else float(f"{found:.4g}"), **style}
    return {graph: _view(name, mine) for graph, mine in results.items()}


def _view(name: str, results: Mapping[str, Any]) -> dict[str, Any]:
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


@dataclass
class Places:
    """Where Model Explorer's ONNX adapter has the nodes of a model: the name of a graph, and of a node in it.

    The branches of an If are in the graph around them, under the names of the If and the branch; the body of a Loop or
    a Scan is a graph of its own, unless it is inside of another one: the adapter does not show those.

    Attributes:
        main: The name of the main graph.
        nodes: The place of a node, by the If, Loop or Scan that it is inside of, each with the name of the body, and
            by its own name.
        used: Names that a node has.
    """

    main: str = MAIN
    nodes: dict[tuple[tuple[tuple[str, str], ...], str], tuple[str | None, str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def of(self, layer: LayerResult, node: str) -> tuple[str | None, str]:
        """The place of a node of a layer; no graph, where it is not shown."""
        inside = tuple((e.node, e.body) for e in layer.inside)
        if self.nodes:
            return self.nodes.get((inside, node), (None, node))
        return ("/".join(inside[-1]) if inside else self.main), node

    def add(
        self, graph: onnx.GraphProto, shown: str | None, prefix: str = "", path: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Adds the nodes of a graph and of its bodies, and gives each a name that no other has.

        Args:
            graph: The graph; it is changed.
            shown: The name of the graph that they are shown in; None: they are not.
            prefix: What their names begin with there.
            path: What the graph is inside of.
        """
        from ...graph.index import unique_names

        for node, name in zip(graph.node, unique_names(graph.node), strict=True):
            node.name = name if name not in self.used else f"{name}@{'/'.join(map('/'.join, path))}"
            self.used.add(node.name)
            key = f"{prefix}{node.name}"
            self.nodes[path, name] = shown, key
            for attribute in node.attribute:
                if not attribute.HasField("g"):
                    continue
                inside = (*path, (name, attribute.name))
                if node.op_type == "If":
                    self.add(attribute.g, shown, f"{key}/{attribute.name}/", inside)
                else:
                    self.add(attribute.g, f"{key}/{attribute.name}" if shown == self.main else None, "", inside)


def _places(source: str) -> tuple[Places, bytes | None]:
    """Where the nodes of a file are, and a copy of it with names, where it lacks some or other nodes were compared."""
    if not source.endswith(".onnx") or not os.path.isfile(source):
        return Places(), None
    import onnx

    from ...graph.load import load

    file = onnx.load(source, load_external_data=False)
    compared = load(source).proto
    proto = file if _same_nodes(file, compared) else onnx.ModelProto.FromString(compared.SerializeToString())
    before = file.SerializeToString(deterministic=True)
    proto.graph.name = proto.graph.name or MAIN
    places = Places(proto.graph.name)
    places.add(proto.graph, proto.graph.name)
    if proto.SerializeToString(deterministic=True) == before:
        return places, None
    _drop_external(proto)
    return places, proto.SerializeToString()


def _same_nodes(file: onnx.ModelProto, compared: onnx.ModelProto) -> bool:
    """Whether what was compared are the nodes of the file, in their order: sequences and maps become tensors."""
    nodes = [[(node.op_type, *node.output) for node in proto.graph.node] for proto in (file, compared)]
    return nodes[0] == nodes[1]


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
