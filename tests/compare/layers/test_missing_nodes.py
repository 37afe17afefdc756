"""Nodes between two products that one file lacks, or has in another order."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

WEIGHTS = {"w": normal(8, 16), "v": normal(16, 4, seed=1), "u": normal(16, seed=5)}
NUMBERS = {"three": np.array([3.0], np.float32), "seven": np.array([7.0], np.float32)}
DATA = [{"x": normal(6, 8, seed=2)}]
STEPS = {
    "three": "[three] {out} = Mul({data}, three)",
    "seven": "[seven] {out} = Mul({data}, seven)",
    "bias": "[bias] {out} = Add({data}, u)",
    "relu": "[relu] {out} = Relu({data})",
    "tanh": "[tanh] {out} = Tanh({data})",
    "gate": "[gate] {out} = Sigmoid({data})",
}


def network(*steps: str):
    nodes = " ".join(STEPS[step].format(data=f"t{i}", out=f"t{i + 1}") for i, step in enumerate(steps))
    text = f"""g (float[6,8] x) => (float[6,4] y) {{
        [first] t0 = MatMul(x, w) {nodes} [last] y = MatMul(t{len(steps)}, v) }}"""
    read = {name: value for name, value in (WEIGHTS | NUMBERS).items() if f", {name})" in text}
    return parsed(text, **read)


@pytest.mark.parametrize(
    ("reference", "candidate", "node", "cause", "evidence"),
    [
        (["three", "seven"], ["three"], "seven", "scale", "Mul seven missing in the candidate"),
        (["three"], ["three", "seven"], "three", "scale", "Mul seven in the candidate alone"),
        (["three", "tanh", "seven"], ["three", "seven"], "tanh", "wrong-op", "Tanh tanh missing in the candidate"),
        (["three", "tanh", "seven"], ["three"], "seven", "wrong-op", "Tanh tanh, Mul seven missing in the candidate"),
        (["bias", "relu", "three"], ["three"], "relu", "wrong-op", "Add bias, Relu relu missing in the candidate"),
        (["three", "gate"], ["gate", "three"], "gate", "wrong-op", "Mul, Sigmoid against Sigmoid, Mul"),
        (["gate", "three"], ["three", "gate"], "three", "wrong-op", "Sigmoid, Mul against Mul, Sigmoid"),
        (["three", "bias"], ["bias", "three"], "bias", "wrong-op", "Mul, Add against Add, Mul"),
        (["bias", "three"], ["three", "bias"], "three", "wrong-op", "Add, Mul against Mul, Add"),
        (["relu", "bias"], ["bias", "relu"], "bias", "wrong-op", "Relu, Add against Add, Relu"),
    ],
)
def test_what_is_missing_or_in_another_order_is_told_once(reference, candidate, node, cause, evidence):
    culprit = only(compare(network(*reference), network(*candidate), DATA))
    assert (culprit.node, culprit.cause) == (node, cause)
    assert culprit.evidence.count(evidence) == 1


@pytest.mark.parametrize("more", [["seven"], ["tanh"], ["relu", "three"]])
def test_what_the_second_file_alone_has_is_to_be_left_out(more):
    culprit = only(compare(network("bias"), network("bias", *more), DATA))
    ops = {"seven": "Mul", "three": "Mul", "tanh": "Tanh", "relu": "Relu"}
    names = " and ".join(f"{ops[name]} {name}" for name in more)
    assert culprit.remedies[0].text == f"leave {names} out of the second file"


@pytest.mark.parametrize(
    ("one", "other"), [(["relu", "tanh"], ["tanh", "relu"]), (["three", "seven"], ["seven", "three"])]
)
def test_another_order_that_makes_no_difference_is_no_fault(one, other):
    report = compare(network(*one), network(*other), DATA)
    assert report.verdict == "pass"
    assert not report.culprits
