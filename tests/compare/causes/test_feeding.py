"""One network that gives two results, because it is fed otherwise."""

from __future__ import annotations

import numpy as np
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.causes import feeding
from layerdiff.runners.schedules import UnbatchedRunner

from support.layer_cases import layer_case, told
from support.models import normal, parsed

MEASURES = parsed("g (float[N,8] x) => (uint8[N,8] y) { y, s, z = DynamicQuantizeLinear(x) }")
Y = np.ones((2, 8), np.uint8)


def test_a_range_that_is_measured_on_all_is_told_at_the_quantizer():
    found = feeding.find(layer_case(Y, Y + 1, model=MEASURES), "one entry of the batch at a time")
    assert (found.cause, found.node) == ("feeding", 0)
    assert "DynamicQuantizeLinear_0 measures its range on all that comes at once" in told(found)


def test_other_layers_are_told_without():
    found = feeding.find(layer_case(Y, Y + 1), "one entry of the batch at a time")
    assert (found.cause, found.node, len(found.facts)) == ("feeding", None, 2)


def test_the_quantizer_is_named_with_a_remedy_and_no_product_behind_it():
    """Its ranges are those of the batch, and no product of integers is at fault."""
    model = parsed(
        """g (float[N,8] x) => (float[N,4] y) {
            [measure] q, t, z = DynamicQuantizeLinear(x) [product] i = MatMulInteger(q, w, z)
            [cast] c = Cast<to=1>(i) [scales] u = Mul(t, k) [scale] y = Mul(c, u) }""",
        w=np.arange(32, dtype=np.uint8).reshape(8, 4), k=np.float32(0.1),
    )  # fmt: skip
    data = [{"x": normal(3, 8) * np.array([[1], [3], [0.5]], np.float32)}]
    report = Comparator(model, [OnnxrtRunner(), UnbatchedRunner()], data_loader=data, layers="guilty").compare()
    assert report.verdict == "fail"
    assert [(c.node, c.cause.value) for c in report.culprits] == [("measure", "feeding")]
    assert report.culprits[0].remedies[0].text.startswith("quantize with ranges that are calibrated once")
