"""Products that accumulate in FP16: a graph rewritten so that its sums round as FP16 kernels on tensor cores do.

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

import enum
from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..cutting.slices import original_name
from ..index import GraphIndex
from ..model import Model
from ..nodes import attribute_float, attribute_int, attribute_ints, attribute_string
from ..operators import PRODUCTS, is_standard, operator
from ..writer import GraphWriter, Names
from .rewrite import Note, Rewrite

STEP = 16
"""Products that are added before the sum rounds: the K of ``mma.m16n8k16``."""

OLDEST = 11
"""The oldest opset with the operators that the loops are made of; models of older ones are converted."""


def at_once(node: onnx.NodeProto) -> int:
    """How many products of a node are added before the sum rounds: what is grouped runs on no tensor core."""
    return STEP if attribute_int(node, "group", 1) == 1 else 1


def accumulate_in_fp16(model: Model, keep: Collection[str] = ()) -> Rewrite:
    """Rewrites the products of a graph whose operands are FP16 values in FP32 tensors.

    Args:
        model: The graph.
        keep: Names of nodes whose sums stay FP32.

    Returns:
        The model, the names of the nodes that became loops, and how many products still add in FP32.
    """
    model = _converted(model)
    index = model.index
    writer = GraphWriter(Names.of(index.graph), index.opset.get("", 0), "fp16_sum")
    nodes, left = [], []
    for name, node in zip(index.names, index.nodes, strict=True):
        narrow = operator(node) in PRODUCTS and original_name(name) not in keep
        outcome = _write(writer, index, node) if narrow else _Outcome.EXACT
        if outcome is _Outcome.LOOP:
            nodes.append(name)
            continue
        if outcome is _Outcome.LEFT:
            left.append(name)
        writer.nodes.append(node)
    notes: tuple[Note, ...] = ()
    if left:
        first = ", ".join(left[:3])
        notes = (Note(f"{len(left)} products add in FP32 all the same (the first are {first})."),)
    if not nodes:
        return Rewrite(model, notes)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    writer.into(proto.graph)
    return Rewrite(model.derive(proto), notes, frozenset(nodes))


def _converted(model: Model) -> Model:
    if model.index.opset.get("", OLDEST) >= OLDEST:
        return model
    try:
        return model.derive(onnx.version_converter.convert_version(model.proto, OLDEST))
    except Exception:  # whatever the converter says of operators that it does not know
        return model


class _Outcome(enum.Enum):
    """What became of a node."""

    LOOP = "a loop whose sum rounds at every step"
    EXACT = "nothing: it adds no more than one step"
    LEFT = "nothing: its sums stay FP32"


def _write(writer: GraphWriter, index: GraphIndex, node: onnx.NodeProto) -> _Outcome:
    rule = {"Conv": _conv, "MatMul": _matmul, "Gemm": _gemm}.get(node.op_type)
    if rule is None or not is_standard(node) or writer.opset < OLDEST or not _is_float(index, node):
        return _Outcome.LEFT
    return rule(writer, index, node)


def _round(writer: GraphWriter, value: str) -> str:
    return writer.cast(writer.cast(value, TensorProto.FLOAT16), TensorProto.FLOAT)


class _Loop:
    """A sum that rounds to FP16 at every step, in the making.

    Attributes:
        step: Where the body is written.
        i: The number of the iteration, int64.
    """

    def __init__(self, writer: GraphWriter) -> None:
        self.writer = writer
        self.step = writer.inside()
        self.i = writer.names.fresh("fp16_sum__step")

    def close(self, count: str, start: str, added: str) -> str:
        """Writes the loop: ``count`` times ``added``, which ``step`` has written, to ``start``. Returns the sum."""
        step, fresh = self.step, self.writer.names.fresh
        before, going = fresh("fp16_sum__before"), fresh("fp16_sum__going")
        after = _round(step, step.emit("Add", [before, added]))
        still = step.emit("Identity", [going])
        info = helper.make_tensor_value_info
        body = helper.make_graph(
            step.nodes,
            fresh("fp16_sum__body"),
            [
                info(self.i, TensorProto.INT64, []),
                info(going, TensorProto.BOOL, []),
                info(before, TensorProto.FLOAT, None),
            ],
            [info(still, TensorProto.BOOL, []), info(after, TensorProto.FLOAT, None)],
            step.initializers,
        )
        return self.writer.emit("Loop", [count, "", start], body=body)


def _conv(writer: GraphWriter, index: GraphIndex, node: onnx.NodeProto) -> _Outcome:
    weights = _shape(index, node.input[1])
    if weights is None:
        return _Outcome.LEFT
    maps, channels, *kernel = weights
    groups = attribute_int(node, "group", 1)
    depthwise = channels == 1 and groups == maps > 1
    if groups != 1 and not depthwise:
        return _Outcome.LEFT
    each, d = at_once(node), len(kernel)
    if channels * int(np.prod(kernel)) <= each:
        return _Outcome.EXACT
    padding = attribute_string(node, "auto_pad", "NOTSET")
    if channels < each or padding not in ("NOTSET", "VALID"):
        return _Outcome.LEFT
    strides, dilations = (attribute_ints(node, name, [1] * d) for name in ("strides", "dilations"))
    pads = [0] * 2 * d if padding == "VALID" else attribute_ints(node, "pads", [0] * 2 * d)
    blocks = -(-channels // each)
    spare = blocks * each - channels
    emit, ints = writer.emit, writer.ints
    x, w = node.input[:2]
    wide = emit("Pad", [x, ints(0, 0, *pads[:d], 0, spare, *pads[d:])]) if spare or any(pads) else x
    if spare:
        w = emit("Pad", [w, ints(*[0] * (d + 3), spare, *[0] * d)])
    steps = int(np.prod(kernel)) * blocks
    # [kernel..., channels, maps] -> a step for each position of the kernel and each 16 channels (depthwise: for all)
    w = emit("Transpose", [w], perm=[*range(2, d + 2), 1, 0])
    w = emit("Transpose", [emit("Reshape", [w, ints(steps, each, maps)])], perm=[0, 2, 1])
    w = emit("Reshape", [w, ints(steps, maps, each, *[1] * d)])
    places = np.array(list(np.ndindex(*kernel)), np.int64) * dilations
    firsts = np.tile(np.arange(blocks) * STEP, len(places))[:, None]
    table = writer.constant(np.concatenate([firsts, np.repeat(places, blocks, axis=0)], axis=1).astype(np.int64))
    reach = [(k - 1) * dilation for k, dilation in zip(kernel, dilations, strict=True)]
    fits = emit("Sub", [emit("Slice", [emit("Shape", [wide]), ints(2), ints(2 + d)]), ints(*reach)])
    sizes = emit("Div", [emit("Add", [fits, ints(*[s - 1 for s in strides])]), ints(*strides)])
    batch = emit("Slice", [emit("Shape", [x]), ints(0), ints(1)])
    zeros = emit("ConstantOfShape", [emit("Concat", [batch, ints(maps), sizes], axis=0)])
    extent = emit("Concat", [ints(maps if depthwise else STEP), fits], axis=0)

    loop = _Loop(writer)
    step = loop.step
    start = step.emit("Gather", [table, loop.i], axis=0)
    end = step.emit("Add", [start, extent])
    part = step.emit("Slice", [wide, start, end, step.ints(*range(1, d + 2)), step.ints(1, *strides)])
    kernels = step.emit("Gather", [w, loop.i], axis=0)
    added = step.emit("Conv", [part, kernels], group=maps if depthwise else 1)
    total = loop.close(writer.scalar(steps, np.int64), zeros, added)
    if len(node.input) > 2 and node.input[2]:
        total = emit("Add", [total, emit("Reshape", [node.input[2], ints(1, maps, *[1] * d)])])
    emit("Identity", [total], node.output[0])
    return _Outcome.LOOP


def _matmul(writer: GraphWriter, index: GraphIndex, node: onnx.NodeProto) -> _Outcome:
    left, right = (index.specs[n].shape if n in index.specs else None for n in node.input[:2])
    if left is None or right is None or len(left) < 2 or len(right) < 2:
        return _Outcome.LEFT
    if _few(left, -1) or _few(right, -2):
        return _Outcome.EXACT
    writer.emit("Identity", [_product(writer, node.input[0], node.input[1])], node.output[0])
    return _Outcome.LOOP


def _gemm(writer: GraphWriter, index: GraphIndex, node: onnx.NodeProto) -> _Outcome:
    left, right = attribute_int(node, "transA", 0), attribute_int(node, "transB", 0)
    known = [index.specs[name].shape if name in index.specs else None for name in node.input[:2]]
    if _few(known[0], 0 if left else 1) or _few(known[1], 1 if right else 0):
        return _Outcome.EXACT
    a, b = node.input[:2]
    a = writer.emit("Transpose", [a], perm=[1, 0]) if left else a
    b = writer.emit("Transpose", [b], perm=[1, 0]) if right else b
    total = _product(writer, a, b)
    alpha, beta = (attribute_float(node, name, 1.0) for name in ("alpha", "beta"))
    if alpha != 1:
        total = writer.emit("Mul", [total, writer.scalar(alpha)])
    if len(node.input) > 2 and node.input[2]:
        c = node.input[2]
        c = c if beta == 1 else writer.emit("Mul", [c, writer.scalar(beta)])
        total = writer.emit("Add", [total, c])
    writer.emit("Identity", [total], node.output[0])
    return _Outcome.LOOP


def _product(writer: GraphWriter, a: str, b: str) -> str:
    """``a @ b``; the number of products is read off when it runs."""
    k = writer.emit("Gather", [writer.emit("Shape", [b]), writer.scalar(-2, np.int64)], axis=0)
    one, sixteen = writer.scalar(1, np.int64), writer.scalar(STEP, np.int64)
    count = writer.emit("Div", [writer.emit("Sub", [k, one]), sixteen])
    first = _part(writer, a, b, writer.ints(0))
    loop = _Loop(writer)
    place = loop.step.emit("Mul", [loop.step.emit("Add", [loop.i, one]), sixteen])
    added = _part(loop.step, a, b, loop.step.emit("Reshape", [place, loop.step.ints(1)]))
    return loop.close(count, _round(writer, first), added)


def _part(writer: GraphWriter, a: str, b: str, start: str) -> str:
    end = writer.emit("Add", [start, writer.ints(STEP)])
    return writer.emit(
        "MatMul",
        [
            writer.emit("Slice", [a, start, end, writer.ints(-1)]),
            writer.emit("Slice", [b, start, end, writer.ints(-2)]),
        ],
    )


def _shape(index: GraphIndex, name: str) -> tuple[int, ...] | None:
    """The shape of a tensor, if all of it is known."""
    spec = index.specs.get(name)
    if spec is None or spec.shape is None or not all(isinstance(d, int) for d in spec.shape):
        return None
    return tuple(int(d) for d in spec.shape if isinstance(d, int))


def _few(shape: Sequence[object] | None, axis: int) -> bool:
    """Whether an axis is known to hold no more products than one step adds."""
    if shape is None:
        return False
    size = shape[axis]
    return isinstance(size, int) and size <= STEP


def _is_float(index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Whether a product computes in FP32; unknown types are taken for it, as in a piece."""
    spec = index.specs.get(node.output[0]) or index.specs.get(node.input[0])
    return spec is None or spec.dtype == np.float32
