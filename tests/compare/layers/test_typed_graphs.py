"""Graphs whose types are FP16, under emulation: what overflows by their types is found where it begins."""

import numpy as np
import pytest
from layerdiff.compare.report.model import Cause
from layerdiff.graph.model import Model
from layerdiff.runners.emulate import EmulateRunner

from support.layerwise import compare, only
from support.models import parsed

OVERFLOWS = {
    "a gain that is taken back": ("[gain] b = Mul(a, big) [ungain] c = Mul(b, small)", "gain"),
    "a square under a root": ("[square] b = Mul(a, a) [root] c = Sqrt(b)", "square"),
}


@pytest.mark.parametrize("layers", ["guilty", "all"])
@pytest.mark.parametrize("emulate", ["fp16", "bf16", "tf32"])
@pytest.mark.parametrize("big", [300.0, 3000.0])
@pytest.mark.parametrize("name", OVERFLOWS)
def test_an_overflow_by_the_graphs_types_is_named_where_it_begins(
    name: str, big: float, emulate: str, layers: str
) -> None:
    body, guilty = OVERFLOWS[name]
    text = f"""t (float[4,32] x) => (float[4,8] y) {{
        [enter] h = Cast<to=10>(x) [up] a = MatMul(h, w) {body}
        [down] e = MatMul(c, v) [leave] y = Cast<to=1>(e) }}"""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(0, 1, (32, 16)).astype(np.float16),
        "v": rng.normal(0, 1, (16, 8)).astype(np.float16),
        "big": np.asarray(big, np.float16),
        "small": np.asarray(1 / big, np.float16),
        "axes": np.asarray([1]),
    }
    model = Model(parsed(text, **weights))
    data = [{"x": rng.normal(0, big / 4, (4, 32)).astype(np.float32)}]
    report = compare(model, EmulateRunner(format=emulate), data, layers=layers)
    assert report.verdict == "fail"
    culprit = only(report)
    assert culprit.cause is Cause.OVERFLOW
    assert culprit.node == guilty or any(f"at {guilty}:" in fact.text for fact in culprit.facts)
