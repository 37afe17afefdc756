"""Healthy networks whose outputs are far smaller than the terms they were made of: dead channels, tails, differences.

Each is a layer or three. Where a channel is to be nearly dead, its bias leaves one value in thousands alive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from benchmarks.kit.runtime import Feed

from .networks import Network
from .running import inner

ALIVE = 2e-4
"""Share of a nearly dead channel that is not."""

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """A network in ONNX's text format.

    Attributes:
        nodes: Its nodes, from ``x`` to ``y``; weights are w, v, b, c and the like.
        weights: Draws the weights.
        shape: Of ``x``.
        dead: A bias and the tensor in front of the clamp: the bias is set so that that tensor's channels exceed
            ``edge`` with probability `ALIVE`. Channels that are not ``which`` keep theirs.
        edge: Where the clamp is.
        which: The channels that die; None: all.
        offset: Added to the channels ``which`` of the bias in ``dead``, instead of what makes them nearly dead.
    """

    nodes: str
    weights: Callable[[np.random.Generator], dict[str, Array]]
    shape: tuple[int, ...] = (2, 8, 24, 24)
    dead: tuple[str, str] | None = ("b", "z")
    edge: float = 0.0
    which: tuple[int, ...] | None = (1, 4)
    offset: float | None = None


def conv(*, groups: int = 1, size: float = 1.0) -> Callable[[np.random.Generator], dict[str, Array]]:
    """3 x 3, 8 to 8 channels."""

    def draw(rng: np.random.Generator) -> dict[str, Array]:
        shape = (8, 8 // groups, 3, 3)
        return {"w": size * rng.standard_normal(shape) / np.sqrt(72 / groups), "b": rng.standard_normal(8)}

    return draw


def gemm(rng: np.random.Generator) -> dict[str, Array]:
    """128 to 10."""
    return {"w": rng.standard_normal((128, 10)) / np.sqrt(128), "b": rng.standard_normal(10)}


def also(first: Callable[[np.random.Generator], dict[str, Array]], **more: Array | float) -> Callable[..., dict]:
    """More constants."""
    return lambda rng: {**first(rng), **{k: np.asarray(v) for k, v in more.items()}}


def twins(rng: np.random.Generator) -> dict[str, Array]:
    """Two convolutions that differ by little."""
    made = conv()(rng)
    return {**made, "v": made["w"] * (1 + 1e-4 * rng.standard_normal(made["w"].shape))}


def undoing(rng: np.random.Generator) -> dict[str, Array]:
    """A 1 x 1 convolution that takes its input away, but for a little."""
    return {"w": -np.eye(8)[..., None, None] * 0.9999 + 1e-5 * rng.standard_normal((8, 8, 1, 1)), "b": np.zeros(8)}


def normalized(rng: np.random.Generator) -> dict[str, Array]:
    """A convolution and the statistics of its channels."""
    made = conv()(rng)
    statistics = {"m": rng.standard_normal(8), "s": rng.uniform(0.5, 2, 8), "g": rng.uniform(0.5, 2, 8)}
    return {"w": made["w"], "b": made["b"], **statistics}


def layer(gain: float, offset: float) -> Callable[[np.random.Generator], dict[str, Array]]:
    """A layer normalization of 128 features."""
    return lambda rng: {"g": gain * rng.uniform(0.5, 2, 128), "c": offset * rng.standard_normal(128)}


CONV = "z = Conv<pads=[1,1,1,1]>(x, w, b) "
GEMM = "z = Gemm(x, w, b) "
BOTH = (64, 128)
CASES: dict[str, Case] = {
    "Conv, Relu": Case(CONV + "y = Relu(z)", conv()),
    "Conv, Relu, every channel": Case(CONV + "y = Relu(z)", conv(), which=None),
    "Conv, Clip to 0 and 6": Case(CONV + "y = Clip(z, lo, hi)", also(conv(), lo=0.0, hi=6.0)),
    "Conv, LeakyRelu": Case(CONV + "y = LeakyRelu<alpha=0.01>(z)", conv()),
    "Conv, HardSwish": Case(CONV + "y = HardSwish(z)", conv(), edge=-3.0),
    "Conv, HardSigmoid": Case(CONV + "y = HardSigmoid(z)", conv(), edge=-2.5),
    "Conv, Gelu": Case(CONV + "y = Gelu(z)", conv(), offset=-8.0),
    "Conv, Erf-GELU in pieces": Case(
        CONV + "q = Div(z, root) e = Erf(q) p = Add(e, one) h = Mul(z, p) y = Mul(h, half)",
        also(conv(), root=2**0.5, one=1.0, half=0.5),
        offset=-8.0,
    ),
    "Conv, Swish in pieces": Case(CONV + "q = Sigmoid(z) y = Mul(z, q)", conv(), offset=-14.0),
    "Conv, Elu": Case(CONV + "y = Elu(z)", conv(size=1e-3), offset=0.0),
    "Conv, Softplus": Case(CONV + "y = Softplus(z)", conv(), offset=-12.0),
    "Conv, Sigmoid": Case(CONV + "y = Sigmoid(z)", conv(), offset=-14.0),
    "Conv, Sigmoid, every channel": Case(CONV + "y = Sigmoid(z)", conv(), offset=-14.0, which=None),
    "Conv, saturated Tanh": Case(CONV + "y = Tanh(z)", conv(), offset=12.0),
    "Conv, Softmax": Case(CONV + "y = Softmax<axis=1>(z)", conv(), offset=-30.0),
    "Gemm, Softmax of logits of deviation 10": Case(
        GEMM + "y = Softmax(z)", lambda rng: {k: 10 * v for k, v in gemm(rng).items()}, shape=BOTH, dead=None
    ),
    "Conv, LogSoftmax of a certain class": Case(CONV + "y = LogSoftmax<axis=1>(z)", conv(), which=(2,), offset=18.0),
    "Conv, Exp": Case(CONV + "y = Exp(z)", conv(), offset=-20.0, which=None),
    "Conv, BatchNormalization, Relu": Case(
        "d = Conv<pads=[1,1,1,1]>(x, w) z = BatchNormalization(d, g, b, m, s) y = Relu(z)", normalized
    ),
    "depthwise Conv, Relu": Case("z = Conv<pads=[1,1,1,1], group=8>(x, w, b) y = Relu(z)", conv(groups=8)),
    "ConvTranspose, Relu": Case("z = ConvTranspose<strides=[2,2]>(x, w, b) y = Relu(z)", conv()),
    "Conv, Relu, MaxPool": Case(CONV + "r = Relu(z) y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)", conv()),
    "Conv, Relu, GlobalAveragePool": Case(CONV + "r = Relu(z) y = GlobalAveragePool(r)", conv()),
    "Conv, Relu, channels last": Case(CONV + "r = Relu(z) y = Transpose<perm=[0,2,3,1]>(r)", conv()),
    "Conv, Relu, one dimension": Case(CONV + "r = Relu(z) y = Reshape(r, flat)", also(conv(), flat=np.array([-1]))),
    "Conv, Relu, beside boxes": Case(
        CONV + "r = Relu(z) k = Mul(x, size) y = Concat<axis=1>(k, r)", also(conv(), size=300.0)
    ),
    "Conv, Relu, split": Case(CONV + "r = Relu(z) a, y0 = Split<axis=1>(r) y = Identity(a)", conv()),
    "Conv that undoes its input": Case("z = Conv(x, w, b) y = Add(z, x)", undoing, dead=None),
    "difference of two like Convs": Case(CONV + "q = Conv<pads=[1,1,1,1]>(x, v, b) y = Sub(z, q)", twins, dead=None),
    "their difference, Relu, pooled": Case(
        CONV + "q = Conv<pads=[1,1,1,1]>(x, v, b) d = Sub(z, q) r = Relu(d) y = GlobalMaxPool(r)", twins, dead=None
    ),
    "Gemm, Relu": Case(GEMM + "y = Relu(z)", gemm, shape=BOTH),
    "Gemm, Relu, one row": Case(GEMM + "y = Relu(z)", gemm, shape=(1, 128), which=None),
    "Gemm, Relu, one dimension": Case(
        GEMM + "r = Relu(z) y = Squeeze(r, axes)", also(gemm, axes=np.array([0])), shape=(1, 128), which=None
    ),
    "Gemm, Sigmoid": Case(GEMM + "y = Sigmoid(z)", gemm, shape=BOTH, offset=-25.0),
    "MatMul, Add, Relu": Case("d = MatMul(x, w) z = Add(d, b) y = Relu(z)", gemm, shape=(2, 48, 128)),
    "small LayerNormalization": Case(
        "y = LayerNormalization(x, g, c)", layer(1e-3, 1e-3), shape=(2, 48, 128), dead=None
    ),
    "LayerNormalization, Relu": Case(
        "d = LayerNormalization(x, g, b) y = Relu(d)",
        lambda rng: {"g": rng.uniform(0.5, 2, 128), "b": rng.standard_normal(128)},
        shape=(2, 48, 128),
        dead=("b", "d"),
    ),
    "LayerNormalization of a large mean": Case(
        "d = Add(x, far) y = LayerNormalization(d, g, c)",
        also(layer(1.0, 1.0), far=300.0),
        shape=(2, 48, 128),
        dead=None,
    ),
}


def exact(network: Network) -> list[Feed]:
    """Its outputs computed in FP64 by ONNX's reference evaluator, and rounded to FP32 once."""
    wide = onnx.ModelProto()
    wide.CopyFrom(network.proto)
    for tensor in wide.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*wide.graph.input, *wide.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    evaluator = ReferenceEvaluator(wide)
    names = [o.name for o in wide.graph.output]
    found = [evaluator.run(names, {k: v.astype(np.float64) for k, v in feed.items()}) for feed in network.feeds]
    return [dict(zip(names, (np.asarray(v).astype(np.float32) for v in values), strict=True)) for values in found]


def build(name: str, case: Case, seed: int = 0) -> Network:
    """One of them, with a few feeds."""
    rng = np.random.default_rng(seed)
    shape = ",".join(map(str, case.shape))
    text = f'<ir_version: 8, opset_import: ["" : 20]> g (float[{shape}] x) => (float y) {{ {case.nodes} }}'
    if "Split<" in case.nodes:
        text = text.replace("Split<axis=1>", "Split<axis=1, num_outputs=2>")
    proto = parser.parse_model(text)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    weights = {k: _stored(v) for k, v in case.weights(rng).items()}
    proto.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items())
    feeds: list[Feed] = [{"x": rng.standard_normal(case.shape).astype(np.float32)} for _ in range(3)]
    if case.dead is not None:
        _kill(proto, case, weights, rng)
    return Network(name, proto, feeds)


def _stored(x: Array) -> Array:
    return x.astype(np.float32) if x.dtype.kind == "f" else x


def _kill(proto: onnx.ModelProto, case: Case, weights: dict[str, Array], rng: np.random.Generator) -> None:
    assert case.dead is not None
    name, clamped = case.dead
    bias = weights[name].copy()
    which = np.arange(bias.size) if case.which is None else np.array(case.which)
    if case.offset is not None:
        bias[which] = case.offset
    else:
        many = [{"x": rng.standard_normal(case.shape).astype(np.float32)} for _ in range(8)]
        values = np.stack([inner(proto, feed, [clamped])[clamped] for feed in many])
        values = np.moveaxis(values, 2 if "Conv" in case.nodes else -1, 0).reshape(bias.size, -1)
        high = np.quantile(values.astype(np.float64), 1 - ALIVE if values.shape[1] > 1000 else 0.5, axis=1)
        bias[which] += (case.edge - high[which]).astype(np.float32)
    (tensor,) = (t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(bias, name))
