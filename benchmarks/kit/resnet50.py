"""ResNet-50 with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def resnet50(path: Path) -> None:
    """Writes ResNet-50 with random weights (He, damped last scale in each block), opset 17."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def conv(x: str, name: str, cin: int, cout: int, size: int, stride: int, gain: float = 1.0) -> str:
        w = rng.standard_normal((cout, cin, size, size)) * np.sqrt(2 / (cin * size * size))
        pads = [size // 2] * 4
        nodes.append(
            helper.make_node(
                "Conv", [x, weight(f"{name}.w", w)], [f"{name}.c"], f"{name}/conv", strides=[stride] * 2, pads=pads
            )
        )
        scale = gain * (1 + 0.1 * rng.standard_normal(cout))
        parts = (scale, 0.1 * rng.standard_normal(cout), 0.1 * rng.standard_normal(cout), rng.uniform(0.5, 1.5, cout))
        names = [weight(f"{name}.bn{i}", part) for i, part in enumerate(parts)]
        nodes.append(helper.make_node("BatchNormalization", [f"{name}.c", *names], [f"{name}.b"], f"{name}/bn"))
        return f"{name}.b"

    def op(kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], f"{name}/{kind}", **attributes))
        return name

    x = op("Relu", [conv("x", "stem", 3, 64, 7, 2)], "stem.r")
    x = op("MaxPool", [x], "stem.p", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(blocks):
            name, stride = f"s{stage}b{block}", 2 if block == 0 and stage > 1 else 1
            y = op("Relu", [conv(x, f"{name}.1", channels, width, 1, 1)], f"{name}.1r")
            y = op("Relu", [conv(y, f"{name}.2", width, width, 3, stride)], f"{name}.2r")
            y = conv(y, f"{name}.3", width, 4 * width, 1, 1, 0.3)
            if block == 0:
                x = conv(x, f"{name}.0", channels, 4 * width, 1, stride)
            x = op("Relu", [op("Add", [y, x], f"{name}.a")], f"{name}.r")
            channels = 4 * width
    x = op("Flatten", [op("GlobalAveragePool", [x], "pool")], "flat")
    w = weight("fc.w", rng.standard_normal((channels, 1000)) / np.sqrt(channels))
    nodes.append(helper.make_node("Gemm", [x, w, weight("fc.b", np.zeros(1000))], ["y"], "fc"))
    graph = helper.make_graph(
        nodes,
        "resnet50",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1000])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
