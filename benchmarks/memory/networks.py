"""Networks whose size is what matters: more weights than memory, more samples, more layers.

External weights are written straight into their file, block by block, so that making a network takes no more memory
than one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BLOCK_ROWS = 1024
"""Rows of a weight matrix that are drawn anew; the rows behind them repeat these, rolled and scaled."""


def large_pair(folder: Path, *, layers: int, width: int, stale: int) -> tuple[Path, Path]:
    """A network of square matrix products with external weights, and a candidate of which one layer is stale.

    Odd layers are MatMul, Add, Relu, even ones Gemm (transposed weights), Relu. The candidate reads the same file of
    weights, but for the matrix of layer ``stale``: a file of its own holds that one rounded to FP16.

    Args:
        folder: Where the files go; it must exist.
        layers: Number of matrix products.
        width: Rows and columns of each; ``4 * width**2`` bytes.
        stale: The layer of which the candidate's weights differ, from 0.

    Returns:
        Paths of the reference and of the candidate.
    """
    rng = np.random.default_rng(0)
    block = rng.standard_normal((min(BLOCK_ROWS, width), width), np.float32) * np.float32((2 / width) ** 0.5)
    size = 4 * width * width
    with (folder / "weights.bin").open("wb") as file:
        for layer in range(layers):
            for rows in _rows(block, layer, width):
                file.write(rows.tobytes())
    with (folder / "stale.bin").open("wb") as file:
        for rows in _rows(block, stale, width):
            file.write(rows.astype(np.float16).astype(np.float32).tobytes())
    paths = folder / "big.onnx", folder / "big_candidate.onnx"
    for path in paths:
        places = [("weights.bin", layer * size) for layer in range(layers)]
        if path is paths[1]:
            places[stale] = ("stale.bin", 0)
        onnx.save(_products(places, width), path)
    return paths


def _rows(block: np.ndarray, layer: int, width: int) -> Iterator[np.ndarray]:
    """The weights of a layer: no two layers, and no two stretches of a layer, are the same."""
    for part, start in enumerate(range(0, width, len(block))):
        scale = np.float32(1 + 0.03 * np.sin(1.0 + layer + 7 * part))
        yield np.roll(block[: width - start], 131 * layer + 17 * part, axis=1) * scale


def _products(places: list[tuple[str, int]], width: int) -> onnx.ModelProto:
    nodes, weights = [], []
    last = "input"
    bias = np.random.default_rng(1).standard_normal((len(places), width), np.float32) * np.float32(0.1)
    for layer, (location, offset) in enumerate(places):
        w, b = f"w{layer}", f"b{layer}"
        weights += [_external(w, width, location, offset), numpy_helper.from_array(bias[layer], b)]
        if layer % 2:
            nodes.append(helper.make_node("MatMul", [last, w], [f"product{layer}"], f"product{layer}"))
            nodes.append(helper.make_node("Add", [f"product{layer}", b], [f"sum{layer}"], f"sum{layer}"))
        else:
            nodes.append(helper.make_node("Gemm", [last, w, b], [f"sum{layer}"], f"product{layer}", transB=1))
        last = f"relu{layer}"
        nodes.append(helper.make_node("Relu", [f"sum{layer}"], [last], last))
    nodes.append(helper.make_node("Identity", [last], ["output"], "output"))
    return _model(nodes, [["batch", width], ["batch", width]], weights)


def _external(name: str, width: int, location: str, offset: int) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=(width, width))
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(4 * width * width))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def convolutions(*, layers: int, channels: int, size: int, batch: int = 8, seed: int = 0) -> onnx.ModelProto:
    """A residual network of 3x3 convolutions, each with BatchNormalization and Relu.

    Args:
        layers: Number of convolutions; every second one closes a residual block.
        channels: Channels of each.
        size: Height and width of the input.
        batch: Entries of a sample.
        seed: Of the weights.
    """
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(name: str, values: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    nodes.append(
        helper.make_node("Conv", ["input", weight("stem", rng.normal(0, 0.3, (channels, 3, 1, 1)))], ["x"], "stem")
    )
    last = shortcut = "x"
    for i in range(layers):
        w = weight(f"w{i}", rng.normal(0, (2 / (9 * channels)) ** 0.5, (channels, channels, 3, 3)))
        nodes.append(helper.make_node("Conv", [last, w], [f"conv{i}"], f"conv{i}", pads=[1, 1, 1, 1]))
        factors = [
            weight(f"{kind}{i}", values)
            for kind, values in (
                ("scale", rng.uniform(0.5, 0.9, channels) * (0.3 if i % 2 else 1)),  # blocks add up: small ones
                ("shift", rng.normal(0, 0.1, channels)),
                ("mean", rng.normal(0, 0.1, channels)),
                ("variance", rng.uniform(0.8, 1.2, channels)),
            )
        ]
        last = f"norm{i}"
        nodes.append(helper.make_node("BatchNormalization", [f"conv{i}", *factors], [last], last))
        if i % 2:
            nodes.append(helper.make_node("Add", [last, shortcut], [f"add{i}"], f"add{i}"))
            last = f"add{i}"
        nodes.append(helper.make_node("Relu", [last], [f"relu{i}"], f"relu{i}"))
        last = f"relu{i}"
        if i % 2:
            shortcut = last
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["output"], "flatten"))
    return _model(nodes, [[batch, 3, size, size], [batch, channels]], weights)


def with_stale_layer(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """A copy in which the weight ``name`` was rounded to FP16, so that the pair really differs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (tensor,) = (t for t in copy.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return copy


def _model(
    nodes: list[onnx.NodeProto], shapes: list[list[int | str]], weights: list[onnx.TensorProto]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shapes[0])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shapes[1])],
        weights,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
