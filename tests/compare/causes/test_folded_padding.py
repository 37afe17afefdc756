"""Preprocessing that is folded into a convolution which pads with zeros: right inside, wrong at the border."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

MEAN, STD = np.float32([123.0, 117.0, 104.0]), np.float32([58.0, 57.0, 57.5])
W, B = normal(8, 3, 3, 3, scale=0.3), normal(8, seed=1)
DATA = [{"x": (128 + 50 * normal(2, 3, 12, 10, seed=2)).astype(np.float32)}]
FOLDED = {"w": W / STD[:, None, None], "b": B - np.einsum("oikl,i->o", W, MEAN / STD)}


def network(*, folded: bool, settings: str = "pads=[1,1,1,1]", **weights: np.ndarray):
    before = "" if folded else "[mean] m = Sub(x, mean) [std] n = Div(m, std)"
    text = f"""g (float[2,3,12,10] x) => (float[2,8] y) {{ {before}
        [conv] c = Conv<{settings}>({"x" if folded else "n"}, w, b) [relu] r = Relu(c) [pool] p = GlobalAveragePool(r)
        [flat] y = Flatten(p) }}"""
    weights = {"w": W, "b": B, **(FOLDED if folded else {}), **weights}
    if not folded:
        weights |= {"mean": MEAN.reshape(3, 1, 1), "std": STD.reshape(3, 1, 1)}
    return parsed(text, **{name: value.astype(np.float32) for name, value in weights.items()})


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ("pads=[1,1,1,1]", "40 of 120"),
        ('auto_pad="SAME_UPPER"', "40 of 120"),
        ("pads=[1,1,1,1], strides=[2,2]", "10 of 30"),
        ("pads=[2,2,2,2], dilations=[2,2]", "72 of 120"),
    ],
)
@pytest.mark.parametrize("way", [(False, True), (True, False)], ids=["folded", "unfolded"])
def test_zeros_that_stand_before_what_is_folded_are_one_culprit(way, settings, places):
    one, other = (network(folded=folded, settings=settings) for folded in way)
    culprit = only(compare(one, other, DATA))
    assert (culprit.node, culprit.cause) == ("conv", "wrong-op")
    assert "Sub mean and Div std" in culprit.evidence
    assert f"all of the error is where the window reaches beyond the input, at {places} places" in culprit.evidence
    assert "pads with zeros" in culprit.remedies[0].text


def test_what_is_folded_wrongly_is_wrong_inside_too():
    wrong = network(folded=True, b=FOLDED["b"] + 0.5)
    assert "window reaches beyond" not in only(compare(network(folded=False), wrong, DATA)).evidence


def test_what_is_folded_into_a_convolution_without_padding_is_no_fault():
    one, other = (network(folded=folded, settings="pads=[0,0,0,0]") for folded in (False, True))
    assert compare(one, other, DATA).verdict == "pass"


@pytest.mark.parametrize("share", [1.0, 0.5], ids=["all of it", "half of it"])
def test_a_shift_that_is_in_the_bias_of_a_convolution_that_pads_is_told_as_that(share):
    mean = MEAN / 10
    text = """g (float[2,12,10,3] x) => (float[2,8] y) {{ {0} [turn] t = Transpose<perm=[0,3,1,2]>({1})
        [conv] c = Conv<pads=[1,1,1,1]>(t, w, b) [relu] r = Relu(c) [pool] p = GlobalAveragePool(r)
        [flat] y = Flatten(p) }}"""
    shift = np.einsum("oikl,i->o", W.astype(np.float64), mean) * share
    reference = parsed(text.format("[mean] m = Sub(x, mean)", "m"), w=W, b=B, mean=mean)
    candidate = parsed(text.format("", "x"), w=W, b=(B - shift).astype(np.float32))
    report = compare(reference, candidate, [{"x": np.moveaxis(DATA[0]["x"], 1, -1).copy()}])
    assert report.culprits[0].node == "mean"
    assert ("in the bias of Conv conv instead" in report.culprits[0].evidence) == (share == 1)
    if share == 1:
        culprit = only(report)
        assert culprit.cause == "wrong-op"
        told = "shift the input in the second file, too, and take that out of the bias again"
        assert culprit.remedies[0].text == told
