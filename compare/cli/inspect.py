"""``layerdiff inspect model.onnx``: inputs, outputs, layers, ranges."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .arguments import Parser
from .delivery import answer_shown
from .ending import standard_output_kept
from .reading import Reads
from .report_options import check_reports

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..overview import Extent, Overview

DESCRIPTION = "Shows what a network is made of: inputs with the values that they take, outputs, layers, weights."
EPILOG = """\
A TensorFlow or TFLite file is shown as the ONNX graph that it is converted to.

examples:
  layerdiff inspect model.onnx                        layers, as a runtime is expected to fuse them
  layerdiff inspect model.onnx --data inputs.npz      with the range of values that each makes: would FP16 hold them?
  layerdiff inspect model.onnx --nodes --json -       every node, for programs
"""


def run(words: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    Raises:
        UsageError: The words cannot be understood, or a file cannot be read.
    """
    given = parser().parse_args(list(words))
    if given.json is not None:
        check_reports([("--json", given.json)], Reads.of([given.model], [given.data]))
    from ...graph.load import load
    from ..overview import overview
    from ..report.files import write

    model = load(given.model)
    found = overview(model, given.nodes, _measured(model, given.data) if given.data else None)
    if given.json is not None:
        with answer_shown():
            write(json.dumps(plain(found), indent=1, allow_nan=False) + "\n", given.json, "--json")
    if given.json != "-":
        from ..report.escaped import escaped
        from ..report.terminal.overview import show_overview
        from ..report.terminal.progress import console

        with answer_shown():
            show_overview(escaped(found), console())
    return 0


def parser() -> Parser:
    """The command's options."""
    made = Parser("layerdiff inspect", DESCRIPTION, EPILOG)
    made.add_argument("model", metavar="MODEL", help=".onnx, frozen .pb, SavedModel, .keras, .h5, .tflite")
    made.add_argument("--nodes", action="store_true", help="every node, not only what is run as one kernel")
    made.add_argument("--data", metavar="PATH", help="run these inputs on ONNX Runtime and show ranges of values")
    made.add_argument("--json", metavar="PATH", help="write it as JSON; -: to standard output")
    made.add_argument("--debug", action="store_true", help="show tracebacks")
    made.add_argument("-h", "--help", action="help", help="show this text")
    return made


@standard_output_kept()
def _measured(model: Model, path: str) -> dict[str, Extent]:
    """The extents of the tensors that leave layers, on stored inputs."""
    from ...dataloaders import open_data
    from ...runners.onnxrt.runner import OnnxrtRunner
    from ..overview import extents, observed

    names = list(observed(model))
    samples = open_data(path).bind(model)
    with OnnxrtRunner().session(model, fetch=names) as session:
        return extents(session.infer(sample, names) for sample in samples)


def plain(found: Overview) -> dict[str, Any]:
    """An overview as JSON holds it."""

    def spec(item: Any) -> dict[str, Any]:
        return {"name": item.name, "dtype": str(item.dtype), "shape": None if item.shape is None else list(item.shape)}

    layers = []
    for layer in found.layers:
        fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)}
        ranges = {n: fields[n] and dataclasses.asdict(fields[n]) for n in ("weight_extent", "extent")}
        layers.append({**fields, **ranges, "nodes": list(layer.nodes), "spec": layer.spec and spec(layer.spec)})
    return {
        "source": found.source,
        "converted": found.converted,
        "nodes": found.nodes,
        "opset": dict(found.opset),
        "producer": found.producer,
        "weights": {"values": found.weights[0], "bytes": found.weights[1]},
        "inputs": [{**spec(item), "values": implied} for item, implied in found.inputs],
        "outputs": [spec(item) for item in found.outputs],
        "layers": layers,
    }
