"""Products that add in FP16: a graph rewritten so that its sums round as FP16 kernels on tensor cores round them.

Tensor cores multiply FP16 exactly and add 16 products at a time into an accumulator. Most kernels keep it in FP32, and
nothing has to be rewritten then; TensorRT 8.6 also takes kernels that keep it in FP16 (``..._f16f16_f16f16_f16_...``),
where every step of 16 products rounds to FP16. Relative errors of one product of such kernels on random data, measured
(docs/gpu.md) for K = 144, 256, 1152 and 4608 products: 5.4e-4, 6.8e-4, 1.3e-3 and 2.2e-3 to 2.5e-3. Steps of 16 give
5.4e-4, 6.7e-4, 1.3e-3 and 2.5e-3; FP32 sums 3.6e-4 whatever K.

A depthwise convolution runs on no tensor core: its sums round after every product (those of PP-OCR's detection err by
0.9 to 1.8 times what that gives).

A product becomes a Loop over its steps; one of 16 products or fewer stays as it is, and rounds where its group ends.
These keep FP32 sums: convolutions of fewer than 16 channels (TensorRT ran a network's first one so, too), other grouped
and transposed ones, Einsum, and products in bodies of If, Loop and Scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..index import GraphIndex, attribute
from ..model import Model
from ..operators import PRODUCTS

STEP = 16
"""Products that are added before the sum rounds: the K of ``mma.m16n8k16``."""

OLDEST = 11
"""The oldest opset with the operators that the loops are made of; models of older ones are converted."""


def at_once(node: onnx.NodeProto) -> int:
    """How many products of a node are added before the sum rounds: what is grouped runs on no tensor core."""
    return STEP if attribute(node, "group", 1) == 1 else 1


@dataclass(frozen=True)
class Narrowed:
    """A model whose products add in FP16.

    Attributes:
        model: The rewritten graph; every tensor kept its name.
        products: What products give that became loops.
        left: What products give whose sums stay FP32. Nodes may lack names.
    """

    model: Model
    products: tuple[str, ...]
    left: tuple[str, ...]


def narrow_sums(model: Model) -> Narrowed:
    """Rewrites the products of a graph whose operands are FP16 values in FP32 tensors."""
    model = _converted(model)
    index = model.index
    if index.opset.get("", 0) < OLDEST:
        return Narrowed(model, (), tuple(n.output[0] for n in index.nodes if n.op_type in _PRODUCTS))
    writer = _Writer()
    products, left = [], []
    for position, node in enumerate(index.nodes):
        if node.op_type in _PRODUCTS and node.domain in ("", "ai.onnx"):
            writer.prefix = f"sum{position}/"
            done = _PRODUCTS[node.op_type](writer, index, node)
            if done:
                products.append(node.output[0])
                continue
            if done is None:
                left.append(node.output[0])
        elif node.op_type in PRODUCTS:
            left.append(node.output[0])
        writer.nodes.append(node)
    if not products:
        return Narrowed(model, (), tuple(left))
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.node[:]
    proto.graph.node.extend(writer.nodes)
    proto.graph.initializer.extend(writer.constants)
    return Narrowed(model.derive(proto), tuple(products), tuple(left))


def _converted(model: Model) -> Model:
    if model.index.opset.get("", OLDEST) >= OLDEST:
        return model
    try:
        return model.derive(onnx.version_converter.convert_version(model.proto, OLDEST))
    except Exception:  # whatever the converter says of operators that it does not know
        return model


@dataclass
class _Writer:
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    prefix: str = ""
    count: int = 0

    def name(self, what: str) -> str:
        self.count += 1
        return f"{self.prefix}{what}{self.count}"

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def constant(self, value: np.ndarray) -> str:
        name = self.name("constant")
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def op(self, op: str, *inputs: str, **attributes: object) -> str:
        output = self.name(op.lower())
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def give(self, value: str, output: str) -> None:
        self.nodes.append(helper.make_node("Identity", [value], [output], name=self.name("result")))

    def rounded(self, value: str) -> str:
        return self.op("Cast", self.op("Cast", value, to=TensorProto.FLOAT16), to=TensorProto.FLOAT)

    def loop(self, count: str, start: str, step: _Writer, added: str) -> str:
        """Adds what ``step`` makes of the iteration's number ``i`` to a sum that rounds to FP16 each time."""
        before, going = self.name("before"), self.name("going")
        after = step.rounded(step.op("Add", before, added))
        still = step.op("Identity", going)
        body = helper.make_graph(
            step.nodes,
            self.name("body"),
            [
                helper.make_tensor_value_info(f"{self.prefix}i", TensorProto.INT64, []),
                helper.make_tensor_value_info(going, TensorProto.BOOL, []),
                helper.make_tensor_value_info(before, TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info(still, TensorProto.BOOL, []),
                helper.make_tensor_value_info(after, TensorProto.FLOAT, None),
            ],
            step.constants,
        )
        return self.op("Loop", count, "", start, body=body)

    def inside(self) -> _Writer:
        """For the body of this writer's next loop."""
        return _Writer(prefix=f"{self.prefix}step/")


def _conv(writer: _Writer, index: GraphIndex, node: onnx.NodeProto) -> bool | None:
    weights = _shape(index, node.input[1])
    if weights is None or not _float(index, node):
        return None
    maps, channels, *kernel = weights
    depthwise = channels == 1 and _int(node, "group", 1) == maps > 1
    if _int(node, "group", 1) != 1 and not depthwise:
        return None
    each = at_once(node)
    if channels * int(np.prod(kernel)) <= each:
        return False
    padding = attribute(node, "auto_pad", "NOTSET")
    if channels < each or padding not in ("NOTSET", "VALID"):
        return None
    d = len(kernel)
    strides, dilations = _ints(node, "strides", [1] * d), _ints(node, "dilations", [1] * d)
    pads = [0] * 2 * d if padding == "VALID" else _ints(node, "pads", [0] * 2 * d)
    blocks = -(-channels // each)
    spare = blocks * each - channels
    x, w = node.input[0], node.input[1]
    wide = writer.op("Pad", x, writer.ints(0, 0, *pads[:d], 0, spare, *pads[d:])) if spare or any(pads) else x
    if spare:
        w = writer.op("Pad", w, writer.ints(*[0] * (d + 3), spare, *[0] * d))
    steps = int(np.prod(kernel)) * blocks
    # [kernel..., channels, maps] -> a step for each position of the kernel and each 16 channels (depthwise: for all)
    w = writer.op("Transpose", w, perm=[*range(2, d + 2), 1, 0])
    w = writer.op("Transpose", writer.op("Reshape", w, writer.ints(steps, each, maps)), perm=[0, 2, 1])
    w = writer.op("Reshape", w, writer.ints(steps, maps, each, *[1] * d))
    places = np.array(list(np.ndindex(*kernel)), np.int64) * dilations
    starts = np.concatenate(
        [np.tile(np.arange(blocks) * STEP, len(places))[:, None], np.repeat(places, blocks, axis=0)], axis=1
    )
    reach = [(k - 1) * dilation for k, dilation in zip(kernel, dilations, strict=True)]
    sides = writer.op("Slice", writer.op("Shape", wide), writer.ints(2), writer.ints(2 + d))
    fits = writer.op("Sub", sides, writer.ints(*reach))
    out = writer.op("Div", writer.op("Add", fits, writer.ints(*[s - 1 for s in strides])), writer.ints(*strides))
    batch = writer.op("Slice", writer.op("Shape", x), writer.ints(0), writer.ints(1))
    zeros = writer.op("ConstantOfShape", writer.op("Concat", batch, writer.ints(maps), out, axis=0))
    extent = writer.op("Concat", writer.ints(maps if depthwise else STEP), fits, axis=0)
    table = writer.constant(starts.astype(np.int64))

    step = writer.inside()
    i = f"{writer.prefix}i"
    start = step.op("Gather", table, i, axis=0)
    end = step.op("Add", start, extent)
    part = step.op("Slice", wide, start, end, step.ints(*range(1, d + 2)), step.ints(1, *strides))
    added = step.op("Conv", part, step.op("Gather", w, i, axis=0), group=maps if depthwise else 1)
    total = writer.loop(writer.constant(np.array(steps, np.int64)), zeros, step, added)
    if len(node.input) > 2 and node.input[2]:
        total = writer.op("Add", total, writer.op("Reshape", node.input[2], writer.ints(1, maps, *[1] * d)))
    writer.give(total, node.output[0])
    return True


def _matmul(writer: _Writer, index: GraphIndex, node: onnx.NodeProto) -> bool | None:
    shapes = [_rank(index, name) for name in node.input[:2]]
    if any(rank is None or rank < 2 for rank in shapes) or not _float(index, node):
        return None
    known = [index.specs[name].shape for name in node.input[:2]]
    if _few(known[0], -1) or _few(known[1], -2):
        return False
    writer.give(_product(writer, node.input[0], node.input[1]), node.output[0])
    return True


def _gemm(writer: _Writer, index: GraphIndex, node: onnx.NodeProto) -> bool | None:
    if not _float(index, node):
        return None
    left, right = _int(node, "transA", 0), _int(node, "transB", 0)
    known = [index.specs[name].shape if name in index.specs else None for name in node.input[:2]]
    if _few(known[0], 0 if left else 1) or _few(known[1], 1 if right else 0):
        return False
    a, b = node.input[:2]
    a = writer.op("Transpose", a, perm=[1, 0]) if left else a
    b = writer.op("Transpose", b, perm=[1, 0]) if right else b
    total = _product(writer, a, b)
    alpha, beta = (np.asarray(attribute(node, name, 1.0), np.float32) for name in ("alpha", "beta"))
    if alpha != 1:
        total = writer.op("Mul", total, writer.constant(alpha))
    if len(node.input) > 2 and node.input[2]:
        c = node.input[2]
        c = c if beta == 1 else writer.op("Mul", c, writer.constant(beta))
        total = writer.op("Add", total, c)
    writer.give(total, node.output[0])
    return True


def _product(writer: _Writer, a: str, b: str) -> str:
    """``a @ b``; the number of products is read off when it runs."""
    k = writer.op("Gather", writer.op("Shape", b), writer.constant(np.array(-2, np.int64)), axis=0)
    one, sixteen = writer.constant(np.array(1, np.int64)), writer.constant(np.array(STEP, np.int64))
    count = writer.op("Div", writer.op("Sub", k, one), sixteen)
    first = _part(writer, a, b, writer.ints(0))
    step = writer.inside()
    place = step.op("Mul", step.op("Add", f"{writer.prefix}i", one), sixteen)
    added = _part(step, a, b, step.op("Reshape", place, step.ints(1)))
    return writer.loop(count, writer.rounded(first), step, added)


def _part(writer: _Writer, a: str, b: str, start: str) -> str:
    end = writer.op("Add", start, writer.ints(STEP))
    return writer.op(
        "MatMul",
        writer.op("Slice", a, start, end, writer.ints(-1)),
        writer.op("Slice", b, start, end, writer.ints(-2)),
    )


_PRODUCTS = {"Conv": _conv, "MatMul": _matmul, "Gemm": _gemm}


def _int(node: onnx.NodeProto, name: str, default: int) -> int:
    return int(attribute(node, name, default))  # type: ignore[call-overload,no-any-return]


def _ints(node: onnx.NodeProto, name: str, default: Sequence[int]) -> list[int]:
    return [int(v) for v in attribute(node, name, default)]  # type: ignore[attr-defined]


def _shape(index: GraphIndex, name: str) -> tuple[int, ...] | None:
    """The shape of a tensor, if all of it is known."""
    spec = index.specs.get(name)
    if spec is None or spec.shape is None or not all(isinstance(d, int) for d in spec.shape):
        return None
    return tuple(int(d) for d in spec.shape if isinstance(d, int))


def _rank(index: GraphIndex, name: str) -> int | None:
    spec = index.specs.get(name)
    return None if spec is None or spec.shape is None else len(spec.shape)


def _few(shape: Sequence[object] | None, axis: int) -> bool:
    """Whether an axis is known to hold no more products than one step adds."""
    if shape is None:
        return False
    size = shape[axis]
    return isinstance(size, int) and size <= STEP


def _float(index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Whether a product computes in FP32; unknown types are taken for it, as in a piece."""
    spec = index.specs.get(node.output[0]) or index.specs.get(node.input[0])
    return spec is None or spec.dtype == np.float32
