"""Networks of at most twelve layers, and the cheapest plan that there is for each, found by trying all that cost less.

Sets of layers are run in the order of their costs until one passes. A set within one that failed is not run: keeping
less does not help.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare.plans.bench import Bench
from layerdiff.compare.plans.layers import Layers, layers_of
from layerdiff.compare.runs.streaming import execute
from layerdiff.graph.cutting.propagate import propagate
from onnx import helper, numpy_helper

from .running import Planned, planned

SIZE = 24
WHICH = [
    ("fp16", "overflow", 8),
    ("fp16", "overflow", 10),
    ("fp16", "underflow", 8),
    ("fp16", "cancellation", 10),
    ("fp16", "tolerance", 8),
    ("fp16", "tolerance", 10),
    ("bf16", "tolerance", 8),
    ("bf16", "tolerance", 10),
    ("bf16", "cancellation", 9),
    ("int8", "tolerance", 8),
    ("int8", "tolerance", 10),
    ("int8", "outliers", 9),
]


def network(kind: str, layers: int, seed: int) -> onnx.ModelProto:
    """A chain of products of different width with Tanh and residual sums between them, and one planted weakness."""
    rng = np.random.default_rng(seed)
    widths = [SIZE, *(int(w) for w in rng.choice([16, 24, 48, 96], layers - 1)), SIZE]
    nodes, weights, x = [], {}, "x"
    gains = np.ones(layers)
    place = int(rng.integers(1, layers - 2))
    if kind == "overflow":
        gains[place], gains[place + 1] = 2e6, 5e-7
    elif kind == "underflow":
        gains[place], gains[place + 1] = 1e-8, 1e8
    for i in range(layers):
        scale = gains[i] * rng.uniform(0.7, 1.6) / np.sqrt(widths[i])
        weights[f"w{i}"] = (rng.normal(0, scale, (widths[i], widths[i + 1]))).astype(np.float32)
        if kind == "outliers" and i == place:
            weights[f"w{i}"][:, 0] *= 60
        nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"], name=f"/fc{i}/MatMul"))
        x = f"m{i}"
        if kind == "cancellation" and i == place:
            weights["large"] = np.full(1, 300, np.float32)
            nodes.append(helper.make_node("MatMul", [x, f"e{i}"], [f"n{i}"], name=f"/shift{i}/MatMul"))
            weights[f"e{i}"] = (300 * np.eye(widths[i + 1])).astype(np.float32)
            nodes.append(helper.make_node("Identity", [f"n{i}"], [f"k{i}"], name=f"/shift{i}/Identity"))
            weights[f"f{i}"] = ((1 - 1 / 40) * 300 * np.eye(widths[i + 1])).astype(np.float32)
            nodes.append(helper.make_node("MatMul", [x, f"f{i}"], [f"o{i}"], name=f"/unshift{i}/MatMul"))
            nodes.append(helper.make_node("Sub", [f"n{i}", f"o{i}"], [f"d{i}"], name=f"/difference{i}/Sub"))
            x = f"d{i}"
        if gains[i] == 1 and i + 1 < layers and kind not in ("outliers",):
            nodes.append(helper.make_node("Tanh", [x], [f"t{i}"], name=f"/act{i}/Tanh"))
            x = f"t{i}"
    nodes.append(helper.make_node("Identity", [x], ["y"], name="/out"))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        kind,
        [info("x", onnx.TensorProto.FLOAT, [32, SIZE])],
        [info("y", onnx.TensorProto.FLOAT, [32, SIZE])],
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def samples(seed: int) -> list[dict[str, np.ndarray]]:
    """Two samples."""
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(0, 1, (32, SIZE)).astype(np.float32)} for _ in range(2)]


def rules(model: onnx.ModelProto, data: list[dict[str, np.ndarray]], kind: str, fmt: str) -> dict[str, Any]:
    """None where a fault is to fail by itself; else half of the error that the format makes."""
    if kind in ("overflow", "underflow") and fmt != "int8":
        return {}
    report = Comparator(model, [OnnxrtRunner(), EmulateRunner(format=fmt)], data_loader=data).compare()
    metrics = report.outputs[0].metrics
    assert metrics is not None
    return {"rtol": 0.0, "atol": 0.5 * float(metrics["max_abs"])}


def cheapest(
    model: onnx.ModelProto, data: list[dict[str, np.ndarray]], fmt: str, given: dict[str, Any]
) -> tuple[Layers, frozenset[int] | None, int]:
    """The layers, the cheapest set of them that passes, and how many sets were run."""
    comparison = Comparator(model, [OnnxrtRunner(), EmulateRunner(format=fmt)], data_loader=data, **given).prepare()
    log = execute(comparison, lambda sides: lambda side, number, outputs: None)
    (side,) = comparison.candidates
    shapes = propagate(side.model, {name: a.shape for name, a in data[0].items()})
    layers = layers_of(side.model.index, fmt, shapes.get)
    runner = side.runner.calibrated(side.model, comparison.workload)
    failed: list[frozenset[int]] = []
    runs = 0
    with Bench(comparison, log, side) as bench:
        for kept in by_cost(layers):
            if any(kept <= other for other in failed):
                continue
            runs += 1
            trial = bench.judged(runner.keeping(layers.names(kept)))
            if all(output.verdict == "pass" for output in trial):
                return layers, kept, runs
            failed = [other for other in failed if not other <= kept] + [kept]
    return layers, None, runs


def by_cost(layers: Layers) -> Iterator[frozenset[int]]:
    """Every set of layers, the cheapest first."""
    count = len(layers.all)
    sets = (frozenset(i for i in range(count) if bits >> i & 1) for bits in range(1 << count))
    queue = [(layers.cost(kept), number, kept) for number, kept in enumerate(sets)]
    heapq.heapify(queue)
    while queue:
        yield heapq.heappop(queue)[2]


def measured() -> Iterator[tuple[Planned, float | None, int]]:
    """Plans beside the cheapest: the plan, its cost over the least, and how many sets it took to know the least."""
    for number, (fmt, kind, count) in enumerate(WHICH):
        model, data = network(kind, count, number), samples(number)
        given = rules(model, data, kind, fmt)
        found = planned(f"{fmt}, {kind}, {count} products", model, data, fmt, **given)
        layers, best, runs = cheapest(model, data, fmt, given)
        if found.plan.status != "found" or best is None:
            yield found, None, runs
            continue
        kept = layers.holding([layer.node for layer in found.plan.kept])
        least = layers.cost(best)
        yield found, layers.cost(kept) / least if least else 1.0, runs
