"""A second file that casts tensors to FP16 or BF16 and back, as exports under autocast do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner

from support.models import normal, parsed

WEIGHTS = {"w": normal(64, 64) / 8, "v": normal(64, 8, seed=2)}
X = {"x": normal(16, 64, seed=1)}
HEAD, TAIL = "g (float[16, 64] x) => (float[16, 8] y) { [first] a = MatMul(x, w)", "[last] y = MatMul(t, v) }"
PLAIN = f"{HEAD} [tanh] t = Tanh(a) {TAIL}"


def cast(to: int) -> str:
    return f"{HEAD} [down] n = Cast<to={to}>(a) [back] b = Cast<to=1>(n) [tanh] t = Tanh(b) {TAIL}"


def compared(second: str, weights: Any = WEIGHTS, first: str = PLAIN, **more: Any) -> Any:
    one, other = parsed(first, **WEIGHTS), parsed(second, **weights)
    runners = [OnnxrtRunner(threads=1)]
    return Comparator(one, runners, candidate_model=other, layers="guilty", data_loader=[X], **more).compare()


@pytest.mark.parametrize(("to", "name"), [(10, "FP16"), (16, "BF16")])
def test_what_the_casts_round_is_expected_and_they_are_named(to: int, name: str) -> None:
    report = compared(cast(to))
    assert (report.verdict, report.culprits) == ("pass", ())
    (text,) = [notice.text for notice in report.notices if notice.code == "cast-and-back"]
    assert f"casts first to {name} and back" in text


def test_a_tolerance_that_the_casts_exceed_names_them() -> None:
    report = compared(cast(16), tolerances={"y": (0, 1e-4)})
    (culprit,) = report.culprits
    assert report.verdict == "fail"
    assert (culprit.node, culprit.op) == ("down", "Cast")
    assert culprit.evidence == "first is cast to BF16 and back in the candidate's file (Cast down)"
    assert "leave out the Casts there and back" in culprit.remedies[0].text


def test_a_fault_beside_the_casts_fails() -> None:
    report = compared(cast(10), {**WEIGHTS, "v": WEIGHTS["v"] * np.float32(1.01)})
    assert (report.verdict, [culprit.node for culprit in report.culprits]) == ("fail", ["last"])


def test_casts_of_parts_of_a_sum_are_no_rounding_that_is_expected() -> None:
    """A product in four parts, whose sums are cast to FP16: another way to compute, and not the type of a tensor."""
    parts = np.split(WEIGHTS["w"], 4)
    body, total = "[split] p0, p1, p2, p3 = Split<axis=-1>(x)", ""
    for i in range(4):
        body += f" [part{i}] m{i} = MatMul(p{i}, w{i})"
        if total:
            body += f" [add{i}] s{i} = Add({total}, m{i})"
        made = f"s{i}" if total else f"m{i}"
        total = f"c{i}" if i < 3 else "a"
        body += f" [half{i}] h{i} = Cast<to=10>({made}) [single{i}] {total} = Cast<to=1>(h{i})"
    second = f"g (float[16, 64] x) => (float[16, 8] y) {{ {body} [tanh] t = Tanh(a) {TAIL}"
    report = compared(second, {"v": WEIGHTS["v"], **{f"w{i}": part for i, part in enumerate(parts)}})
    assert report.verdict == "fail"
    assert not [notice for notice in report.notices if notice.code == "cast-and-back"]
