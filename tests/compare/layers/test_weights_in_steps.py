"""Weights that are stored in steps: what rounding to these does not explain stands out among those that it does."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare
from support.models import normal, parsed

COUNT = 6
WEIGHTS = [normal(32, 32, seed=i) / 6 for i in range(COUNT)]
DATA = [{"x": normal(16, 32, seed=100)}]


def chain(stored=None, weights=WEIGHTS):
    """A chain of products with float weights, or with what ``stored`` gives for each: integers, scales, zero points."""
    lines, read, last = [], {}, "x"
    for i, weight in enumerate(weights):
        if stored is None:
            read[f"w{i}"] = weight
        else:
            read |= dict(zip((f"q{i}", f"s{i}", f"z{i}"), stored(i, weight), strict=True))
            lines.append(f"[deq{i}] w{i} = DequantizeLinear<axis = 1>(q{i}, s{i}, z{i})")
        lines.append(f"[fc{i}] a{i} = MatMul({last}, w{i}) [act{i}] h{i} = Tanh(a{i})")
        last = f"h{i}"
    text = " ".join(lines)
    return parsed(f"g (float[16,32] x) => (float[16,32] y) {{ {text} [last] y = Tanh({last}) }}", opset=21, **read)


def four_bits(weight, shift=0.0):
    """Sixteen levels for each channel, rounded to the nearest; or to one that is a part of a step away."""
    low, high = weight.min(0), weight.max(0)
    scale = ((high - low) / 15).astype(np.float32)
    zero = np.clip(np.rint(-low / scale), 0, 15).astype(np.uint8)
    return np.clip(np.rint(weight / scale + zero + shift), 0, 15).astype(np.uint8), scale, zero


def one_wrong(wrong):
    def stored(i, weight):
        integers, scale, zero = four_bits(weight)
        return wrong(integers, scale, zero) if i == 3 else (integers, scale, zero)

    return stored


@pytest.mark.parametrize(
    "wrong",
    [
        lambda q, s, z: (q, s, np.full_like(z, 8)),
        lambda q, s, z: (q, s, z + (np.arange(32) % 2).astype(np.uint8)),
        lambda q, s, z: (np.where(np.arange(32) % 4 == 0, np.minimum(q + 2, 15), q).astype(np.uint8), s, z),
    ],
    ids=["no zero points", "some zero points", "some integers"],
)
def test_what_steps_do_not_explain_is_named_though_noise_would_hide_it(wrong):
    report = compare(chain(), chain(one_wrong(wrong)), DATA, layers="all")
    told = [(c.node, str(c.cause)) for c in report.culprits]
    assert told == [("fc3", "weights")]
    assert "more than half a quantization step from the reference's" in report.culprits[0].evidence
    assert report.culprits[0].remedies[0].text.startswith("quantize the first file's weights of fc3 again")


def test_two_other_weights_are_enough_to_stand_out_from():
    wrong = one_wrong(lambda q, s, z: (q, s, np.full_like(z, 8)))
    report = compare(chain(weights=WEIGHTS[1:4]), chain(lambda i, w: wrong(i + 1, w), WEIGHTS[1:4]), DATA, layers="all")
    assert [(c.node, str(c.cause)) for c in report.culprits] == [("fc2", "weights")]


@pytest.mark.parametrize(
    "stored",
    [lambda i, w: four_bits(w), lambda i, w: four_bits(w, 0.4), lambda i, w: four_bits(w, 0.4 * (i % 2))],
    ids=["to the nearest", "otherwise", "half of them otherwise"],
)
def test_a_quantizer_that_rounds_otherwise_is_no_fault(stored):
    report = compare(chain(), chain(stored), DATA, layers="all")
    assert [c for c in report.culprits if c.cause == "weights"] == []


def eight_bits(axis, wrong=None):
    """One scale for all channels, or one for each; one product has the weights of another."""

    def stored(i, weight):
        weight = WEIGHTS[i - 1] if i == wrong else weight
        scale = (np.abs(weight).max(axis, keepdims=True) / 127 * np.ones((1, 32))).astype(np.float32)
        return np.rint(weight / scale).astype(np.int8), scale[0], np.zeros(32, np.int8)

    return stored


@pytest.mark.parametrize(("wrong", "guilty"), [(None, []), (3, ["fc3"])])
def test_two_files_in_other_steps_differ_by_those_of_both(wrong, guilty):
    report = compare(chain(eight_bits(None)), chain(eight_bits(0, wrong)), DATA, layers="all")
    assert [c.node for c in report.culprits] == guilty
    assert report.verdict == ("fail" if guilty else "undecided")
    assert "the two files store their weights by other scales" in report.outputs[0].reason or guilty


def test_one_scale_that_is_another_leaves_two_files_decided():
    def once_more(i, weight):
        integers, scale, zero = eight_bits(0)(i, weight)
        return integers, scale * np.float32(1.1 if i == 3 else 1), zero

    report = compare(chain(eight_bits(0)), chain(once_more), DATA, layers="all")
    assert (report.verdict, [c.node for c in report.culprits]) == ("fail", ["fc3"])
