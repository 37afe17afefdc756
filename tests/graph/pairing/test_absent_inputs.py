"""Optional inputs that one of two files alone gives a node: lengths, a mask, scales in place of sizes."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.load import load
from layerdiff.graph.pairing.matching import match

from support.layerwise import compare, only
from support.models import normal, parsed

GRU = """g (float[5,3,4] x, int32[3] lengths) => (float[5,1,3,2] y) {
    [rnn] h = GRU<hidden_size = 2, direction = "reverse">(x, w, r, b INPUT)
    y = Tanh(h)
}"""
WEIGHTS = {"w": normal(1, 6, 4), "r": normal(1, 6, 2, seed=1), "b": normal(1, 12, seed=2)}
MASKED = """g (float[2,5,8] q, float[2,5,8] k, int32[2,5] mask) => (float[2,5,8] y) {
    [attention] a = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, k INPUT)
    y = Tanh(a)
}"""


def gru(given):
    return parsed(GRU.replace(" INPUT", given), **WEIGHTS)


def attention(given):
    return parsed(MASKED.replace(" INPUT", given), domains=["com.microsoft"])


FEEDS = {
    gru: {"x": normal(5, 3, 4, seed=3), "lengths": np.array([2, 5, 3], np.int32)},
    attention: {
        "q": normal(2, 5, 8),
        "k": normal(2, 5, 8, seed=1),
        "mask": np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], np.int32),
    },
}


@pytest.mark.parametrize(
    ("write", "given", "slot", "tensor"),
    [(gru, ", lengths", "sequence_lens", "lengths"), (attention, ",,mask", "key_padding_mask", "mask")],
)
@pytest.mark.parametrize("turned", [False, True], ids=["absent", "more"])
def test_the_input_that_one_file_lacks_is_the_cause(write, given, slot, tensor, turned):
    models = [write(given), write("")]
    culprit = only(compare(*(models[::-1] if turned else models), [FEEDS[write]]))
    has, lacks = ("candidate", "reference") if turned else ("reference", "candidate")
    assert culprit.cause == "wrong-op"
    assert f"reads '{tensor}' as {slot} in the {has}, and has no {slot} in the {lacks}" in culprit.evidence
    assert slot in culprit.remedies[0].text


def test_the_same_tensor_as_another_input_is_told_as_that_alone():
    models = [attention(given) for given in (",,mask", ",mask")]
    (found,) = match(*(load(model).index for model in models)).differences
    assert found.detail.endswith("MultiHeadAttention reads input key_padding_mask as input bias")


RESIZE = """g (float[1,2,13,13] x) => (float[1,2,20,20] y) {
    [up] a = Resize<mode = "linear" MODE>(x INPUT)
    y = Tanh(a)
}"""
SCALES, SIZES = ",,scales", ",,,sizes"


def resize(given, mode="", factor=1.6):
    constants = {"scales": np.array([1, 1, factor, factor], np.float32), "sizes": np.array([1, 2, 20, 20])}
    used = {name: value for name, value in constants.items() if name in given}
    return parsed(RESIZE.replace(" INPUT", given).replace(" MODE", mode), **used)


def test_scales_and_sizes_that_give_the_same_shape_may_not_be_the_same():
    culprit = only(compare(resize(SCALES), resize(SIZES), [{"x": normal(1, 2, 13, 13)}]))
    assert (culprit.node, culprit.cause) == ("up", "attribute")
    expected = "scales [1, 1, 1.6, 1.6] against [1, 1, 1.538462, 1.538462] by the sizes [1, 2, 20, 20]"
    assert expected in culprit.evidence


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (resize(SCALES, factor=20 / 13), resize(SIZES)),
        (resize(SIZES), resize(SIZES)),
        (resize(SCALES), resize(SCALES)),
        *(  # which looks at the sizes alone
            (resize(SCALES, mode), resize(SIZES, mode))
            for mode in [', coordinate_transformation_mode = "align_corners"']
        ),
    ],
)
def test_scales_and_sizes_that_come_to_the_same_are_no_difference(one, other):
    assert match(load(one).index, load(other).index).differences == ()
