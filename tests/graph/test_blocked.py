"""Files of ONNX Runtime's blocked layout: channels, filters, and plain tensors beside those of blocks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff.graph.blocked import blocked_tensors, plain_filters, with_plain_borders
from layerdiff.graph.load import load
from layerdiff.graph.pairing.matching import match

from support.models import normal, parsed

DOMAIN = "com.microsoft.nchwc"
SIZES = {"w0": (20, 3, 3, 3), "w1": (32, 20, 3, 3), "wd": (32, 1, 3, 3), "w2": (16, 32, 1, 1)}
WEIGHTS = {name: normal(*sizes, seed=i) for i, (name, sizes) in enumerate(SIZES.items())}
BIASES = {"b0": normal(20, seed=7), "b1": normal(32, seed=8)}
PLAIN = """g (float[1,3,9,9] x) => (float[1,16,1,1] y) {
    [c0] a = Conv<pads=[1,1,1,1]>(x, w0, b0) [r0] b = Relu(a)
    [c1] c = Conv<pads=[1,1,1,1]>(b, w1, b1) [dw] d = Conv<group=32,pads=[1,1,1,1]>(c, wd)
    [sum] e = Add(d, c) [act] f = Relu(e) [max] h = MaxPool<kernel_shape=[3,3]>(f) [c2] i = Conv(h, w2)
    [pool] y = GlobalAveragePool(i) }"""
BLOCKED = """g (float[1,3,9,9] x) => (float[1,16,1,1] y) {
    [b_nchwc] t0 = com.microsoft.nchwc.Conv<activation="Relu",pads=[1,1,1,1]>(x, w0, b0)
    [c_nchwc] t1 = com.microsoft.nchwc.Conv<pads=[1,1,1,1]>(t0, w1, b1)
    [d_nchwc] t2 = com.microsoft.nchwc.Conv<activation="Relu",group=32,pads=[1,1,1,1]>(t1, wd, , t1)
    [h_nchwc] t3 = com.microsoft.nchwc.MaxPool<kernel_shape=[3,3]>(t2)
    [i_nchwc] t4 = com.microsoft.nchwc.Conv(t3, w2)
    [y_nchwc] t5 = com.microsoft.nchwc.GlobalAveragePool(t4)
    [back] y = com.microsoft.nchwc.ReorderOutput<channels=16>(t5) }"""
OUTPUTS_ONLY = {"w0", "wd"}
"""Filters of which the input channels are in no blocks."""


def padded(size: int, block: int) -> int:
    return -(-size // block) * block


def laid_out(name: str, values: np.ndarray, block: int) -> np.ndarray:
    """Filters as the blocked layout stores them."""
    out, read, high, wide = values.shape
    whole = padded(out, block), read if name in OUTPUTS_ONLY else padded(read, block), high, wide
    filled = np.zeros(whole, np.float32)
    filled[:out, :read] = values
    if name in OUTPUTS_ONLY:
        return filled.reshape(-1, block, *whole[1:]).transpose(0, 2, 3, 4, 1).reshape(whole)
    parts = filled.reshape(whole[0] // block, block, whole[1] // block, block, high, wide)
    return parts.transpose(0, 2, 4, 5, 3, 1).reshape(whole)


def blocked(block: int, **changed: np.ndarray) -> onnx.ModelProto:
    given = {**WEIGHTS, **BIASES, **changed}
    weights = {name: laid_out(name, given[name], block) for name in WEIGHTS}
    biases = {name: np.pad(given[name], (0, -len(given[name]) % block)) for name in BIASES}
    return parsed(BLOCKED, domains=[DOMAIN], **weights, **biases)


def plain() -> onnx.ModelProto:
    return parsed(PLAIN, **WEIGHTS, **BIASES)


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("name", SIZES)
def test_filters_are_put_back(block, name):
    out, read = SIZES[name][:2]
    back = plain_filters(laid_out(name, WEIGHTS[name], block), block, name in OUTPUTS_ONLY)
    np.testing.assert_array_equal(back[:out, :read], WEIGHTS[name])


@pytest.mark.parametrize("block", [8, 16])
def test_channels_are_those_that_are_not_filled_up(block):
    counts = blocked_tensors(load(blocked(block)).index)
    assert counts == {"t0": 20, "t1": 32, "t2": 32, "t3": 32, "t4": 16, "t5": 16}


def test_channels_of_zeros_that_are_read_or_have_a_bias_are_there():
    zeros = WEIGHTS["w0"].copy()
    zeros[16:] = 0
    assert blocked_tensors(load(blocked(16, w0=zeros)).index)["t0"] == 20  # by its bias
    unread = WEIGHTS["w1"].copy()
    unread[:, 18:] = 0
    bias = np.zeros(20, np.float32)
    counts = (blocked_tensors(load(blocked(block, w0=zeros, w1=unread, b0=bias)).index)["t0"] for block in (8, 16))
    assert list(counts) == [18, 18]


@pytest.mark.parametrize("block", [8, 16])
def test_a_blocked_file_is_matched_with_a_plain_one(block):
    model = with_plain_borders(load(blocked(block)))
    found = match(load(plain()).index, model.index)
    assert not found.differences
    assert {found.tensors[name] for name in ("b", "c", "h", "i", "y")} == {"b", "c", "h", "i", "y"}
    assert found.tensors["f"] == "t2__plain"


SUM = """g (float[1,20,9,9] x) => (float[1,24,9,9] y) {
    t0 = com.microsoft.nchwc.ReorderInput(x) [t1_nchwc] t1 = com.microsoft.nchwc.Conv(t0, narrow)
    [t2_nchwc] t2 = com.microsoft.nchwc.Conv(t1, wide)
    [t3_nchwc] t3 = com.microsoft.nchwc.Conv(t2, back, , t1)
    [t4_nchwc] t4 = com.microsoft.nchwc.Conv(t3, last) y = com.microsoft.nchwc.ReorderOutput<channels=24>(t4) }"""


@pytest.mark.parametrize("block", [8, 16])
def test_a_convolution_that_adds_a_tensor_does_not_read_its_channels(block):
    sizes = {"narrow": (20, 20, 1, 1), "wide": (72, 20, 1, 1), "back": (20, 72, 1, 1), "last": (24, 20, 1, 1)}
    weights = {name: laid_out(name, normal(*shape, seed=i), block) for i, (name, shape) in enumerate(sizes.items())}
    counts = blocked_tensors(load(parsed(SUM, domains=[DOMAIN], **weights)).index)
    assert {name: counts[name] for name in ("t1", "t2", "t3")} == {"t1": 20, "t2": 72, "t3": 20}


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("name", SIZES)
def test_one_filter_that_differs_is_told_alone(block, name):
    changed = WEIGHTS[name].copy()
    changed[3, 0] += 1
    found = match(load(plain()).index, with_plain_borders(load(blocked(block, **{name: changed}))).index)
    (difference,) = found.differences
    reader = next(node.name for node in plain().graph.node if name in node.input)
    assert load(plain()).index.names[difference.node] == reader
    assert f"{changed[3, 0].size} of {changed.size:,} weights differ" in difference.detail


def test_every_tensor_of_blocks_is_there_in_a_plain_layout_once():
    model = with_plain_borders(load(blocked(16)))
    made = [name for node in model.proto.graph.node for name in node.output]
    assert len(made) == len(set(made))
    shapes = {name: model.index.specs[name].shape for name in ("b", "c", "t2__plain", "h", "i", "y")}
    assert shapes["b"] == (1, 20, 9, 9)
    assert shapes["h"] == (1, 32, 7, 7)
    assert shapes["y"] == (1, 16, 1, 1)
    assert with_plain_borders(load(plain())).proto.graph.node == plain().graph.node
