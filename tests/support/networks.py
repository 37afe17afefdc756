"""Small networks of different build, and plain ONNX Runtime to run them: what the tests of `graph` are about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


class Writer:
    """Collects nodes and weights; every method returns the name of what it made."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def weight(self, name: str, *shape: int, low: float | None = None) -> str:
        value = self.rng.normal(0, 1 / np.sqrt(max(1, int(np.prod(shape[1:])))), shape)
        if low is not None:
            value = self.rng.uniform(low, low + 1, shape)
        self.weights[name] = value.astype(np.float32)
        return name

    def value(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.weights[name] = np.asarray(value, dtype)
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"n_{output}", **attributes))
        return output

    def conv(self, x: str, name: str, channels: tuple[int, int], kernel: int = 3, **attributes: Any) -> str:
        w = self.weight(f"{name}.w", channels[1], channels[0], kernel, kernel)
        pads = [kernel // 2] * 4
        return self.node("Conv", [x, w], name, kernel_shape=[kernel] * 2, pads=pads, **attributes)

    def batch_norm(self, x: str, name: str, channels: int) -> str:
        parts = [self.weight(f"{name}.{p}", channels, low=0.5) for p in ("scale", "bias", "mean", "var")]
        return self.node("BatchNormalization", [x, *parts], name, epsilon=1e-5)

    def linear(self, x: str, name: str, sizes: tuple[int, int]) -> str:
        self.node("MatMul", [x, self.weight(f"{name}.w", *sizes)], f"{name}.m")
        return self.node("Add", [f"{name}.m", self.weight(f"{name}.b", sizes[1])], name)

    def layer_norm(self, x: str, name: str, size: int) -> str:
        mean = self.node("ReduceMean", [x], f"{name}.mean", axes=[-1])
        centred = self.node("Sub", [x, mean], f"{name}.centred")
        square = self.node("Mul", [centred, centred], f"{name}.square")
        variance = self.node("ReduceMean", [square], f"{name}.variance", axes=[-1])
        shifted = self.node("Add", [variance, self.value(f"{name}.eps", 1e-5)], f"{name}.shifted")
        root = self.node("Sqrt", [shifted], f"{name}.root")
        unit = self.node("Div", [centred, root], f"{name}.unit")
        scaled = self.node("Mul", [unit, self.weight(f"{name}.gamma", size, low=0.5)], f"{name}.scaled")
        return self.node("Add", [scaled, self.weight(f"{name}.beta", size)], name)

    def gelu(self, x: str, name: str) -> str:
        inner = self.node("Div", [x, self.value(f"{name}.sqrt2", np.sqrt(2))], f"{name}.inner")
        erf = self.node("Erf", [inner], f"{name}.erf")
        gate = self.node("Add", [erf, self.value(f"{name}.one", 1)], f"{name}.gate")
        both = self.node("Mul", [x, gate], f"{name}.both")
        return self.node("Mul", [both, self.value(f"{name}.half", 0.5)], name)

    def model(self, inputs: Mapping[str, tuple[int, Sequence[Any]]], outputs: Sequence[str], opset: int = 13):
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
            [onnx.ValueInfoProto(name=o) for o in outputs],
            [numpy_helper.from_array(v, n) for n, v in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(model)
        del model.graph.output[:]
        model.graph.output.extend(inferred.graph.output)
        return model


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def residual() -> onnx.ModelProto:
    """Convolution, BatchNormalization, Relu, residual Add; two blocks; pooling and a Gemm."""
    w = Writer(1)
    x = w.node("Relu", [w.batch_norm(w.conv("x", "stem", (3, 8)), "stem_bn", 8)], "stem_relu")
    for i in (1, 2):
        y = w.node("Relu", [w.batch_norm(w.conv(x, f"a{i}", (8, 8)), f"a{i}_bn", 8)], f"a{i}_relu")
        y = w.batch_norm(w.conv(y, f"b{i}", (8, 8)), f"b{i}_bn", 8)
        x = w.node("Relu", [w.node("Add", [y, x], f"sum{i}")], f"out{i}")
    x = w.node("Flatten", [w.node("GlobalAveragePool", [x], "pool")], "flat")
    w.node("Gemm", [x, w.weight("fc.w", 5, 8), w.weight("fc.b", 5)], "y", transB=1)
    return w.model({"x": (FLOAT, ["N", 3, 16, 16])}, ["y"])


def transformer() -> onnx.ModelProto:
    """Two encoder layers on token numbers, with an integer mask and shapes that are computed from the input's."""
    w, d, heads = Writer(2), 16, 2
    m = w.node("Cast", ["mask"], "mask_float", to=FLOAT)
    m = w.node("Unsqueeze", [m, w.value("axes12", [1, 2], np.int64)], "mask_wide")
    m = w.node("Mul", [w.node("Sub", [w.value("one", 1), m], "mask_off"), w.value("big", -1e4)], "mask_add")
    x = w.node("Gather", [w.weight("table", 30, d), "ids"], "embedded")
    for i in (1, 2):
        parts = []
        shape = w.node("Shape", [x], f"shape{i}")
        batch = w.node("Gather", [shape, w.value("zero", [0], np.int64)], f"batch{i}")
        length = w.node("Gather", [shape, w.value("one_index", [1], np.int64)], f"length{i}")
        tail = w.value("head_dims", [heads, d // heads], np.int64)
        split = w.node("Concat", [batch, length, tail], f"split_shape{i}", axis=0)
        for part in "qkv":
            y = w.linear(x, f"{part}{i}", (d, d))
            y = w.node("Reshape", [y, split], f"{part}{i}_split")
            perm = [0, 2, 3, 1] if part == "k" else [0, 2, 1, 3]
            parts.append(w.node("Transpose", [y], f"{part}{i}_heads", perm=perm))
        scores = w.node("MatMul", parts[:2], f"scores{i}")
        scores = w.node("Mul", [scores, w.value("scale", (d // heads) ** -0.5)], f"scaled{i}")
        weights = w.node("Softmax", [w.node("Add", [scores, m], f"masked{i}")], f"attention{i}", axis=-1)
        y = w.node("Transpose", [w.node("MatMul", [weights, parts[2]], f"context{i}")], f"joined{i}", perm=[0, 2, 1, 3])
        merge = w.node("Concat", [batch, length, w.value("width", [d], np.int64)], f"merge_shape{i}", axis=0)
        y = w.linear(w.node("Reshape", [y, merge], f"merged{i}"), f"o{i}", (d, d))
        x = w.layer_norm(w.node("Add", [y, x], f"first_sum{i}"), f"first_norm{i}", d)
        y = w.linear(w.gelu(w.linear(x, f"up{i}", (d, 4 * d)), f"gelu{i}"), f"down{i}", (4 * d, d))
        x = w.layer_norm(w.node("Add", [y, x], f"second_sum{i}"), f"second_norm{i}", d)
    w.linear(x, "y", (d, 4))
    return w.model({"ids": (INT64, ["N", "S"]), "mask": (INT64, ["N", "S"])}, ["y"])


def recurrent() -> onnx.ModelProto:
    """Embedding, two-way LSTM, GRU, two outputs."""
    w, h = Writer(3), 6
    x = w.node("Gather", [w.weight("table", 20, 8), "ids"], "embedded")
    x = w.node("Transpose", [x], "time_first", perm=[1, 0, 2])
    lstm = [w.weight("lstm.w", 2, 4 * h, 8), w.weight("lstm.r", 2, 4 * h, h), w.weight("lstm.b", 2, 8 * h)]
    x = w.node("LSTM", [x, *lstm], "lstm", hidden_size=h, direction="bidirectional")
    x = w.node(
        "Reshape", [w.node("Transpose", [x], "ways", perm=[0, 2, 1, 3]), w.value("flat", [0, 0, -1], np.int64)], "both"
    )
    gru = [w.weight("gru.w", 1, 3 * h, 2 * h), w.weight("gru.r", 1, 3 * h, h), w.weight("gru.b", 1, 6 * h)]
    y = w.node("Squeeze", [w.node("GRU", [x, *gru], "gru", hidden_size=h), w.value("axis1", [1], np.int64)], "states")
    w.linear(w.node("Tanh", [y], "squashed"), "tags", (h, 3))
    w.node("ReduceMean", [x], "summary", axes=[0], keepdims=0)
    return w.model({"ids": (INT64, ["N", 7])}, ["tags", "summary"])


def unet() -> onnx.ModelProto:
    """Skip connections by Concat; Resize to the size of the skipped tensor, computed from its shape."""
    w = Writer(4)
    skips, x, channels = [], "image", 3
    for i, width in enumerate((4, 6, 8)):
        x = w.node(
            "Relu", [w.batch_norm(w.conv(x, f"down{i}", (channels, width)), f"down{i}_bn", width)], f"down{i}_relu"
        )
        skips.append((x, width))
        x, channels = w.node("MaxPool", [x], f"half{i}", kernel_shape=[2, 2], strides=[2, 2]), width
    for i, (skip, width) in enumerate(reversed(skips)):
        size = w.node("Shape", [skip], f"skip_shape{i}")
        head = w.node("Slice", [w.node("Shape", [x], f"own_shape{i}"), *_range(w, 0, 2)], f"own_head{i}")
        tail = w.node("Slice", [size, *_range(w, 2, 4)], f"skip_tail{i}")
        sizes = w.node("Concat", [head, tail], f"sizes{i}", axis=0)
        x = w.node("Resize", [x, "", "", sizes], f"up{i}", mode="linear", coordinate_transformation_mode="half_pixel")
        x = w.node("Concat", [skip, x], f"joined{i}", axis=1)
        x = w.node("Relu", [w.conv(x, f"merge{i}", (channels + width, width))], f"merge{i}_relu")
        channels = width
    w.node("Sigmoid", [w.conv(x, "head", (channels, 2), 1)], "segments")
    return w.model({"image": (FLOAT, ["N", 3, "H", "W"])}, ["segments"])


def _range(w: Writer, start: int, end: int) -> list[str]:
    return [w.value(f"from{start}", [start], np.int64), w.value(f"to{end}", [end], np.int64)]


def dense() -> onnx.ModelProto:
    """Every layer reads the Concat of all before it."""
    w = Writer(5)
    parts = [w.conv("x", "stem", (3, 6))]
    for i in range(5):
        y = w.node("Concat", parts, f"cat{i}", axis=1) if i else parts[0]
        y = w.node("Relu", [w.batch_norm(y, f"norm{i}", 6 + 4 * i)], f"relu{i}")
        parts.append(w.conv(y, f"conv{i}", (6 + 4 * i, 4)))
    w.node("Concat", parts, "y", axis=1)
    return w.model({"x": (FLOAT, ["N", 3, 12, 12])}, ["y"])


def control() -> onnx.ModelProto:
    """If, Loop and Scan, whose bodies capture tensors, weights and constants from outside."""

    def body(nodes: list[onnx.NodeProto], inputs: list, outputs: list, name: str) -> onnx.GraphProto:
        def infos(items: list) -> list:
            return [helper.make_tensor_value_info(*item) for item in items]

        return helper.make_graph(nodes, name, infos(inputs), infos(outputs))

    w = Writer(6)
    x = w.linear("x", "first", (4, 4))
    mean = w.node("ReduceMean", [x], "mean", axes=[0, 1], keepdims=0)
    w.node("Greater", [mean, w.value("level", 0.0)], "positive")
    w.weight("gain", 4, 4)
    result = [("r", FLOAT, None)]
    then = body([helper.make_node("MatMul", ["first", "gain"], ["r"])], [], result, "then")
    other = body([helper.make_node("Relu", ["first"], ["r"])], [], result, "else")
    x = w.node("If", ["positive"], "chosen", then_branch=then, else_branch=other)
    w.value("three", 3, np.int64)
    w.value("yes", True, np.bool_)
    step = body(
        [
            helper.make_node("Mul", ["state", "gain"], ["moved"]),
            helper.make_node("Add", ["moved", "first"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        [("i", INT64, []), ("go", TensorProto.BOOL, []), ("state", FLOAT, [4, 4])],
        [("on", TensorProto.BOOL, []), ("next", FLOAT, [4, 4])],
        "loop",
    )
    x = w.node("Loop", ["three", "yes", x], "looped", body=step)
    add = body(
        [
            helper.make_node("Add", ["total", "row"], ["sum"]),
            helper.make_node("Mul", ["sum", "mean"], ["row_out"]),
        ],
        [("total", FLOAT, [4]), ("row", FLOAT, [4])],
        [("sum", FLOAT, [4]), ("row_out", FLOAT, [4])],
        "scan",
    )
    w.value("zeros", np.zeros(4))
    w.nodes.append(helper.make_node("Scan", ["zeros", x], ["last", "rows"], name="n_rows", body=add, num_scan_inputs=1))
    w.node("Tanh", ["rows"], "y")
    return w.model({"x": (FLOAT, [4, 4])}, ["y", "last"])


FEEDS: dict[Callable[[], onnx.ModelProto], Callable[[np.random.Generator], dict[str, np.ndarray]]] = {
    residual: lambda rng: {"x": rng.normal(size=(2, 3, 16, 16)).astype(np.float32)},
    transformer: lambda rng: {
        "ids": rng.integers(0, 30, (2, 9)),
        "mask": (np.arange(9)[None] < [[9], [5]]).astype(np.int64),
    },
    recurrent: lambda rng: {"ids": rng.integers(0, 20, (2, 7))},
    unet: lambda rng: {"image": rng.normal(size=(2, 3, 19, 22)).astype(np.float32)},
    dense: lambda rng: {"x": rng.normal(size=(2, 3, 12, 12)).astype(np.float32)},
    control: lambda rng: {"x": rng.normal(size=(4, 4)).astype(np.float32)},
}
"""Every network with what makes an input for it."""


def session(proto: onnx.ModelProto, level: str = "ORT_DISABLE_ALL") -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(proto: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by name."""
    s = session(proto)
    names = [o.name for o in s.get_outputs()]
    return dict(zip(names, s.run(names, dict(feed)), strict=True))


def run_all(proto: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor of the top level by name, inputs among them."""
    marked = onnx.ModelProto()
    marked.CopyFrom(proto)
    have = {o.name for o in proto.graph.output}
    made = [o for node in proto.graph.node for o in node.output if o and o not in have]
    marked.graph.output.extend(onnx.ValueInfoProto(name=o) for o in made)
    return {**feed, **run(marked, feed)}
