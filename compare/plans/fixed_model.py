"""The network with a plan written into it: Casts around what is kept (FP16, BF16), or Q/DQ nodes where it is not.

The file stands without this project: same inputs and outputs, and types that runtimes take as law (strongly typed
TensorRT 10 and 11), or compute as they can (ONNX Runtime).
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from ...graph.errors import LayerdiffError, OutputError, UsageError, first_line
from ...graph.model import Model
from ...graph.rounding.round_array import SCALED, STORAGE
from ..report.files import write, writing
from ..report.plan import FixedModel, Trial
from .bench import Bench

if TYPE_CHECKING:
    from ...runners.contract.runner import Runner
    from ..report.plan import Plan

LARGEST = 2**31 - 2**20
"""Most bytes of one file; weights of larger networks go beside it."""


def fixed_model(model: Model, fmt: str, keep: tuple[str, ...], runner: Runner) -> Model:
    """A network whose types, or Q/DQ nodes, are those of a plan.

    Args:
        model: The network in FP32.
        fmt: The plan's narrow format.
        keep: Names of the nodes that stay FP32.
        runner: Knows the ranges of activations, where the format needs some.

    Raises:
        UsageError: The format is one that no type of ONNX stands for, or nothing can be written in it.
    """
    if fmt in STORAGE:
        from ...graph.rounding.typed import typed

        return typed(model, fmt, keep).model
    if fmt in SCALED and runner.activation_ranges is not None:
        from ...graph.rounding.qdq import quantize

        return quantize(model, "int8" if fmt == "int8" else "fp8", runner.activation_ranges, keep).model
    raise UsageError(f"--fixed-model: no types of ONNX stand for {fmt.upper()}; --plan and the exports apply the plan.")


def write_fixed(bench: Bench, plan: Plan, runner: Runner, path: str) -> FixedModel:
    """Writes the network with a plan in it, checks it, and runs it as its types say.

    Args:
        bench: The candidate, the samples, and what the reference gave.
        plan: The plan.
        runner: See `fixed_model`.
        path: Where to.

    Raises:
        UsageError: The file cannot be written, or would replace the network itself; see `fixed_model`.
    """
    model = bench.candidate.model
    fixed = fixed_model(model, plan.format, plan.keep, runner)
    write_model(fixed, path, "--fixed-model", model.source)
    return FixedModel(path, _by_its_types(bench, fixed, runner))


def write_model(model: Model, path: str, flag: str, source: str) -> None:
    """Writes a network and checks what was written; weights go beside it where one file cannot hold them.

    Args:
        model: The network.
        path: Where to.
        flag: The option that named the file, for messages.
        source: The file that it was made from.

    Raises:
        UsageError: It cannot be written, would replace what it was made from, or ONNX refuses it.
    """
    if os.path.realpath(path) == os.path.realpath(source):
        raise UsageError(f"{flag} {path}: that is the network itself, which the changed one would replace.")
    proto = model.copied()
    if proto.ByteSize() > LARGEST:
        with writing(flag, path):
            _write_apart(proto, Path(path))
    else:
        write(proto.SerializeToString(), path, flag)
    try:
        if os.path.isfile(path):
            onnx.checker.check_model(path)
    except onnx.checker.ValidationError as error:
        raise OutputError(f"{flag} {path}: ONNX refuses what was written: {first_line(error)}.") from error


def _write_apart(proto: onnx.ModelProto, path: Path) -> None:
    """Writes a network, and its weights beside it: both files are there whole, or neither."""
    location = f"{path.name}.data"
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        made = Path(folder) / path.name
        onnx.save_model(proto, made, save_as_external_data=True, location=location)
        for file in (made.with_name(location), made):  # the weights first: no network without them
            file.replace(path.with_name(file.name))


def _by_its_types(bench: Bench, fixed: Model, runner: Runner) -> Trial:
    """What the network gives where its types are law, judged as the candidate is."""
    from ...runners.emulate import EmulateRunner

    start = time.perf_counter()
    names = tuple(fixed.index.names)  # nothing rounds but what the types of the file say
    law = EmulateRunner(format=runner.arithmetic.name, keep=names, ranges=())
    try:
        outputs = bench.judged(law, model=fixed)
    except LayerdiffError as error:
        return Trial((), (), time.perf_counter() - start, first_line(error))
    return Trial((), outputs, time.perf_counter() - start)
