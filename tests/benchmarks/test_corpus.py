"""The campaign over the onnx package's backend models: what counts as what."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from benchmarks.corpus.__main__ import page
from benchmarks.corpus.models import KINDS, CorpusModel, corpus
from benchmarks.corpus.ways import WAYS, Outcome, compared
from support.models import parsed

GIVEN, ITSELF, FP16, RANDOM, INT8 = WAYS
SQUARE = parsed("t (float[2,3] x) => (float[2,3] y) { y = Mul(x, x) }")
CUSTOM = parsed("t (float[2,3] x) => (float[2,3] y) { y = my.Op(x) }", domains=["my"])
COPY = parsed("t (int64[2,3] x) => (int64[2,3] y) { y = Neg(x) }")


def entry(proto: onnx.ModelProto, given=None) -> CorpusModel:
    return CorpusModel("node", "m", proto, given)


@pytest.mark.parametrize(
    ("proto", "way", "what", "why"),
    [
        (SQUARE, GIVEN, "agree", ""),
        (SQUARE, ITSELF, "agree", ""),
        (SQUARE, FP16, "agree", ""),
        (CUSTOM, GIVEN, "unsupported", "my"),
        (SQUARE, RANDOM, "agree", ""),
        (COPY, INT8, "undecided", "nothing of this network was rounded"),
        (COPY, FP16, "undecided", "nothing of this network was rounded"),
    ],
)
def test_what_a_comparison_counts_as(proto: onnx.ModelProto, way, what: str, why: str) -> None:
    found = compared(entry(proto), way)
    assert found.what == what
    assert why in found.why


def test_given_data_are_fed_in_the_order_of_the_inputs() -> None:
    proto = parsed("t (float[2] x, float[2] z) => (float[2] y) { y = Sub(x, z) }")
    one = entry(proto, (np.ones(2, np.float32), np.zeros(2, np.float32)))
    sample = one.sample(one.model())
    assert {name: array.tolist() for name, array in sample.items()} == {"x": [1, 1], "z": [0, 0]}


@pytest.mark.slow
def test_all_kinds_of_models_are_there() -> None:
    found = list(corpus())
    assert {e.kind for e in found} == set(KINDS)
    assert len(found) > 1500
    assert sum(e.given is not None for e in found) > 1400


def test_the_page_lists_what_must_not_be() -> None:
    outcomes = [
        Outcome("node", "one", ITSELF.label, "crash", "ValueError: no"),
        Outcome("node", "two", ITSELF.label, "agree", "", ("n: scale",)),
        Outcome("node", "three", GIVEN.label, "disagree", "y: far"),
    ]
    text = page(outcomes, 1, 60.0)
    assert "- one: ValueError: no" in text
    assert "- two: n: scale" in text
    assert "- three: y: far" in text
    assert f"| `{ITSELF.label}` | 2 | 1 | 0 | 0 | 0 | 1 | 0 | 1 |" in text
