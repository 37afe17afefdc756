"""A Where that has the opposite condition is told as that, where the opposite of it explains the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from layerdiff import OnnxrtRunner
from layerdiff.compare.causes.inverted_condition import explains
from layerdiff.compare.causes.reruns import Reruns
from layerdiff.graph.errors import BuildError
from layerdiff.runners.contract.workload import Workload

from support.layerwise import FP16, compare, only
from support.models import normal, parsed

MASK = np.random.default_rng(0).random((4, 4)) > 0.4
np.fill_diagonal(MASK, True)
DATA = [{"x": normal(4, 8, seed=1), "m": MASK}]
WEIGHTS = {"zero": np.float32(0), "low": np.float32(-1e4), "w": normal(8, 8, seed=2)}


def attention(condition: str, *, gain: str = "w"):
    text = f"""g (float[4,8] x, bool[4,4] m) => (float[4,8] y) {{ [q] q = MatMul(x, w)
        [turn] t = Transpose<perm=[1,0]>(x) [score] s = MatMul(q, t) {condition} [add] a = Add(s, b)
        [soft] p = Softmax(a) [v] v = MatMul(x, {gain}) [y] y = MatMul(p, v) }}"""
    return parsed(text, **WEIGHTS, w2=2 * WEIGHTS["w"])


RIGHT = "[mask] b = Where(m, zero, low)"
NEGATED = "[not] n = Not(m) [mask] b = Where(n, zero, low)"
EXCHANGED = "[not] n = Not(m) [mask] b = Where(n, low, zero)"


def test_the_condition_is_told():
    culprit = only(compare(attention(RIGHT), attention(NEGATED), DATA))
    assert (culprit.node, culprit.cause) == ("mask", "wrong-op")
    assert culprit.evidence.startswith(
        "the condition 'n' of Where mask is inverted: with the opposite one the candidate makes what the reference does"
    )


@dataclass(frozen=True)
class BuiltForSamples(OnnxrtRunner):
    """ONNX Runtime, which refuses, as TensorRT does, open shapes that no sample of its workload has."""

    def open(self, model: Any, *, workload: Workload | None = None, **rest: Any) -> Any:
        seen = {n for feed in (workload and workload.samples and workload.samples()) or () for n in feed}
        for spec in model.inputs:
            if spec.name not in seen and any(not isinstance(d, int) for d in spec.shape):
                raise BuildError(f"{spec.name} has a dynamic shape.")
        return super().open(model, workload=workload, **rest)


def test_the_condition_is_told_where_a_runtime_builds_for_shapes():
    built = BuiltForSamples(threads=1)
    culprit = only(compare(attention(RIGHT), attention(NEGATED), DATA, ort=built))
    assert "the condition 'n' of Where mask is inverted" in culprit.evidence


def test_one_file_on_two_runtimes_has_no_inverted_condition(monkeypatch):
    def altered(*_: Any) -> None:
        raise AssertionError("a piece was run altered")

    monkeypatch.setattr(Reruns, "altered", altered)
    where = "g (float[4] x, bool[4] m) => (float[4] y) { [mask] a = Where(m, x, low) [y] y = Mul(a, a) }"
    data = [{"x": normal(4), "m": np.array([True, False, True, False])}]
    report = compare(parsed(where, low=np.float32(-1e5)), FP16, data)
    assert [(c.node, c.cause) for c in report.culprits] == [("mask", "saturation")]


def test_two_inversions_are_none():
    report = compare(attention(RIGHT), attention(EXCHANGED), DATA)
    assert report.verdict == "pass"
    assert not report.culprits


def test_another_fault_beside_a_condition_is_not_told_as_one():
    report = compare(attention(RIGHT), attention(RIGHT, gain="w2"), DATA)
    assert report.verdict == "fail"
    assert not any("inverted" in c.evidence for c in report.culprits)


Y = np.array([[1.0, 2.0], [3.0, -np.inf]], np.float32)


@pytest.mark.parametrize(
    ("c", "made", "right"),
    [
        (Y + 1, Y, True),
        (np.full_like(Y, -np.inf), Y, True),
        (Y + 1, Y + np.float32(0.5), False),
        (Y + 1, np.nan_to_num(Y), False),
        (Y, Y, False),
    ],
    ids=["right", "nothing was let through", "half as wrong", "finite where the reference is not", "equal"],
)
def test_only_what_leaves_nothing_explains(c, made, right):
    assert explains(Y, c, made) == right
