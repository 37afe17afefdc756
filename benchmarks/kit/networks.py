"""Ten networks of different build, small enough for hundreds of runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx

from .builder import Builder
from .inputs import images, texts

CALIBRATION = 4
"""Samples on which statistics of normalizations and scales of quantizers are taken."""


@dataclass(frozen=True)
class Network:
    """A network and the inputs it was made for.

    Attributes:
        samples: ``samples(seed, count)`` gives feeds of one sample each.
    """

    name: str
    proto: onnx.ModelProto
    samples: Callable[[int, int], list[dict[str, np.ndarray]]]


def start(name: str, opset: int, seed: int, samples, batch: str | int = "N") -> tuple[Builder, list[str]]:
    """A builder whose inputs hold the calibration samples."""
    b = Builder(name, opset, seed)
    feeds = samples(1000 + seed, CALIBRATION)
    return b, [b.input(n, np.concatenate([f[n] for f in feeds]), batch) for n in feeds[0]]


def resnet() -> Network:
    """Residual blocks (He et al. 2015): 24 convolutions, BatchNormalization, Relu, residual Add."""
    samples = images(3, 96, "input")
    b, (x,) = start("resnet", 13, 1, samples)
    x = b.node("Relu", [b.batch_norm(b.conv(x, "/conv1", 32, 7, stride=2), "/bn1")], "/relu")
    x = b.node("MaxPool", [x], "/maxpool", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2], ceil_mode=0)
    for stage, (width, blocks) in enumerate([(32, 3), (64, 4), (96, 3)], 1):
        for block in range(blocks):
            path = f"/layer{stage}/layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = b.batch_norm(b.conv(x, f"{path}/conv1", width, stride=stride), f"{path}/bn1")
            y = b.conv(b.node("Relu", [y], f"{path}/relu"), f"{path}/conv2", width)
            y = b.batch_norm(y, f"{path}/bn2", 0.6)
            if stride == 2:
                x = b.conv(x, f"{path}/downsample/downsample.0", width, 1, stride=2)
                x = b.batch_norm(x, f"{path}/downsample/downsample.1")
            x = b.node("Relu", [b.node("Add", [y, x], path)], f"{path}/relu")
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x], "/avgpool")], "", axis=1)
    return Network("resnet", b.finish({"output": b.gemm(x, "/fc", 40)}), samples)


def mobilenet() -> Network:
    """Depthwise separable convolutions (Sandler et al. 2018), Clip to [0, 6], squeeze-and-excitation with HardSigmoid,
    one input in one shape."""
    samples = images(3, 96, "input")
    b, (x,) = start("mobilenet", 17, 2, samples, batch=1)

    def bounded(x: str, path: str) -> str:
        return b.node("Clip", [x, b.constant(path, np.float32(0)), b.constant(path, np.float32(6))], path)

    def unit(x: str, path: str, width: int, kernel: int, **more) -> str:
        y = b.batch_norm(b.conv(x, f"{path}.0", width, kernel, **more), f"{path}.1", 1.6)
        return bounded(y, f"{path}.2")

    x = unit(x, "/features/features.0/features.0", 16, 3, stride=2)
    plan = [(16, 1, 1), (24, 3, 2), (24, 3, 1), (32, 3, 2), (32, 4, 1), (48, 4, 1), (64, 4, 2), (64, 4, 1)]
    for i, (width, expansion, stride) in enumerate(plan, 1):
        path = f"/features/features.{i}/conv"
        inside = b.values[x].shape[1] * expansion
        y = unit(x, f"{path}/conv.0/conv.0", inside, 1) if expansion > 1 else x
        y = unit(y, f"{path}/conv.1/conv.1", inside, 3, stride=stride, group=inside)
        if i % 3 == 0:
            s = b.node("GlobalAveragePool", [y], f"{path}/se/avgpool")
            s = b.node("Relu", [b.conv(s, f"{path}/se/fc1", max(8, inside // 4), 1, bias=True)], f"{path}/se/relu")
            s = b.conv(s, f"{path}/se/fc2", inside, 1, bias=True)
            s = b.node("HardSigmoid", [s], f"{path}/se/act", alpha=1 / 6, beta=0.5)
            y = b.node("Mul", [s, y], f"{path}/se")
        y = b.batch_norm(b.conv(y, f"{path}/conv.2", width, 1, gain=1.0), f"{path}/conv.3")
        if stride == 1 and b.values[x].shape[1] == width:
            y = b.node("Add", [x, y], f"/features/features.{i}")
        x = y
    x = unit(x, "/features/features.9/features.9", 160, 1)
    x = b.node("GlobalAveragePool", [x], "/avgpool")
    x = b.node("Flatten", [x], "", axis=1)
    return Network("mobilenet", b.finish({"output": b.gemm(x, "/classifier/classifier.1", 40)}, batch=1), samples)


def densenet() -> Network:
    """Dense connections (Huang et al. 2017): every layer reads the Concat of all before it."""
    samples = images(3, 64, "data")
    b, (x,) = start("densenet", 12, 3, samples)
    x = b.conv(x, "/features/conv0", 32, 5, stride=2)
    x = b.node("Relu", [b.batch_norm(x, "/features/norm0")], "/features/relu0")
    for block, layers in enumerate([5, 6, 5], 1):
        parts = [x]
        for layer in range(1, layers + 1):
            path = f"/features/denseblock{block}/denselayer{layer}"
            y = b.node("Concat", parts, path, axis=1) if len(parts) > 1 else x
            y = b.node("Relu", [b.batch_norm(y, f"{path}/norm1")], f"{path}/relu1")
            y = b.batch_norm(b.conv(y, f"{path}/conv1", 48, 1), f"{path}/norm2")
            y = b.conv(b.node("Relu", [y], f"{path}/relu2"), f"{path}/conv2", 16)
            parts.append(y)
        x = b.node("Concat", parts, f"/features/denseblock{block}", axis=1)
        if block < 3:
            path = f"/features/transition{block}"
            x = b.node("Relu", [b.batch_norm(x, f"{path}/norm")], f"{path}/relu")
            x = b.conv(x, f"{path}/conv", b.values[x].shape[1] // 2, 1)
            x = b.node("AveragePool", [x], f"{path}/pool", kernel_shape=[2, 2], strides=[2, 2])
    x = b.node("Relu", [b.batch_norm(x, "/features/norm5")], "/relu")
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x], "/avgpool")], "", axis=1)
    return Network("densenet", b.finish({"fc6": b.gemm(x, "/classifier", 40)}), samples)


def attention(
    b: Builder, x: str, path: str, heads: int, *, mask: str | None, names: tuple[str, ...], late_scale: bool
) -> str:
    """Multi-head self-attention with separate square q, k, v and output weights."""
    width = b.values[x].shape[2]
    size = width // heads
    parts = []
    for name in names[:3]:
        y = b.linear(x, f"{path}/{name}", width, gain=2.0 if name in names[:2] else 1.0)
        y = b.reshape(y, path, [0, 0, heads, size])
        perm = [0, 2, 3, 1] if name == names[1] else [0, 2, 1, 3]
        parts.append(b.node("Transpose", [y], path, perm=perm))
    q, k, v = parts
    if late_scale:
        scores = b.node("MatMul", [q, k], path)
        scores = b.node("Div", [scores, b.constant(path, np.float32(np.sqrt(size)))], path)
    else:
        scores = b.node("MatMul", [b.node("Mul", [q, b.constant(path, np.float32(size**-0.5))], path), k], path)
    if mask:
        scores = b.node("Add", [scores, mask], path)
    y = b.node("MatMul", [b.node("Softmax", [scores], path, axis=-1), v], path)
    y = b.node("Transpose", [y], path, perm=[0, 2, 1, 3])
    y = b.reshape(y, path, [0, 0, width])
    return b.linear(y, f"{path}/{names[3]}", width)


def bert() -> Network:
    """Transformer encoder of text (Devlin et al. 2018): LayerNormalization and GELU in pieces, attention mask."""
    width, length, words = 128, 48, 500
    samples = texts(length, words, "input_ids", "attention_mask")
    b, (ids, mask) = start("bert", 13, 4, samples)
    m = b.node("Cast", [mask], "/bert", to=onnx.TensorProto.FLOAT)
    m = b.node("Unsqueeze", [m, b.constant("/bert", np.array([1, 2], np.int64))], "/bert")
    m = b.node("Sub", [b.constant("/bert", np.float32(1)), m], "/bert")
    m = b.node("Mul", [m, b.constant("/bert", np.float32(-10000))], "/bert")
    table = b.rng.normal(0, 0.7, (words, width)).astype(np.float32)
    path = "/bert/embeddings"
    x = b.node("Gather", [b.weight("bert.embeddings.word_embeddings.weight", table), ids], f"{path}/word_embeddings")
    places = b.weight("bert.embeddings.position", b.rng.normal(0, 0.4, (1, length, width)).astype(np.float32))
    x = b.layer_norm(b.node("Add", [x, places], path), f"{path}/LayerNorm", decomposed=True)
    for layer in range(3):
        path = f"/bert/encoder/layer.{layer}"
        names = ("query", "key", "value", "output")
        y = attention(b, x, f"{path}/attention/self", 4, mask=m, names=names, late_scale=True)
        y = b.node("Add", [y, x], f"{path}/attention/output")
        x = b.layer_norm(y, f"{path}/attention/output/LayerNorm", decomposed=True)
        y = b.gelu(b.linear(x, f"{path}/intermediate/dense", 4 * width), f"{path}/intermediate/act")
        y = b.linear(y, f"{path}/output/dense", width, gain=2.0)
        x = b.layer_norm(b.node("Add", [y, x], f"{path}/output"), f"{path}/output/LayerNorm", decomposed=True)
    first = b.node("Gather", [x, b.constant("/bert/pooler", np.int64(0))], "/bert/pooler", axis=1)
    y = b.node("Tanh", [b.gemm(first, "/bert/pooler/dense", width)], "/bert/pooler/activation")
    outputs = {"last_hidden_state": x, "logits": b.gemm(y, "/classifier", 10)}
    return Network("bert", b.finish(outputs), samples)


def vit() -> Network:
    """Transformer encoder of pictures (Dosovitskiy et al. 2020): LayerNormalization and Gelu as operators, normalized
    before each sublayer."""
    width = 96
    samples = images(3, 64, "pixel_values")
    b, (x,) = start("vit", 20, 5, samples)
    path = "/vit/embeddings"
    x = b.conv(x, f"{path}/projection", width, 8, stride=8, pads=0, bias=True, gain=1.0)
    x = b.node("Transpose", [b.reshape(x, path, [0, 0, -1])], path, perm=[0, 2, 1])
    places = b.rng.normal(0, 0.3, (1, 64, width)).astype(np.float32)
    x = b.node("Add", [x, b.weight("vit.embeddings.position_embeddings", places)], path)
    for layer in range(3):
        path = f"/vit/encoder/layer.{layer}"
        y = b.layer_norm(x, f"{path}/layernorm_before", epsilon=1e-6)
        names = ("query", "key", "value", "dense")
        y = attention(b, y, f"{path}/attention", 3, mask=None, names=names, late_scale=False)
        x = b.node("Add", [y, x], path)
        y = b.layer_norm(x, f"{path}/layernorm_after", epsilon=1e-6)
        y = b.gelu(b.linear(y, f"{path}/intermediate/dense", 3 * width), f"{path}/intermediate")
        y = b.linear(y, f"{path}/output/dense", width, gain=2.0)
        x = b.node("Add", [y, x], path)
    x = b.layer_norm(x, "/vit/layernorm", epsilon=1e-6)
    x = b.node("ReduceMean", [x, b.constant("/vit/pooler", np.array([1], np.int64))], "/vit/pooler", keepdims=0)
    return Network("vit", b.finish({"logits": b.gemm(x, "/classifier", 40)}), samples)


def lstm() -> Network:
    """Recurrent tagger: Embedding, two-way LSTM, LSTM, GRU, attention over time, two outputs."""
    length, words, hidden = 32, 400, 64
    samples = texts(length, words, "tokens")
    b, (ids,) = start("lstm", 14, 6, samples)
    table = b.weight("embedding.weight", b.rng.normal(0, 1, (words, 48)).astype(np.float32))
    x = b.node("Gather", [table, ids], "/embedding")
    x = b.node("Transpose", [x], "", perm=[1, 0, 2])

    def recurrent(x: str, op: str, path: str, directions: int, **more) -> str:
        gates = 4 if op == "LSTM" else 3
        wide, module = b.values[x].shape[-1], path.strip("/")
        w = b.rng.normal(0, np.sqrt(1.2 / wide), (directions, gates * hidden, wide))
        r = b.rng.normal(0, np.sqrt(0.8 / hidden), (directions, gates * hidden, hidden))
        bias = b.rng.normal(0, 0.2, (directions, 2 * gates * hidden))
        names = [
            b.weight(f"{module}.{n}", v.astype(np.float32))
            for n, v in [("weight_ih", w), ("weight_hh", r), ("bias", bias)]
        ]
        way = "bidirectional" if directions == 2 else "forward"
        y = b.node(op, [x, *names], path, count=1, hidden_size=hidden, direction=way, **more)
        y = b.node("Transpose", [y], path, perm=[0, 2, 1, 3])
        return b.reshape(y, path, [0, 0, -1])

    x = recurrent(x, "LSTM", "/lstm1", 2)
    x = recurrent(x, "LSTM", "/lstm2", 1)
    y = recurrent(x, "GRU", "/gru", 2, linear_before_reset=1)
    x = b.node("Transpose", [y], "/tags", perm=[1, 0, 2])
    x = b.layer_norm(x, "/norm", decomposed=True)
    tags = b.linear(b.node("Tanh", [b.linear(x, "/tags/0", 64)], "/tags/1"), "/tags/2", 12)
    weights = b.node("Softmax", [b.linear(x, "/attention/score", 1, gain=3.0)], "/attention", axis=1)
    context = b.node("Mul", [weights, x], "/attention")
    context = b.node(
        "ReduceSum", [context, b.constant("/attention", np.array([1], np.int64))], "/attention", keepdims=0
    )
    context = b.node("Sigmoid", [b.gemm(context, "/head/0", 64)], "/head/1")
    return Network("lstm", b.finish({"tags": tags, "label": b.gemm(context, "/head/2", 10)}), samples)


def unet() -> Network:
    """U-Net (Ronneberger et al. 2015): skip connections by Concat, up by ConvTranspose and by Resize."""
    samples = images(3, 64, "image")
    b, (x,) = start("unet", 13, 7, samples)

    def double(x: str, path: str, width: int) -> str:
        for i in (0, 3):
            x = b.conv(x, f"{path}/double_conv/double_conv.{i}", width, bias=i == 0)
            x = b.batch_norm(x, f"{path}/double_conv/double_conv.{i + 1}")
            x = b.node("Relu", [x], f"{path}/double_conv/double_conv.{i + 2}")
        return x

    skips = [double(x, "/inc", 16)]
    for i, width in enumerate([32, 48, 64], 1):
        x = b.node("MaxPool", [skips[-1]], f"/down{i}/maxpool", kernel_shape=[2, 2], strides=[2, 2])
        skips.append(double(x, f"/down{i}", width))
    x = skips.pop()
    for i, width in enumerate([48, 32, 16], 1):
        path = f"/up{i}/up"
        if i == 1:
            x = b.conv(x, path, width, 2, stride=2, bias=True, transpose=True, gain=1.0)
        else:
            scales = b.constant(path, np.array([1, 1, 2, 2], np.float32))
            how = (
                {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
                if i == 2
                else {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            )
            x = b.node("Resize", [x, "", scales], path, **how)
            x = b.conv(x, f"/up{i}/reduce", width, 1, bias=True, gain=1.0)
        x = double(b.node("Concat", [skips.pop(), x], f"/up{i}", axis=1), f"/up{i}/conv", width)
    x = b.node("Sigmoid", [b.conv(x, "/outc/conv", 4, 1, bias=True)], "/outc")
    return Network("unet", b.finish({"mask": x}), samples)


def mixed() -> Network:
    """What the others lack: pooling with padding, asymmetric padding, InstanceNormalization, GroupNormalization,
    dilation, LeakyRelu, PRelu, cubic Resize, branches."""
    samples = images(3, 64, "x")
    b, (x,) = start("mixed", 16, 8, samples)

    def group_norm(x: str, path: str, groups: int) -> str:
        channels, height, width = b.values[x].shape[1:]
        y = b.reshape(x, path, [0, groups, -1])
        ones = b.weight(f"{module}.ones" if (module := path.strip("/")) else "ones", np.ones(groups, np.float32))
        zeros = b.weight(f"{module}.zeros", np.zeros(groups, np.float32))
        y = b.node("InstanceNormalization", [y, ones, zeros], path, epsilon=1e-5)
        y = b.reshape(y, path, [0, channels, height, width])
        gamma, beta = (b.initializers.pop(n)[:, None, None] for n in b.affine(path, channels))
        y = b.node("Mul", [y, b.weight(f"{module}.gamma", gamma)], path)
        return b.node("Add", [y, b.weight(f"{module}.beta", beta)], path)

    def instance_norm(x: str, path: str) -> str:
        return b.node("InstanceNormalization", [x, *b.affine(path, b.values[x].shape[1])], path, epsilon=1e-5)

    pads = b.constant("/pad", np.array([0, 0, 2, 1, 0, 0, 1, 2], np.int64))
    x = b.node("Pad", [x, pads], "/pad", mode="reflect")
    x = instance_norm(b.conv(x, "/stem/conv", 24, 4, pads=0), "/stem/norm")
    x = b.node("LeakyRelu", [x], "/stem/act", alpha=0.1)
    for i, width in enumerate([32, 48], 1):
        path = f"/block{i}"
        x = b.conv(x, f"{path}/down", width, 3, stride=2, pads=[0, 0, 1, 1], bias=True)
        x = b.node("LeakyRelu", [group_norm(x, f"{path}/gn", 8)], f"{path}/act", alpha=0.2)
        pool = b.node("AveragePool", [x], f"{path}/pool", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=0)
        branches = [
            b.conv(x, f"{path}/one", width // 2, 1, bias=True),
            b.conv(x, f"{path}/wide", width // 2, 3, dilation=2, bias=True),
            b.conv(pool, f"{path}/pooled", width // 2, 1, bias=True),
        ]
        y = instance_norm(b.node("Concat", branches, path, axis=1), f"{path}/norm")
        slope = b.weight(f"block{i}.prelu", b.rng.uniform(0.05, 0.4, (b.values[y].shape[1], 1, 1)).astype(np.float32))
        y = b.node("PRelu", [y, slope], f"{path}/prelu")
        x = b.node("Add", [b.conv(y, f"{path}/merge", width, 1, bias=True, gain=1.0), x], path)
    pads = b.constant("/tail/pad", np.array([0, 0, 1, 0, 0, 0, 0, 1], np.int64))
    x = b.conv(b.node("Pad", [x, pads], "/tail/pad", mode="constant"), "/tail/conv", 48, 2, pads=0, bias=True)
    x = b.node("AveragePool", [x], "/tail/pool", kernel_shape=[2, 2], pads=[0, 0, 1, 1], strides=[1, 1])
    x = b.node("LeakyRelu", [x], "/tail/act", alpha=0.1)
    scales = b.constant("/up", np.array([1, 1, 2, 2], np.float32))
    up = b.node("Resize", [x, "", scales], "/up", mode="cubic", coordinate_transformation_mode="half_pixel")
    up = b.conv(up, "/up/conv", 24, 3, bias=True)
    up = b.node("Tanh", [instance_norm(up, "/up/norm")], "/up/act")
    up = b.conv(up, "/out", 3, 3, pads=[1, 0, 1, 2], bias=True)
    y = b.node("ReduceMean", [x], "/head", axes=[2, 3], keepdims=0)
    return Network("mixed", b.finish({"picture": up, "score": b.gemm(y, "/head/fc", 10)}), samples)


def quantized() -> Network:
    """A small residual CNN with Q/DQ nodes: activations UINT8 per tensor, weights INT8 per channel."""
    samples = images(3, 64, "input")
    b, (x,) = start("quantized", 13, 9, samples)

    def quantize(x: str) -> str:
        value = b.values[x]
        low, high = min(0.0, float(value.min())), float(value.max())
        scale = np.float32((high - low) / 255)
        zero = np.uint8(np.clip(np.round(-low / scale), 0, 255))
        names = [b.weight(f"{x}_scale", scale), b.weight(f"{x}_zero_point", zero)]
        q = b.node("QuantizeLinear", [x, *names], x.removesuffix("_output_0"))
        return b.node("DequantizeLinear", [q, *names], x.removesuffix("_output_0"))

    def layer(
        x: str, path: str, channels: int, kernel: int = 3, relu: bool = True, stride: int = 1, gain: float = 2.0
    ) -> str:
        fan, module = b.values[x].shape[1] * kernel**2, module_of(path)
        weight = b.rng.normal(0, np.sqrt(gain / fan), (channels, fan // kernel**2, kernel, kernel))
        weight *= b.rng.lognormal(0, 0.3, (channels, 1, 1, 1))
        scale = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
        stored = np.clip(np.round(weight / scale[:, None, None, None]), -127, 127).astype(np.int8)
        names = [
            b.weight(f"{module}.weight_quantized", stored),
            b.weight(f"{module}.weight_scale", scale),
            b.weight(f"{module}.weight_zero_point", np.zeros(channels, np.int8)),
        ]
        w = b.node("DequantizeLinear", names, f"{path}/weight", axis=0)
        bias = b.weight(f"{module}.bias", b.rng.normal(0, 0.2, channels).astype(np.float32))
        p = [kernel // 2] * 4
        y = b.node("Conv", [x, w, bias], path, kernel_shape=[kernel] * 2, pads=p, strides=[stride] * 2)
        return quantize(b.node("Relu", [y], path) if relu else y)

    x = layer(quantize(x), "/stem/conv", 24, 3, stride=2)
    x = layer(x, "/stem2/conv", 32, 3, stride=2)
    for i, width in enumerate([32, 32, 48, 48], 1):
        path = f"/block{i}"
        y = layer(layer(x, f"{path}/conv1", width), f"{path}/conv2", width, relu=False)
        if b.values[x].shape[1] != width:
            x = layer(x, f"{path}/shortcut", width, 1, relu=False)
        x = b.node("Relu", [b.node("Add", [y, x], f"{path}/add")], f"{path}/add")
        x = layer(quantize(x), f"{path}/squeeze", width, 1, gain=0.8)  # back to unit scale after the sum
    x = b.node("GlobalAveragePool", [x], "/pool")
    x = b.node("Flatten", [quantize(x)], "/pool", axis=1)
    return Network("quantized", b.finish({"output": b.gemm(x, "/fc", 20)}), samples)


def module_of(path: str) -> str:
    """Weights of a quantized layer are named after its path."""
    return path.strip("/").replace("/", ".")


CELL = [
    ("MatMul", ["h", "gate_w"], "gate_h"),
    ("Add", ["gate_h", "x_t"], "gate_sum"),
    ("Sigmoid", ["gate_sum"], "gate"),
    ("Mul", ["gate", "h"], "kept"),
    ("MatMul", ["kept", "new_w"], "new_h"),
    ("Add", ["new_h", "new_b"], "new_shifted"),
    ("Add", ["new_shifted", "x_t"], "new_sum"),
    ("Tanh", ["new_sum"], "new"),
    ("Sub", ["new", "h"], "change"),
    ("Mul", ["change", "rate"], "step"),
    ("Add", ["h", "step"], "h_next"),
    ("Identity", ["h_next"], "y_t"),
]
"""A gated cell: (operator, what it reads, what it makes)."""
REFINE = [
    ("MatMul", ["z", "inner_w"], "inner"),
    ("Add", ["inner", "inner_b"], "shifted"),
    ("Tanh", ["shifted"], "bent"),
    ("MatMul", ["bent", "outer_w"], "outer"),
    ("Mul", ["outer", "rate"], "change"),
    ("Add", ["z", "change"], "z_next"),
    ("Identity", ["go"], "on"),
]
"""A residual step."""


def info(name: str, *shape: str | int, kind: int = onnx.TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def body(path: str, nodes, inputs, outputs, weights: dict[str, np.ndarray]) -> onnx.GraphProto:
    made = [onnx.helper.make_node(op, reads, [output], name=f"{path}/{output}") for op, reads, output in nodes]
    values = [onnx.numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in weights.items()]
    return onnx.helper.make_graph(made, path.strip("/"), inputs, outputs, values)


def looped() -> Network:
    """Recurrent cells written out as control flow: a gated Scan backwards over time, and a Loop that refines its states
    in six residual steps."""
    length, words, hidden = 24, 400, 64
    samples = texts(length, words, "tokens")
    b, (ids,) = start("looped", 17, 10, samples)

    def matrix(rows: int, columns: int, gain: float) -> np.ndarray:
        return b.rng.normal(0, np.sqrt(gain / rows), (rows, columns))

    table = b.weight("embedding.weight", b.rng.normal(0, 1, (words, 48)).astype(np.float32))
    x = b.node("Transpose", [b.node("Gather", [table, ids], "/embedding")], "/embedding", perm=[1, 0, 2])
    x = b.linear(x, "/project", hidden)
    h = b.node(
        "Tanh", [b.linear(b.node("ReduceMean", [x], "/first", axes=[0], keepdims=0), "/first", hidden)], "/first"
    )
    weights = {
        "gate_w": matrix(hidden, hidden, 1.5),
        "new_w": matrix(hidden, hidden, 1.5),
        "new_b": b.rng.normal(0, 0.3, hidden),
        "rate": b.rng.uniform(0.3, 0.7, hidden),
    }
    scan = body(
        "/scan/body",
        CELL,
        [info("h", "N", hidden), info("x_t", "N", hidden)],
        [info("h_next", "N", hidden), info("y_t", "N", hidden)],
        weights,
    )
    more = {"scan_input_directions": [1], "scan_output_directions": [1]}
    _, x = b.node("Scan", [h, x], "/scan", count=2, body=scan, num_scan_inputs=1, **more)
    x = b.layer_norm(b.node("Transpose", [x], "/scan", perm=[1, 0, 2]), "/norm")
    weights = {
        "inner_w": matrix(hidden, 96, 1.0),
        "inner_b": b.rng.normal(0, 0.3, 96),
        "outer_w": matrix(96, hidden, 1.0),
        "rate": np.float32(0.4),
    }
    whole, truth = onnx.TensorProto.INT64, onnx.TensorProto.BOOL
    loop = body(
        "/refine/body",
        REFINE,
        [info("i", kind=whole), info("go", kind=truth), info("z", "N", length, hidden)],
        [info("on", kind=truth), info("z_next", "N", length, hidden)],
        weights,
    )
    trip, yes = b.constant("/refine", np.array(6, np.int64)), b.constant("/refine", np.array(True))
    x = b.node("Loop", [trip, yes, x], "/refine", body=loop)
    tags = b.linear(b.node("Tanh", [b.linear(x, "/tags/0", 64)], "/tags/1"), "/tags/2", 12)
    return Network("looped", b.finish({"tags": tags}), samples)


NETWORKS: dict[str, Callable[[], Network]] = {
    f.__name__: f for f in (resnet, mobilenet, densenet, bert, vit, lstm, unet, mixed, quantized, looped)
}


@cache
def network(name: str) -> Network:
    """A network by name, made once."""
    return NETWORKS[name]()
