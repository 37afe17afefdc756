"""Convolution, pooling and pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx

from ..expectation import Pair, fault, healthy
from ..writing import (
    Drawn,
    File,
    attribute,
    beside,
    file,
    inputs,
    known,
    made,
    network,
    pair,
    set_attribute,
    with_attributes,
)


@dataclass(frozen=True)
class Form:
    """How the small network of `_pictures` is written."""

    padding: str = "pads = [1, 1, 1, 1]"
    groups: int = 4
    counts_padding: int = 0
    flipped: bool = False
    cubic: float = -0.75
    coordinates: str = "half_pixel"
    rows: bool = False
    depth: str = "DCR"
    mean: bool = False


def _pictures(form: Form) -> onnx.ModelProto:
    """Convolutions with what exporters write in several ways between them."""
    drawn = Drawn()
    weights = {
        "w1": drawn.weight(16, 3, 3, 3), "b1": drawn.normal(16, scale=0.1), "w2": drawn.weight(16, 16, 4, 4),
        "w3": drawn.weight(16, 4, 3, 3), "w4": drawn.normal(16, 8, 2, 2, scale=0.2), "wr": drawn.normal(32, scale=0.5),
        "w5": drawn.weight(8, 2, 3, 3), "w6": drawn.weight(8, 10),
    }  # fmt: skip
    if form.flipped:
        weights["w4"] = weights["w4"][:, :, ::-1, ::-1]
    flat = "pooled = ReduceMean<axes = [2, 3], keepdims = 0>(r5)  flat = Identity(pooled)"
    text = f"""pictures (float[2,3,32,32] x) => (y) {{
      c1 = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)  r1 = Relu(c1)
      c2 = Conv<strides = [2, 2], {form.padding}>(r1, w2)  r2 = Relu(c2)
      shuffle_in = Reshape(r2, apart)
      shuffle_turn = Transpose<perm = [0, 2, 1, 3, 4]>(shuffle_in)
      shuffled = Reshape(shuffle_turn, whole)
      c3 = Conv<group = 4, pads = [1, 1, 1, 1]>(shuffled, w3)  r3 = Relu(c3)
      small = AveragePool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1],
                          count_include_pad = {form.counts_padding}>(r3)
      c4 = ConvTranspose<strides = [2, 2]>(small, w4)
      large = Resize<mode = "cubic", cubic_coeff_a = {form.cubic},
                     coordinate_transformation_mode = "{form.coordinates}">(c4, "", twice)
      ramp = Reshape(wr, ramp_shape)
      lit = Add(large, ramp)
      deep = DepthToSpace<blocksize = 2, mode = "{form.depth}">(lit)
      c5 = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(deep, w5)  r5 = Relu(c5)
      {flat if form.mean else "pooled = GlobalAveragePool(r5)  flat = Flatten(pooled)"}
      y = MatMul(flat, w6)
    }}"""
    return network(
        text,
        apart=np.array([2, form.groups, 16 // form.groups, 16, 16]),
        whole=np.array([2, 16, 16, 16]),
        twice=np.array([1, 1, 2, 2], np.float32),
        ramp_shape=np.array([1, 1, 32, 1] if form.rows else [1, 1, 1, 32]),
        **weights,
    )


def _forms(**other: object) -> Pair:
    form = Form()
    return pair(_pictures(form), _pictures(replace(form, **other)), inputs(2, 3, 32, 32))  # type: ignore[arg-type]


@healthy()
def padding_by_name() -> Pair:
    """Padding called SAME_UPPER where that is one on each side"""
    return _forms(padding='auto_pad = "SAME_UPPER"')


@healthy()
def coordinates_by_another_name() -> Pair:
    """A Resize whose mode of coordinates gives the same ones at this size"""
    return _forms(coordinates="pytorch_half_pixel")


@healthy()
def global_pool_as_a_mean() -> Pair:
    """A GlobalAveragePool and Flatten as a ReduceMean"""
    return _forms(mean=True)


@fault("shuffle_*", causes="attribute layout weights")
def channels_shuffled_in_other_groups() -> Pair:
    """Channels shuffled in two groups for four"""
    return _forms(groups=2)


@fault("small", causes="attribute")
def padding_counts() -> Pair:
    """An average pool that counts the padding"""
    return _forms(counts_padding=1)


@fault("c4", causes="weights layout")
def transposed_kernels_flipped() -> Pair:
    """The kernels of a transposed convolution flipped"""
    return _forms(flipped=True)


@fault("large", causes="attribute")
def cubic_coefficient() -> Pair:
    """A cubic Resize with another coefficient"""
    return _forms(cubic=-0.5)


@fault("ramp", "lit", causes="attribute layout weights")
def vector_along_the_other_axis() -> Pair:
    """A vector added along the rows for the columns of a square"""
    return _forms(rows=True)


@fault("deep", causes="attribute layout")
def depth_in_another_order() -> Pair:
    """DepthToSpace in the order of rows for that of depth"""
    return _forms(depth="CRD")


@fault("channel_padding_1", causes="attribute weights")
def channels_padded_in_front() -> Pair:
    """Channels of zeros put before the others, not behind them"""
    net = known("blazeface")
    changed = file(net.reference)
    pad = changed.node("channel_padding_1")
    pads = changed.value(pad.input[1])
    pads[[1, 5]] = pads[[5, 1]]
    pad.input[1] = changed.add("pads_in_front", pads)
    return beside(net, changed)


def _resized(**attributes: str) -> Pair:
    net = known("nudenet", 2)
    changed = file(net.reference)
    with_attributes(changed.node("/model.13/Resize"), attributes)
    return beside(net, changed)


@healthy()
def nearest_by_another_name() -> Pair:
    """Nearest neighbours by other names of the same, at twice the size"""
    return _resized(coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_floor")


@fault("/model.13/Resize", causes="attribute")
def nearest_rounds_up() -> Pair:
    """Nearest neighbours rounded up"""
    return _resized(coordinate_transformation_mode="asymmetric", nearest_mode="ceil")


def _pools(*sizes: int) -> Pair:
    """The three pools of nudenet, one behind another, read the same tensor with greater windows."""
    net = known("nudenet", 2)
    changed = file(net.reference)
    pools = changed.nodes(("MaxPool",))
    read = pools[0].input[0]
    for pool, size in zip(pools, sizes, strict=True):
        pool.input[0] = read
        with_attributes(pool, {"kernel_shape": [size, size], "pads": [size // 2] * 4})
    return beside(net, changed)


@healthy()
def pools_beside_each_other() -> Pair:
    """Three pools behind each other as three of 5, 9 and 13 beside each other"""
    return _pools(5, 9, 13)


@fault("/model.9/m_2/MaxPool*", causes="wrong-op attribute")
def pools_beside_each_other_one_too_small() -> Pair:
    """Three pools behind each other as three beside each other, the last of 9 for 13"""
    return _pools(5, 9, 9)


@healthy()
def products_for_convolutions() -> Pair:
    """Six convolutions of one pixel as matrix products"""
    net = known("face-landmarks", 2)
    changed = file(net.reference)
    left = 6
    for node in changed.nodes(("Conv",)):
        weight = changed.value(node.input[1])
        small = weight.shape[2:] == (1, 1) and attribute(node, "group", 1) == 1
        if small and left and attribute(node, "strides", [1, 1]) == [1, 1] and len(node.input) == 3:
            left -= 1
            _as_product(changed, node, weight)
    return beside(net, changed)


def _as_product(changed: File, node: onnx.NodeProto, weight: np.ndarray) -> None:
    at = node.name
    changed.add(f"{at}_matrix", weight[:, :, 0, 0].T)
    changed.replace(
        node,
        made("Transpose", node.input[0], name=f"{at}_last", perm=[0, 2, 3, 1]),
        made("MatMul", f"{at}_last", f"{at}_matrix", name=f"{at}_product"),
        made("Add", f"{at}_product", node.input[2], name=f"{at}_sum"),
        made("Transpose", f"{at}_sum", name=f"{at}_first", makes=node.output[0], perm=[0, 3, 1, 2]),
    )


@healthy()
def dense_for_depthwise() -> Pair:
    """Four depthwise convolutions as dense ones with zeros"""
    net = known("face-landmarks", 2)
    changed = file(net.reference)
    grouped = [node for node in changed.nodes(("Conv",)) if attribute(node, "group", 1) > 1]
    for node in grouped[:4]:
        weight = changed.value(node.input[1])
        count = len(weight)
        dense = np.zeros((count, count, *weight.shape[2:]), np.float32)
        dense[np.arange(count), np.arange(count)] = weight[:, 0]
        node.input[1] = changed.add(f"{node.name}_dense", dense)
        set_attribute(node, "group", 1)
    return beside(net, changed)


@healthy()
def pool_rounds_up_in_vain() -> Pair:
    """A pool that rounds its size up where nothing is left over"""
    net = known("plcmos")
    changed = file(net.reference)
    set_attribute(changed.node("MaxPool_5"), "ceil_mode", 1)
    return beside(net, changed)


@healthy()
def pool_over_everything() -> Pair:
    """An average pool as large as the picture as a global one"""
    net = known("open-nsfw", 2)
    changed = file(net.reference)
    pool = changed.node("pool/AvgPool")
    pool.op_type = "GlobalAveragePool"
    del pool.attribute[:]
    return beside(net, changed)


@fault("*global_max_pooling2d*", causes="wrong-op")
def mean_for_the_greatest() -> Pair:
    """A global pool that takes the mean for the greatest value"""
    net = known("dnsmos", 2)
    changed = file(net.reference)
    pool = changed.node("mos_estimator_logpow/global_max_pooling2d/Max_reducemax")
    pool.op_type = "ReduceMean"
    return beside(net, changed)


def _rows_last(perm: str) -> onnx.ModelProto:
    drawn = Drawn()
    text = f"""turned (float[1,24,24,3] x) => (y) {{
      first = Transpose<perm = [{perm}]>(x)
      c1 = Conv<pads = [1, 1, 1, 1]>(first, w1)  r1 = Relu(c1)
      c2 = Conv<strides = [2, 2]>(r1, w2)  r2 = Relu(c2)
      flat = Flatten(r2)
      y = MatMul(flat, w3)
    }}"""
    return network(text, w1=drawn.weight(8, 3, 3, 3), w2=drawn.weight(8, 8, 3, 3), w3=drawn.weight(968, 10))


@fault("first", causes="attribute layout")
def rows_and_columns_exchanged() -> Pair:
    """A Transpose that exchanges rows and columns of a square"""
    return pair(_rows_last("0, 3, 1, 2"), _rows_last("0, 3, 2, 1"), inputs(1, 24, 24, 3))


@fault(causes="weights")
def bias_of_4_bits() -> Pair:
    """A bias rounded to four bits"""
    net = known("centerface", 1)
    changed = file(net.reference)
    node = [n for n in changed.nodes(("Conv",)) if len(n.input) > 2][20]
    bias = changed.value(node.input[2])
    step = np.abs(bias).max() / 7
    changed.set_weight(node.input[2], (np.round(bias / step) * step).astype(np.float32))
    return beside(net, changed, at=(node.output[0],))


@fault(causes="weights")
def weights_clipped_at_65504() -> Pair:
    """Weights of up to 130,000, with a factor behind them, clipped at the greatest number of FP16"""
    net = known("centerface", 1)
    large = file(net.reference)
    node = large.nodes(("Conv",))[10]
    output = node.output[0]
    factor = 1.3e5 / np.abs(large.value(node.input[1])).max()
    for name in node.input[1:]:
        large.scaled(name, factor)
    node.output[0] = f"{output}_large"
    reader = large.readers(output)[0]
    large.before(reader, made("Mul", node.output[0], "small_again", name=f"{output}_small", makes=output))
    large.add("small_again", np.array([1 / factor], np.float32))
    clipped = file(large.proto)
    weight = clipped.value(node.input[1])
    clipped.set_weight(node.input[1], np.clip(weight, -65504, 65504))
    return pair(large.proto, clipped, list(net.feeds), at=(node.name, output, f"{output}_large"))
