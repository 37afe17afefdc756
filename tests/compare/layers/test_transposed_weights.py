"""Weights that are stored transposed, and a product that transposes them back: what else differs is told as it is."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

DATA = [{"x": normal(4, 16, seed=i)} for i in range(2)]
BIAS = normal(16, seed=3)


def product(weights: np.ndarray, turned: bool, bias: np.ndarray = BIAS, **more):
    columns = weights.shape[0 if turned else 1]
    text = f"""g (float[4,16] x) => (float[4,{columns}] y) {{
        [product] p = Gemm<transB = {int(turned)}>(x, w, b) [end] y = Tanh(p) }}"""
    return parsed(text, w=np.ascontiguousarray(weights), b=bias[:columns], **more)


def changed(weights: np.ndarray) -> np.ndarray:
    weights = weights.copy()
    weights[3, 4] += 1
    return weights


WIDE, SQUARE = normal(16, 12, seed=1), normal(16, 16, seed=2)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("weights", [WIDE, SQUARE], ids=["16x12", "16x16"])
def test_one_changed_weight_is_told_where_all_are_transposed(weights, back):
    mine = weights.T if back else weights
    theirs = changed(weights) if back else changed(weights).T
    culprit = only(compare(product(mine, back), product(theirs, not back), DATA))
    place = "[4,3]" if back else "[3,4]"
    assert (culprit.node, culprit.cause) == ("product", "weights")
    assert culprit.evidence.startswith(f"1 of {weights.size} weights differ, greatest 1 at {place}, ")
    assert "attribute" not in culprit.remedies[0].text


def test_another_bias_is_told_where_the_weights_are_transposed():
    culprit = only(compare(product(SQUARE, False), product(SQUARE.T, True, 2 * BIAS), DATA))
    assert culprit.cause == "weights"
    assert culprit.evidence.startswith("16 of 16 ")


@pytest.mark.parametrize("weights", [SQUARE, changed(SQUARE)], ids=["nothing else", "and a weight"])
def test_weights_that_are_transposed_and_stored_as_they_were_are_the_attributes(weights):
    culprit = only(compare(product(SQUARE, False), product(weights, True), DATA))
    assert culprit.cause == "attribute"
    assert culprit.evidence.startswith("transB 0 against 1")


def test_weights_that_are_transposed_and_stored_so_are_no_difference():
    for weights in (WIDE, SQUARE):
        report = compare(product(weights, False), product(weights.T, True), DATA)
        assert (report.verdict, report.culprits) == ("pass", ())


def quantized(integers: np.ndarray, scales: np.ndarray, turned: bool):
    text = f"""g (float[4,16] x) => (float[4,12] y) {{ w = DequantizeLinear<axis = {int(not turned)}>(q, s)
        [product] p = Gemm<transB = {int(turned)}>(x, w, b) [end] y = Tanh(p) }}"""
    return parsed(text, q=np.ascontiguousarray(integers), s=scales, b=BIAS[:12])


@pytest.mark.parametrize("both", [False, True], ids=["one file", "both files"])
def test_a_changed_weight_is_told_where_they_are_stored_in_steps_too(both):
    scales = np.abs(WIDE).max(axis=0) / 127
    integers = np.round(WIDE / scales).astype(np.int8)
    wrong = integers.copy()
    wrong[3, 4] = -wrong[3, 4]
    mine = quantized(integers, scales, False) if both else product(WIDE, False)
    culprit = only(compare(mine, quantized(wrong.T, scales, True), DATA))
    assert culprit.cause in ("weights", "quantization")
    assert not any(attribute in culprit.evidence for attribute in ("axis", "transB"))
    assert "1 of 192 " in culprit.evidence
