"""The networks of the benchmark, copies of them with one weight changed, and as they are emulated."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS, WIDTH, HEADS, LENGTH = 6, 512, 8, 128


def encoder(path: Path) -> None:
    """Writes a transformer encoder with random weights: 6 layers, 512 wide, 8 heads, 128 tokens, opset 17."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    def op(kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], f"{name}/{kind}", **attributes))
        return name

    def linear(x: str, name: str, rows: int, columns: int) -> str:
        w = rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(math.sqrt(rows))
        b = 0.02 * rng.standard_normal(columns, dtype=np.float32)
        product = op("MatMul", [x, constant(f"{name}.w", w)], f"{name}.p")
        return op("Add", [product, constant(f"{name}.b", b)], name)

    def norm(x: str, name: str) -> str:
        scale = constant(f"{name}.g", 1 + 0.1 * rng.standard_normal(WIDTH, dtype=np.float32))
        return op("LayerNormalization", [x, scale, constant(f"{name}.o", np.zeros(WIDTH, np.float32))], name, axis=-1)

    shape = constant("heads", np.array([0, LENGTH, HEADS, WIDTH // HEADS], np.int64))
    back = constant("together", np.array([0, LENGTH, WIDTH], np.int64))
    root, half, one, two = (constant(f"c{v}", np.float32(v)) for v in (math.sqrt(WIDTH / HEADS), 0.5, 1, math.sqrt(2)))
    x = "x"
    for layer in range(LAYERS):
        at = f"l{layer}"
        q, k, v = (
            op(
                "Transpose",
                [op("Reshape", [linear(x, f"{at}.{n}", WIDTH, WIDTH), shape], f"{at}.{n}.r")],
                f"{at}.{n}.t",
                perm=[0, 2, 3, 1] if n == "k" else [0, 2, 1, 3],
            )
            for n in "qkv"
        )
        scores = op("Div", [op("MatMul", [q, k], f"{at}.qk"), root], f"{at}.s")
        mixed = op("MatMul", [op("Softmax", [scores], f"{at}.a", axis=-1), v], f"{at}.av")
        mixed = op("Reshape", [op("Transpose", [mixed], f"{at}.m", perm=[0, 2, 1, 3]), back], f"{at}.j")
        x = norm(op("Add", [linear(mixed, f"{at}.o", WIDTH, WIDTH), x], f"{at}.x1"), f"{at}.n1")
        y = linear(x, f"{at}.up", WIDTH, 4 * WIDTH)
        gate = op("Add", [op("Erf", [op("Div", [y, two], f"{at}.e0")], f"{at}.e1"), one], f"{at}.e2")
        y = op("Mul", [op("Mul", [y, gate], f"{at}.e3"), half], f"{at}.gelu")
        x = norm(op("Add", [linear(y, f"{at}.down", 4 * WIDTH, WIDTH), x], f"{at}.x2"), f"{at}.n2")
    op("Identity", [x], "y")
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", LENGTH, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", LENGTH, WIDTH])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def changed(path: Path, other: Path, weight: str) -> str:
    """Writes a copy of a model in which one number of a weight differs; returns the node that reads it."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == weight)
    values = numpy_helper.to_array(tensor).copy()
    values[(values.shape[0] // 2, *(0,) * (values.ndim - 1))] += 0.5
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, other)
    return next(node.name for node in model.graph.node if tensor.name in node.input)


def emulated(path: Path, other: Path, fmt: str, feed: dict[str, np.ndarray]) -> None:
    """Writes the graph that an emulation of a model runs, for the floor."""
    from layerdiff.graph.load import load
    from layerdiff.runners.contract.workload import Workload
    from layerdiff.runners.emulate import EmulateRunner

    model = load(path)
    runner = EmulateRunner(format=fmt).calibrated(model, Workload(samples=lambda: iter([feed])))
    other.write_bytes(runner.rewritten(model).model.serialized())


def tensor_bytes(path: Path, shape: tuple[int, ...]) -> int:
    """Bytes of all tensors of a network of one input x, both sides."""
    from layerdiff.graph.cutting.propagate import propagate
    from layerdiff.graph.load import load

    model = load(path)
    shapes = propagate(model, {"x": shape})
    made = [o for node in model.proto.graph.node for o in node.output]
    return 2 * sum(4 * int(np.prod(shapes[name])) for name in made if shapes.get(name))
