"""``layerdiff extract model.onnx -o part.onnx``: what lies between some tensors, as a model."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ...graph.errors import UsageError
from ...graph.printable import printable
from .arguments import Parser
from .delivery import verdict_shown
from .ending import standard_output_kept
from .reading import Reads
from .report_options import check_outputs

if TYPE_CHECKING:
    from ...graph.cutting.slices import Slice
    from ...graph.model import Model

DESCRIPTION = "Writes what lies between some tensors of a network as a model of its own, weights and all."
EPILOG = """\
examples:
  layerdiff extract model.onnx -o head.onnx --from features --to logits
  layerdiff extract model.onnx -o stem.onnx --to relu1                      from the inputs on
  layerdiff extract model.onnx -o head.onnx --from features --data inputs.npz --save-inputs head.npz
          with what it is fed, for --data
"""


def run(words: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    Raises:
        UsageError: The words cannot be understood, a tensor is not there, or a file cannot be read or written.
    """
    given = parser().parse_args(list(words))
    if (given.data is None) != (given.save_inputs is None):
        raise UsageError("--data and --save-inputs go together: one is what the whole network is fed, one the part.")
    import onnx

    from ...graph.cutting.slices import slice_model
    from ...graph.load import load
    from ..comparison import check_form
    from ..report.files import writing

    if given.save_inputs is not None:
        check_form(given.save_inputs)
    outputs = [("-o", given.output), ("--save-inputs", given.save_inputs)]
    check_outputs(
        [(flag, path) for flag, path in outputs if path is not None], (), Reads.of([given.model], [given.data])
    )
    model = load(given.model)
    start, to = given.start or [], given.to or [spec.name for spec in model.outputs]
    part = between(model, start, to)
    made = slice_model(model, part, model.index.specs).contained()
    with writing("-o", given.output):
        onnx.save(made.proto, given.output)
    with verdict_shown("layerdiff extract"):
        inputs = printable(", ".join(part.inputs))
        print(f"{given.output}: {len(part.nodes)} of {len(model.index.nodes)} nodes, from {inputs}")
    if given.data is not None:
        count = _save_inputs(model, made, given.data, given.save_inputs)
        with verdict_shown("layerdiff extract"):
            print(f"{given.save_inputs}: {count} sample{'s'[: count != 1]}")
    return 0


def parser() -> Parser:
    """The command's options."""
    made = Parser("layerdiff extract", DESCRIPTION, EPILOG)
    made.add_argument("model", metavar="MODEL", help=".onnx, frozen .pb, SavedModel, .keras, .h5, .tflite")
    made.add_argument("-o", "--output", metavar="ONNX", required=True, help="the file to write")
    made.add_argument("--from", dest="start", nargs="+", action="extend", metavar="TENSOR", help="what is given")
    made.add_argument("--to", nargs="+", action="extend", metavar="TENSOR", help="what is made (default: the outputs)")
    made.add_argument("--data", metavar="PATH", help="inputs of the whole network, for --save-inputs")
    made.add_argument("--save-inputs", metavar="PATH", help="save what the part is fed on the data, as compare does")
    made.add_argument("--debug", action="store_true", help="show tracebacks")
    made.add_argument("-h", "--help", action="help", help="show this text")
    return made


def between(model: Model, start: Sequence[str], to: Sequence[str]) -> Slice:
    """The nodes between some tensors.

    Args:
        model: The whole model.
        start: Tensors that are given; what does not depend on them is read from the model's inputs.
        to: Tensors that are made.

    Raises:
        UsageError: The model has no such tensor, or what is made does not depend on what is given.
    """
    from ...graph.cutting.slices import backward

    index = model.index
    _check("--from", start, {*index.producer, *index.inputs}, model.source)
    _check("--to", to, index.producer, model.source)
    part = backward(index, to, {*start})
    unread = [name for name in start if name not in part.inputs]
    if unread:
        raise UsageError(f"--from {unread[0]}: {', '.join(to)} {'does' if len(to) == 1 else 'do'} not depend on it.")
    return part


def _check(option: str, names: Sequence[str], known: Collection[str], source: str) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f". layerdiff inspect {source} --nodes lists them."
            raise UsageError(f"{option} {name}: {source} makes no such tensor{hint}")


@standard_output_kept()
def _save_inputs(model: Model, part: Model, data: str, path: str) -> int:
    """Writes what a part is fed while the whole network runs on some inputs, and returns on how many."""
    from ...dataloaders import as_source, open_data
    from ...runners.onnxrt.runner import OnnxrtRunner
    from ..runs.recording import save_inputs

    names = [spec.name for spec in part.inputs]
    inner = [name for name in names if name in model.index.producer]
    with OnnxrtRunner().session(model, fetch=inner) as session:
        fed = []
        for sample in open_data(data).bind(model):
            values = {**sample, **(session.infer(sample, inner) if inner else {})}
            fed.append({name: values[name] for name in names})
    save_inputs(as_source(fed).bind(part), path)
    return len(fed)
