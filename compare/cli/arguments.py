"""The command line as text: which options there are, and what a command line asks for.

Two rules that argparse alone does not keep: an option never swallows the model (a runner's value is attached with
``=``; only a runner that cannot do without one takes the next word), and runners keep their order and repeats.
Nothing here imports NumPy or ONNX: ``compare --help`` is to be instant.
"""

from __future__ import annotations

import argparse
import difflib
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ... import __version__
from ...graph.errors import UsageError
from ...runners import discover
from ...runners.contract.runner import Runner
from ...runners.contract.workload import ShapeRange
from .runner_arguments import add_options, configure, first_line, hint_at_detached_value, named_classes, take_runners

USAGE = "compare MODEL [MODEL2] --RUNNER[=VALUE] --RUNNER[=VALUE] ... [options]"

DESCRIPTION = "Do several runtimes agree on a network? The most trusted one is the reference, the others are judged."

EPILOG = """\
examples:
  compare model.onnx --onnxrt --emulate fp16      would FP16 do? (no accelerator needed)
  compare model.onnx --trt --fp16 --onnxrt        TensorRT in FP16 against ONNX Runtime
  compare model.engine --trt --onnxrt             an engine against the ONNX file it was built from
  compare frozen.pb --tf --onnxrt                 was the conversion right?
  compare trained.onnx exported.onnx --onnxrt     two files: the first is the reference

exit status: 0 agree, 1 disagree or undecided, 2 wrong usage or unreadable input, 3 a runner failed, 130 interrupted
"""

Number = int | float


@dataclass(frozen=True)
class Request:
    """What a command line asks for."""

    models: tuple[str, ...]
    runners: tuple[Runner, ...]
    reference: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    samples: int | None
    seed: int | None
    float_range: tuple[float, float] | None
    int_range: tuple[int, int] | None
    ranges: Mapping[str, tuple[Number, Number]]
    shapes: Mapping[str, ShapeRange]
    profiles: tuple[Mapping[str, ShapeRange], ...]
    data: str | None
    calibration_data: str | None
    rtol: float | None
    atol: float | None
    tolerances: Mapping[str, tuple[float, float]]
    nan_equal: bool
    labels: str | None
    metric: str | None
    metric_output: str | None
    metric_drop: float | None
    layers: str | None
    memory: int | None
    latency: int
    json: str | None
    save_worst: str | None
    quiet: bool
    verbose: bool
    debug: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message.removeprefix('argument ')}.")


class _Help(argparse.HelpFormatter):
    """Options that take their value with ``=`` alone are shown so."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(shutil.get_terminal_size().columns, 110) - 2)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return getattr(action, "shown", None) or super()._format_action_invocation(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())


def parse(argv: Sequence[str]) -> Request:
    """Reads a command line.

    Raises:
        UsageError: It cannot be understood.
        SystemExit: ``--help`` or ``--version`` was asked for, and has been printed.
    """
    classes = discover()
    words = list(argv)
    classes = {**classes, **named_classes(words)}
    parser = _parser(classes)
    named, words = take_runners(words, classes)
    space, unknown = parser.parse_known_intermixed_args(_attach(words, parser))
    for word in unknown:
        raise UsageError(_unknown(word, parser))
    if space.quiet and space.verbose:
        raise UsageError("-q and -v contradict each other.")
    models = tuple(space.models)
    runners = configure(named, classes, vars(space))
    if not models:
        raise UsageError("no model was named. Usage: " + USAGE)
    if len(models) > 2:
        raise UsageError(f"at most two models are compared; got {len(models)}: {', '.join(models)}.")
    hint_at_detached_value(models, classes)
    shape_sets = _shape_sets(space.shape)
    return Request(
        models=models,
        runners=runners,
        reference=space.reference,
        inputs=_names(space.inputs),
        outputs=_names(space.outputs),
        samples=_at_least("--samples", space.samples, 1),
        seed=_at_least("--seed", space.seed, 0),
        float_range=None if space.float_range is None else _float_range(space.float_range),
        int_range=None if space.int_range is None else _int_range(space.int_range),
        ranges=dict(_named_range(text) for text in space.range),
        shapes=shape_sets[0],
        profiles=shape_sets if shape_sets[1:] else (),
        data=space.data,
        calibration_data=space.calibration_data,
        rtol=_number("--rtol", space.rtol),
        atol=_number("--atol", space.atol),
        tolerances=dict(_named_tolerance(text) for text in space.tolerance),
        nan_equal=space.nan_equal,
        labels=space.labels,
        metric=space.metric,
        metric_output=space.metric_output,
        metric_drop=_number("--metric-drop", space.metric_drop),
        layers=space.layers,
        memory=None if space.memory is None else size(space.memory),
        latency=_at_least("--latency", space.latency, 1) or 0,
        json=space.json,
        save_worst=space.save_worst,
        quiet=space.quiet,
        verbose=space.verbose,
        debug=space.debug,
    )


def _parser(classes: Mapping[str, type[Runner]]) -> _Parser:
    parser = _Parser(
        "compare",
        usage=USAGE,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=_Help,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help=".onnx, frozen .pb, SavedModel, .keras, .h5, or a TensorRT .engine"
    )
    group = parser.add_argument_group("runners (at least two, or one and two models; order and repeats are kept)")
    for flag, cls in classes.items():
        values = "|".join(cls.values) or (cls.value_field.upper() if cls.value_field else "")
        value = f"={values}" if cls.value_required else f"[={values}]" if values else ""
        _shown(group.add_argument(f"--{flag}", help=first_line(cls), default=None), f"--{flag}{value}")
    group.add_argument("--runner", metavar="MODULE:CLASS", help="a runner of your own; may be repeated")
    group.add_argument("--reference", metavar="NAME", help="believe this runner instead of the most trusted")

    group = parser.add_argument_group("data")
    group.add_argument("--data", metavar="PATH", help=".npz, .npy, a folder of samples, .json, or .py with load_data()")
    group.add_argument(
        "--calibration-data", metavar="PATH", help="calibrate INT8 and FP8 on these data instead of those compared"
    )
    group.add_argument("--samples", metavar="N", help="number of samples")
    group.add_argument("--seed", metavar="S", help="seed of random samples")
    group.add_argument("--float-range", metavar="LO,HI", help="range of random floats")
    group.add_argument("--int-range", metavar="LO,HI", help="range of random integers, HI excluded")
    group.add_argument("--range", metavar="NAME:LO,HI", action="append", default=[], help="range of one input")
    group.add_argument(
        "--shape",
        metavar="NAME:DIMS",
        action="append",
        default=[],
        help="shape of one input: 1x3x224x224, or min..opt..max for runtimes that build for a range; "
        "again for the same input: one more optimization profile",
    )
    group.add_argument("--inputs", metavar="A,B", help="inputs of a TensorFlow frozen graph")
    group.add_argument("--outputs", metavar="A,B", help="outputs of a TensorFlow frozen graph")

    group = parser.add_argument_group("verdict (allowed is automatic unless given: atol + rtol * |reference|)")
    group.add_argument("--rtol", metavar="R", help="relative tolerance, with --atol")
    group.add_argument("--atol", metavar="A", help="absolute tolerance, with --rtol")
    group.add_argument(
        "--tolerance", metavar="NAME:R,A", action="append", default=[], help="rtol and atol of one output"
    )
    group.add_argument("--nan-equal", action="store_true", help="NaN equals NaN")

    group = parser.add_argument_group("accuracy (decides where no tolerance can: INT8, FP8)")
    group.add_argument("--labels", metavar="FILE", help="labels of the data: .npy, .npz with one array, or .npz:NAME")
    group.add_argument("--metric", metavar="M", help="top1, top5, or package.module:function(outputs, labels) -> float")
    group.add_argument("--metric-output", metavar="NAME", help="output to measure, where several are float")
    group.add_argument("--metric-drop", metavar="X", help="how much lower than the reference's it may be (0.01)")

    group = parser.add_argument_group("layer by layer")
    _shown(
        group.add_argument("--layers", choices=("guilty", "all"), help="name the guilty layers; =all: every tensor"),
        "--layers[=all]",
    )
    group.add_argument(
        "--memory",
        metavar="SIZE",
        help="memory for one piece, e.g. 512MB; models with more external weights run in pieces",
    )

    for cls in classes.values():
        add_options(parser, cls, classes)

    group = parser.add_argument_group("report")
    group.add_argument("--latency", metavar="N", help="time N runs of each runner, after warm-up")
    group.add_argument("--json", metavar="PATH", help="write the whole report; -: to standard output")
    group.add_argument(
        "--save-worst", metavar="DIR", help="save the worst sample of each candidate as .npz, for --data"
    )
    group.add_argument("-q", "--quiet", action="store_true", help="print the verdict alone")
    group.add_argument("-v", "--verbose", action="store_true", help="print versions, options, times, all statistics")
    group.add_argument("--debug", action="store_true", help="show tracebacks")
    group.add_argument("--version", action="version", version=f"layerdiff {__version__}")
    group.add_argument("-h", "--help", action="help", help="show this text")
    return parser


def _shown(action: argparse.Action, text: str) -> None:
    action.shown = text  # type: ignore[attr-defined]


def _attach(words: Sequence[str], parser: _Parser) -> list[str]:
    """Attaches values that argparse would take for options (``--float-range -1,1``); ``--layers`` takes none."""
    result: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            return [*result, word, *queue]
        action = parser._option_string_actions.get(word)
        if word == "--layers":
            word = "--layers=guilty"
        elif action is not None and action.nargs != 0 and queue and re.match(r"-[\d.]", queue[0]):
            word = f"{word}={queue.pop(0)}"
        result.append(word)
    return result


def _unknown(word: str, parser: _Parser) -> str:
    known = parser._option_string_actions
    flag = word.partition("=")[0]
    if flag in known:
        return f"{flag} takes no value."
    near = difflib.get_close_matches(flag, known, n=1)
    return f"unknown option {flag}" + (f"; did you mean {near[0]}?" if near else ". See compare --help.")


# ---- values ---------------------------------------------------------------------------------------------------------


def split_name(option: str, text: str, form: str) -> tuple[str, str]:
    """Splits ``NAME:VALUE`` or ``NAME=VALUE`` at the last separator: names may hold colons, values hold neither.

    Raises:
        UsageError: There is no separator or no name.
    """
    at = max(text.rfind(":"), text.rfind("="))
    if at < 1:
        raise UsageError(f"{option} {text}: expected {form}.")
    return text[:at], text[at + 1 :]


def size(text: str) -> int:
    """Bytes of ``512MB``, ``2GiB``, ``1.5G`` or a bare number. Decimal prefixes unless there is an ``i``.

    Raises:
        UsageError: It is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    value = 0
    if match:
        base = 1024 if match[3] else 1000
        value = int(float(match[1]) * base ** " kmgt".index(match[2].lower() or " "))
    if not value:
        raise UsageError(f"--memory {text}: expected a size such as 512MB or 2GiB.")
    return value


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def _at_least(option: str, text: str | None, least: int) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[+-]?\d+", text) or int(text) < least:
        raise UsageError(f"{option} {text}: expected a whole number, {least} or more.")
    return int(text)


def _number(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option} {text}: expected a number.") from None


def _pair(option: str, text: str, form: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text}: expected {form}.") from None
    return low, high


def _ordered(option: str, text: str, low: Number, high: Number) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(f"{option} {text}: the ends of a range must be finite.")
    if low > high:
        raise UsageError(f"{option} {text}: the range is empty, {low} is more than {high}.")


def _float_range(text: str) -> tuple[float, float]:
    low, high = _pair("--float-range", text, "LO,HI, two numbers")
    _ordered("--float-range", text, low, high)
    return low, high


def _int_range(text: str) -> tuple[int, int]:
    try:
        low, high = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--int-range {text}: expected LO,HI, two whole numbers.") from None
    _ordered("--int-range", text, low, high)
    return low, high


def _named_range(text: str) -> tuple[str, tuple[Number, Number]]:
    name, value = split_name("--range", text, "NAME:LO,HI")
    parts = value.split(",")
    if len(parts) == 2 and all(re.fullmatch(r"\s*[+-]?\d+\s*", part) for part in parts):
        low: Number = int(parts[0])
        high: Number = int(parts[1])  # exact, beyond 2^53 too
    else:
        low, high = _pair("--range", value, "NAME:LO,HI, two numbers")
    _ordered("--range", text, low, high)
    return name, (low, high)


def _named_tolerance(text: str) -> tuple[str, tuple[float, float]]:
    name, value = split_name("--tolerance", text, "NAME:RTOL,ATOL")
    return name, _pair("--tolerance", value, "NAME:RTOL,ATOL, two numbers")


def _shape_sets(texts: Sequence[str]) -> tuple[Mapping[str, ShapeRange], ...]:
    """Shape ranges of inputs: an input that is named several times has one range for each optimization profile."""
    named: dict[str, list[ShapeRange]] = {}
    for text in texts:
        name, shape = _named_shape(text)
        named.setdefault(name, []).append(shape)
    count = max(map(len, named.values()), default=1)
    for name, shapes in named.items():
        if len(shapes) not in (1, count):
            most = next(n for n, found in named.items() if len(found) == count)
            raise UsageError(
                f"--shape names {count} profiles for {most} and {len(shapes)} for {name}: "
                f"give {name} once, for all of them, or {count} times."
            )
    return tuple({name: shapes[min(k, len(shapes) - 1)] for name, shapes in named.items()} for k in range(count))


def _named_shape(text: str) -> tuple[str, ShapeRange]:
    name, value = split_name("--shape", text, "NAME:1x3x224x224 or NAME:MIN..OPT..MAX")
    parts = value.split("..")
    if not all(re.fullmatch(r"(\d+(x\d+)*)?", part) for part in parts) or len(parts) not in (1, 3):
        raise UsageError(f"--shape {text}: expected NAME:1x3x224x224, or three of them, NAME:MIN..OPT..MAX.")
    dims = [tuple(int(d) for d in part.split("x")) if part else () for part in parts]
    low, best, high = dims if len(dims) == 3 else dims * 3
    if not len(low) == len(best) == len(high) or not all(a <= b <= c for a, b, c in zip(low, best, high, strict=True)):
        raise UsageError(f"--shape {text}: min, opt and max need the same rank, and min <= opt <= max everywhere.")
    return name, ShapeRange(low, best, high)
