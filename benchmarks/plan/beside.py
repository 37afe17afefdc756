"""The same networks, data and tolerance through onnxconverter-common's `auto_mixed_precision`.

It keeps nodes by halving, on ONNX Runtime's CPU, which computes FP16 nodes in FP32; its result is judged here as its
types say, as a device computes it. It takes one sample.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import signal
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from layerdiff import EmulateRunner, OnnxrtRunner
from layerdiff.graph.model import Model

LIMIT = 120
"""Seconds after which it is stopped."""


@dataclass(frozen=True)
class Beside:
    """What the other tool did.

    Attributes:
        runs: Sessions that it made of candidates.
        kept: Nodes that it left in FP32; None where it gave up.
        error: Largest relative error of an output as the types of its file say; None where it is not finite.
        seconds: Time that it took.
        failure: Why it gave up.
    """

    runs: int
    kept: int | None
    error: float | None
    seconds: float
    failure: str = ""


def mixed(model: onnx.ModelProto, data: list[dict[str, np.ndarray]], relative: float) -> Beside:
    """Converts a network so that its outputs err by less than ``relative``, as the plan's verdict asks for.

    In a process of its own: some of the files that are tried make ONNX Runtime crash.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_mixed, model.SerializeToString(), data, relative).result()
        except BrokenProcessPool:
            return Beside(0, None, None, 0.0, "ONNX Runtime crashed on its file")


def _mixed(serialized: bytes, data: list[dict[str, np.ndarray]], relative: float) -> Beside:
    model = onnx.ModelProto.FromString(serialized)
    from onnxconverter_common import auto_mixed_precision as tool

    warnings.simplefilter("ignore")
    runs = 0
    original = tool.float16.convert_float_to_float16

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal runs
        runs += 1
        return original(*args, **options)

    def close(expected: list[np.ndarray], found: list[np.ndarray]) -> bool:
        floats = [(e, f) for e, f in zip(expected, found, strict=True) if e.dtype.kind == "f"]
        return all(np.linalg.norm(f - e) <= relative * np.linalg.norm(e) for e, f in floats)

    start, result, failure = time.perf_counter(), None, ""
    tool.float16.convert_float_to_float16 = counted
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            result = tool.auto_convert_mixed_precision(model, data[0], validate_fn=close, keep_io_types=True)
    except Exception as error:  # whatever it raises is what it did
        failure = (str(error).splitlines() or [type(error).__name__])[0][:80]
    finally:
        signal.alarm(0)
        tool.float16.convert_float_to_float16 = original
    seconds = time.perf_counter() - start
    if result is None:
        return Beside(runs, None, None, seconds, failure)
    halves = {t.name for t in result.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    inferred = onnx.shape_inference.infer_shapes(result)
    halves |= {v.name for v in inferred.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
    names = {n.name for n in model.graph.node}
    narrow = {n.name for n in result.graph.node if halves & {*n.input, *n.output} and n.op_type != "Cast"}
    return Beside(runs, len(names - narrow), by_types(model, result, data), seconds)


def by_types(model: onnx.ModelProto, typed: onnx.ModelProto, data: list[dict[str, np.ndarray]]) -> float | None:
    """The largest relative error of an output where the types of a file are law."""
    network = Model(typed)
    runner = EmulateRunner(format="fp16", keep=tuple(network.index.names))
    errors: list[float] = []
    with OnnxrtRunner().open(Model(model)) as plain, runner.open(network) as law:
        for feed in data:
            expected = plain.infer(feed)
            found = law.infer(feed)
            for name, y in expected.items():
                if y.dtype.kind == "f":
                    with np.errstate(all="ignore"):
                        errors.append(float(np.linalg.norm(found[name] - y) / np.linalg.norm(y)))
    worst = max(errors, key=lambda e: np.inf if np.isnan(e) else e)
    return worst if np.isfinite(worst) else None


def _stop(*args: object) -> None:
    raise TimeoutError(f"stopped after {LIMIT} s")
