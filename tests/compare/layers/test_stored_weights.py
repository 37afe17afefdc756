"""A second file that holds weights in FP16 or BF16 and computes in FP32."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner

from support.models import normal, parsed

W, V, B = normal(64, 64) / 8, normal(64, 8, seed=2), normal(8, seed=3)
X = {"x": normal(16, 64, seed=1)}
HEAD = "g (float[16, 64] x) => (float[16, 8] y) {"
TAIL = "[first] a = MatMul(x, w) [tanh] t = Tanh(a) [last] m = MatMul(t, v) [bias] y = Add(m, b) }"
DTYPES = {"FP16": np.float16, "BF16": ml_dtypes.bfloat16}


def compared(second: str, first: str = f"{HEAD} {TAIL}", **weights: np.ndarray) -> Any:
    one, other = parsed(first, w=W, v=V, b=B), parsed(second, **weights)
    return Comparator(one, [OnnxrtRunner(threads=1)], candidate_model=other, layers="guilty", data_loader=[X]).compare()


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_weights_that_are_stored_narrow_are_judged_like_narrow_weights(dtype: Any) -> None:
    second = f"{HEAD} w = Cast<to=1>(ws) v = Cast<to=1>(vs) b = Cast<to=1>(bs) {TAIL}"
    report = compared(second, ws=W.astype(dtype), vs=V.astype(dtype), bs=B.astype(dtype))
    assert (report.verdict, report.culprits) == ("pass", ())


def test_other_weights_stored_narrow_fail() -> None:
    second = f"{HEAD} w = Cast<to=1>(ws) v = Cast<to=1>(vs) {TAIL}"
    report = compared(second, ws=W.astype(np.float16), vs=(V * 1.01).astype(np.float16), b=B)
    assert (report.verdict, [culprit.node for culprit in report.culprits]) == ("fail", ["last"])


def test_weights_that_are_rounded_and_stored_in_fp32_are_other_weights() -> None:
    report = compared(f"{HEAD} {TAIL}", w=W, v=V.astype(np.float16).astype(np.float32), b=B)
    assert report.verdict == "fail"
    assert [(culprit.node, culprit.cause) for culprit in report.culprits] == [("last", "weights")]
