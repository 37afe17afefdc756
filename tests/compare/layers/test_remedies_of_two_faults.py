"""Remedies where more than one thing differs at a node, and where what differs only looks like something else."""

from __future__ import annotations

import numpy as np

from support.layerwise import compare, only
from support.models import normal, parsed


def test_an_operator_that_only_looks_as_if_it_moved_values_is_to_be_left_out():
    """A spectrum of real values is its own conjugate, read backwards."""
    text = "g (float[1,16,1] x) => (float[1,16,2] y) {{ [dft] {} }}"
    one = parsed(text.format("y = DFT(x)"))
    other = parsed(text.format("d = DFT(x) [conj] y = Mul(d, signs)"), signs=np.array([1, -1], np.float32))
    culprit = only(compare(one, other, [{"x": normal(1, 16, 1)}]))
    assert culprit.cause == "wrong-op"
    assert culprit.remedies[0].text == "leave Mul conj out of the second file"


def test_a_number_beside_a_node_too_many_is_put_right_with_it():
    """Steps that are half as long, and the first of them alone."""
    text = "g (float[1,64,1] x) => (float[1,3,17,2] y) {{ [stft] {} = STFT(x, step, , length) {} }}"
    given = {"length": np.int64(32)}
    one = parsed(text.format("y", ""), step=np.int64(16), **given)
    cut = {"first": np.array([0]), "last": np.array([3]), "axis": np.array([1])}
    other = parsed(text.format("s", "[cut] y = Slice(s, first, last, axis)"), step=np.int64(8), **given, **cut)
    culprit = only(compare(one, other, [{"x": normal(1, 64, 1)}]))
    assert culprit.remedies[0].text == "leave Slice cut out of the second file, and set the constant of stft to 16"


def test_a_constant_for_what_is_computed_is_told_where_the_operator_takes_one():
    """Where a text ends."""
    text = "g (int64[4,6] ids) => (float[4,3] y) {{ [emb] e = Gather(table, ids) {} [down] y = MatMul(p, w) }}"
    weights = {"table": normal(9, 5, seed=1), "w": normal(5, 3, seed=2), "axis": np.array([1])}
    pick = "[pick] p = GatherND<batch_dims=1>(e, i)"
    end = f"[end] m = ArgMax<axis=1, keepdims=0>(ids) [wide] i = Unsqueeze(m, axis) {pick}"
    one = parsed(text.format(end), **weights)
    fixed = {"i": np.full((4, 1), 5)}
    other = parsed(text.format(pick), **{n: weights[n] for n in ("table", "w")}, **fixed)
    culprit = only(compare(one, other, [{"ids": np.array([[1, 8, 2, 0, 0, 0]] * 2 + [[3, 4, 5, 8, 0, 0]] * 2)}]))
    assert "in the reference, and a constant in the candidate" in culprit.evidence


def test_convolutions_that_pad_with_zeros_for_a_pad_that_reflects_are_to_be_given_the_pad():
    text = """g (float[1,2,16] x) => (float[1,3,16] y) {{
        {0} [conv] a = Conv{1}, w) [other] b = Conv{1}, v) y = Mul(a, b) }}"""
    weights = {"w": normal(3, 2, 5, seed=1), "v": normal(3, 2, 5, seed=2)}
    pads = np.array([0, 0, 2, 0, 0, 2])
    one = parsed(text.format('[pad] p = Pad<mode="reflect">(x, pads)', "(p"), pads=pads, **weights)
    other = parsed(text.format("", "<pads=[2,2]>(x"), **weights)
    data = [{"x": normal(1, 2, 16)}]
    culprit = only(compare(one, other, data))
    assert culprit.evidence == "padding reflect by the Pad pad against zeros"
    told = "put the first file's Pad pad before conv in the second file, in place of its own padding"
    assert culprit.remedies[0].text == told
    culprit = only(compare(other, one, data))
    assert culprit.remedies[0].text == "let conv pad with zeros itself in the second file, in place of Pad pad"
