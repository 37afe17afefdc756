"""Faults that FP16 makes, planted in small networks: does ``--layers`` name the culprit, on TensorRT and emulated?

    python -m benchmarks.gpu.faults OUT_FILE [--runner trt|emulate] [--tactic-sources NAMES] [--only CASE...] [--engine]

Every case is a network that is right in FP32 and wrong in FP16 because of one known node. A case counts where the
runner really breaks (its verdict is not *pass*): TensorRT may choose FP32 for the node, and then there is nothing to
find. Top 1 means that the first culprit is the node, or a node that fuses with it. ``--engine`` prints, instead of
comparing anything, the layers of each engine with the ONNX nodes and formats that the inspector tells.
"""

# ruff: noqa: D102

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner, Runner, TrtRunner
from layerdiff.graph.load import load
from layerdiff.runners.contract.workload import Workload
from layerdiff.runners.trt import build, inspector
from onnx import TensorProto, helper, numpy_helper

from benchmarks.kit.results import Results, add_options

WIDTH = 128
"""Channels: enough that TensorRT finds FP16 faster than FP32."""


@dataclass
class Net:
    """An ONNX graph written node by node."""

    nodes: list = field(default_factory=list)
    weights: list = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def weight(self, value) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, op: str, name: str, *inputs: str, **attributes) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def conv(self, name: str, x: str, channels: int = WIDTH, scale: float = 1.0) -> str:
        w = self.rng.normal(size=(WIDTH, channels, 3, 3)) * np.sqrt(2 / (9 * channels)) * scale
        return self.op("Conv", name, x, self.weight(w.astype(np.float32)), pads=[1] * 4, kernel_shape=[3, 3])

    def block(self, name: str, x: str, channels: int = WIDTH, scale: float = 1.0) -> str:
        return self.op("Relu", f"{name}_relu", self.conv(name, x, channels, scale))

    def linear(self, name: str, x: str, k: int, n: int, scale: float = 1.0) -> str:
        w = self.rng.normal(size=(k, n)) / np.sqrt(k) * scale
        return self.op("MatMul", name, x, self.weight(w.astype(np.float32)))

    def constant(self, name: str, op: str, x: str, value: float) -> str:
        return self.op(op, name, x, self.weight(np.float32(value)))

    def model(self, x: str, shape: tuple[int, ...]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(x, TensorProto.FLOAT, None)],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


IMAGE = (8, 16, 32, 32)
ROWS = (8, 64, 256)


def image_net(plant: Callable[[Net, str], str], after: int = 2) -> onnx.ModelProto:
    """Two blocks, the planted part, more blocks, pooling, a linear layer."""
    net = Net()
    x = net.block("conv1", "x", 16)
    x = plant(net, net.block("conv2", x))
    for i in range(after):
        x = net.block(f"tail{i}", x)
    x = net.op("Flatten", "flat", net.op("GlobalAveragePool", "pool", x))
    return net.model(net.linear("head", x, WIDTH, 10), IMAGE)


def row_net(plant: Callable[[Net, str], str]) -> onnx.ModelProto:
    """A linear layer, the planted part, a linear layer: rows of 256."""
    net = Net()
    x = net.op("Relu", "first_relu", net.linear("first", "x", 256, 256))
    return net.model(net.linear("last", plant(net, x), 256, 16), ROWS)


def overflow(factor: float, position: int):
    def plant(net: Net, x: str) -> str:
        for i in range(3):
            scale = factor if i == position else 1 / factor if i == position + 1 else 1.0
            x = net.block(f"mid{i}", x, scale=scale)
        return x

    return plant


def underflow(net: Net, x: str) -> str:
    x = net.block("tiny", x, scale=2e-7)
    return net.constant("back2", "Mul", net.constant("back1", "Mul", x, 5e3), 1e3)


def weights_above(net: Net, x: str) -> str:
    x = net.constant("quiet", "Mul", x, 1e-3)
    return net.block("after", net.block("huge", x, scale=1e6), scale=1e-3)


def residual(net: Net, x: str) -> str:
    a, b = net.block("left", x, scale=8.5e3), net.block("right", x, scale=8.5e3)  # each fits FP16, their sum does not
    return net.block("calm", net.op("Relu", "sum_relu", net.op("Add", "sum", a, b)), scale=1e-4)


def linear_overflow(net: Net, x: str) -> str:
    x = net.op("Relu", "wide_relu", net.linear("wide", x, 256, 256, 1e5))
    return net.op("Relu", "narrow_relu", net.linear("narrow", x, 256, 256, 1e-5))


def linear_underflow(net: Net, x: str) -> str:
    x = net.op("Relu", "faint_relu", net.linear("faint", x, 256, 256, 2e-7))
    return net.op("Relu", "strong_relu", net.linear("strong", x, 256, 256, 5e6 / 100))


def log_sum_exp(net: Net, x: str) -> str:
    e = net.op("Exp", "lse_exp", net.constant("lse_shift", "Add", x, 11.0))
    total = net.op("ReduceSum", "lse_sum", e, net.weight(np.array([-1], np.int64)), keepdims=1)
    return net.op("Sub", "lse_sub", net.constant("lse_again", "Add", x, 11.0), net.op("Log", "lse_log", total))


def cancellation(net: Net, x: str) -> str:
    return net.constant("minus", "Sub", net.constant("plus", "Add", net.conv("between", x), 3000.0), 3000.0)


def sum_then_scale(net: Net, x: str) -> str:
    total = net.op("ReduceSum", "total", x, net.weight(np.array([2, 3], np.int64)), keepdims=1)
    mean = net.constant("mean", "Mul", net.constant("lift", "Mul", total, 200.0), 1 / (1024 * 200.0))
    return net.op("Add", "join", x, mean)


def layer_norm(net: Net, x: str) -> str:
    x = net.constant("loud", "Mul", x, 600.0)
    mean = net.op("ReduceMean", "ln_mean", x, axes=[-1], keepdims=1)
    centered = net.op("Sub", "ln_sub", x, mean)
    square = net.op("Mul", "ln_square", centered, centered)
    variance = net.op("ReduceMean", "ln_variance", square, axes=[-1], keepdims=1)
    return net.op("Div", "ln_div", centered, net.op("Sqrt", "ln_sqrt", net.constant("ln_eps", "Add", variance, 1e-5)))


def softmax(net: Net, x: str) -> str:
    e = net.op("Exp", "sm_exp", net.constant("sm_shift", "Add", x, 11.0))
    return net.op(
        "Div", "sm_div", e, net.op("ReduceSum", "sm_sum", e, net.weight(np.array([-1], np.int64)), keepdims=1)
    )


def l2_norm(net: Net, x: str) -> str:
    x = net.constant("loud", "Mul", x, 100.0)
    square = net.op("Mul", "l2_square", x, x)
    total = net.op("ReduceSum", "l2_sum", square, net.weight(np.array([-1], np.int64)), keepdims=1)
    return net.op("Div", "l2_div", x, net.op("Sqrt", "l2_sqrt", total))


def logits(net: Net, x: str) -> str:
    q, k = net.linear("q", x, 256, 256, 60.0), net.linear("k", x, 256, 256, 60.0)
    scores = net.op("MatMul", "scores", q, net.op("Transpose", "kt", k, perm=[0, 2, 1]))
    weights = net.op("Softmax", "weights", net.constant("scale", "Mul", scores, 1e-5), axis=-1)
    return net.op("MatMul", "values", weights, x)


_LN = {"ln_square", "ln_variance", "ln_mean", "ln_sub", "ln_eps", "ln_sqrt", "ln_div"}


def cases() -> dict[str, tuple[onnx.ModelProto, set[str]]]:
    """Name -> (network, nodes of which one has to be named first)."""
    return {
        "overflow, first of three": (image_net(overflow(1e5, 0)), {"mid0", "mid0_relu"}),
        "overflow, second of three": (image_net(overflow(1e5, 1)), {"mid1", "mid1_relu"}),
        "overflow, few elements": (image_net(overflow(2.5e4, 1)), {"mid1", "mid1_relu"}),
        "overflow, late": (image_net(overflow(4e5, 1), after=0), {"mid1", "mid1_relu"}),
        "weights below FP16": (image_net(underflow), {"tiny", "tiny_relu"}),
        "weights above FP16": (image_net(weights_above), {"huge", "huge_relu"}),
        "overflow at a residual": (image_net(residual), {"sum", "sum_relu"}),
        "overflow in a linear layer": (row_net(linear_overflow), {"wide", "wide_relu"}),
        "weights of a linear layer below FP16": (row_net(linear_underflow), {"faint", "faint_relu"}),
        "log-sum-exp without a shift": (row_net(log_sum_exp), {"lse_shift", "lse_exp", "lse_sum", "lse_log"}),
        "cancellation": (image_net(cancellation), {"between", "plus", "minus"}),
        "sum over an image": (image_net(sum_then_scale), {"total", "lift", "mean"}),
        "layer norm of loud rows": (row_net(layer_norm), _LN),
        "softmax without a shift": (row_net(softmax), {"sm_shift", "sm_exp", "sm_sum", "sm_div"}),
        "l2 norm of loud rows": (row_net(l2_norm), {"l2_square", "l2_sum", "l2_sqrt", "l2_div"}),
        "attention scores": (row_net(logits), {"scores", "scale"}),
    }


def data(model: onnx.ModelProto) -> list[dict[str, np.ndarray]]:
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(2)]


def print_engine(name: str, model: onnx.ModelProto, runner: TrtRunner) -> None:
    loaded = load(model)
    with runner.open(loaded, workload=Workload(samples=lambda: iter(data(model)))) as session:
        print(f"{name}: {session.info.options['formats']}", flush=True)
        for layer in session.layers():
            borders = [", ".join(f"{t.name} {t.precision}" for t in side) for side in (layer.inputs, layer.outputs)]
            print(
                f"  {layer.kind}: {' '.join(layer.nodes) or layer.name} | {' -> '.join(borders)} | {layer.tactic[:60]}"
            )
        names = loaded.index.names
        for group in inspector.groups(session.layers(), loaded):
            print(f"  one kernel: {' '.join(names[p] for p in sorted(group))}", flush=True)


class Builds:
    """Counts the engines that are built."""

    def __init__(self) -> None:
        self.count = 0
        self._build = build.build
        build.build = self._counted  # type: ignore[assignment]

    def _counted(self, *args, **options):
        self.count += 1
        return self._build(*args, **options)


def judged(name: str, model: onnx.ModelProto, wanted: set[str], candidate: Runner, builds: Builds) -> dict:
    """One case: what ``--layers`` says, and whether that is right."""
    start, before = time.perf_counter(), builds.count
    report = Comparator(model, [OnnxrtRunner(), candidate], data_loader=data(model), layers="guilty").compare()
    runner = report.candidates[0]
    culprits = [(c.node, c.cause) for c in report.culprits]
    return {
        "case": name,
        "runner": candidate.name,
        "verdict": report.verdict,
        "error": runner.error,
        "top1": bool(culprits) and culprits[0][0] in wanted,
        "culprits": culprits[:4],
        "evidence": report.culprits[0].evidence if report.culprits else "",
        "open_s": runner.open_seconds,
        "seconds": time.perf_counter() - start,
        "builds": builds.count - before,
        "formats": runner.options.get("formats"),
        "rel_l2": [o.metrics.get("rel_l2") if o.metrics else None for o in report.outputs],
        "layers": [
            {"node": x.node, "verdict": x.verdict, "local": (x.local or {}).get("rel_l2"), "z": x.expected}
            for x in report.layers
        ],
        "warnings": list(report.warnings),
        "notes": list(runner.notes),
    }


def row(result: dict) -> list[str]:
    shown = result["error"] or ", ".join(f"{n} ({c})" for n, c in result["culprits"][:2]) or "none"
    times = f"{result['seconds']:.1f} s, build {result['open_s'] or 0:.1f} s, {result['builds']} engines"
    return [result["case"], result["verdict"], "yes" if result["top1"] else "no", shown, times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runner", choices=("trt", "emulate"), default="trt")
    parser.add_argument("--fp16-accumulation", action="store_true", help="emulated products add in FP16")
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose name holds one of these")
    parser.add_argument("--engine", action="store_true", help="print the layers of the engines")
    add_options(parser, limit=500)
    arguments = parser.parse_args()
    builds, results = Builds(), Results(arguments.out, arguments.limit)
    candidate = (
        TrtRunner(fp16=True, tactic_sources=arguments.tactic_sources, optimization_level=arguments.optimization_level)
        if arguments.runner == "trt"
        else EmulateRunner(format="fp16", fp16_accumulation=arguments.fp16_accumulation)
    )
    for name, (model, wanted) in cases().items():
        if not any(part in name for part in arguments.only) or results.over(name):
            continue
        if arguments.engine:
            print_engine(name, model, candidate)
            continue
        results.add(judged(name, model, wanted, candidate, builds))
        print(*row(results.kept[-1]), sep=" | ", flush=True)
    if not arguments.engine:
        broken = [r for r in results.kept if r["verdict"] != "pass"]
        found = sum(r["top1"] for r in broken)
        print(f"{candidate.name}: culprit at top 1 in {found} of {len(broken)} cases that break", flush=True)


if __name__ == "__main__":
    main()
