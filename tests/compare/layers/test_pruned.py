"""Channels that are pruned: who keeps others than it is given, and who is right."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

CONV = """g (float[2,3,8,8] x) => (float[2,4,8,8] y) {
    [first] a = Conv<pads=[1,1,1,1]>(x, v, b) [act] r = PRelu(a, s)
    [second] c = Conv<pads=[1,1,1,1]>(r, w) [y] y = Tanh(c) }"""
DENSE = "g (float[6,8] x) => (float[6,4] y) { [first] a = MatMul(x, v) [act] r = Relu(a) [second] y = MatMul(r, w) }"
ALL = [*range(8)]
LEFT = [i for i in ALL if i not in (2, 5)]


def networks(dense: bool, made: list[int], read: list[int]):
    v, w, b = (normal(8, 3, 3, 3, seed=1), normal(4, 8, 3, 3, seed=2) / 4, normal(8, seed=3))
    if dense:
        v, w = normal(8, 8, seed=1), normal(8, 4, seed=2)
        v[:, [2, 5]] = 0
        return parsed(DENSE, v=v, w=w), parsed(DENSE, v=v[:, made].copy(), w=w[read].copy())
    v[[2, 5]], b[[2, 5]] = 0, 0
    slope = np.linspace(0.1, 0.3, 8, dtype=np.float32).reshape(8, 1, 1)
    return parsed(CONV, v=v, w=w, b=b, s=slope), parsed(
        CONV, v=v[made].copy(), w=w[:, read].copy(), b=b[made].copy(), s=slope[made].copy()
    )


@pytest.mark.parametrize("dense", [False, True])
def test_a_reader_that_keeps_other_channels_is_told_not_the_pruned_layer(dense):
    sides = networks(dense, LEFT, [0, 1, 2, 4, 6, 7])
    data = [{"x": normal(6, 8) if dense else normal(2, 3, 8, 8)}]
    culprit = only(compare(*sides, data))
    assert (culprit.node, culprit.cause) == ("second", "weights")
    assert "first keeps channel 3, the weights here are those of channel 2 in place of it" in culprit.evidence
    assert "first keeps" in culprit.remedies[0].text


@pytest.mark.parametrize("dense", [False, True])
def test_the_same_channels_in_both_are_nobodys_fault(dense):
    data = [{"x": normal(6, 8) if dense else normal(2, 3, 8, 8)}]
    report = compare(*networks(dense, LEFT, LEFT), data)
    assert (report.outputs[0].verdict, report.culprits) == ("pass", ())


def test_a_channel_that_is_pruned_and_lives_is_the_fault_of_its_maker():
    left = [i for i in ALL if i not in (2, 4)]
    report = compare(*networks(False, left, left), [{"x": normal(2, 3, 8, 8)}])
    assert "first" in {c.node for c in report.culprits}
    assert not any("in place of" in c.evidence for c in report.culprits)


def test_of_a_sound_pruning_that_passes_no_error_in_pieces_has_to_explain_anything():
    report = compare(*networks(False, LEFT, LEFT), [{"x": normal(2, 3, 8, 8)}])
    assert report.outputs[0].verdict == "pass"
    assert not [notice for notice in report.notices if notice.code == "fidelity"]
