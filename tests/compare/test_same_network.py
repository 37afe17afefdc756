"""Two files that are one network are told: a wrong path would agree for ever."""

from __future__ import annotations

import shutil

import pytest
from layerdiff import Comparator, OnnxrtRunner

RELU = "g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"
NEG = "g (float[N, 4] x) => (float[N, 4] y) { y = Neg(x) }"


@pytest.mark.parametrize(
    ("second", "text"),
    [
        ("one.onnx", "{folder}/one.onnx was named twice: no change of a network is compared, only how it is run."),
        (
            "copy.onnx",
            "{folder}/one.onnx and {folder}/copy.onnx hold the same network: no change of a network is compared, only "
            "how it is run.",
        ),
        ("other.onnx", None),
        (None, None),
    ],
)
def test_a_network_that_is_compared_with_itself_is_told(second, text, onnx_file, tmp_path):
    onnx_file(RELU, "one.onnx")
    onnx_file(NEG, "other.onnx")
    shutil.copy(tmp_path / "one.onnx", tmp_path / "copy.onnx")
    candidate = None if second is None else tmp_path / second
    report = Comparator(tmp_path / "one.onnx", [OnnxrtRunner()] * (1 + (second is None)), candidate_model=candidate)
    told = [notice.text for notice in report.compare().notices if notice.code == "same-network"]
    assert told == ([] if text is None else [text.format(folder=tmp_path)])
