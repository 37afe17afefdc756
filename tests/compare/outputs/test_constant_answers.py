"""A metric passes nothing that a constant answer would pass as well."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator
from layerdiff.graph.formats import INT8

from support.models import parsed

CLASSES = 8
TRUTH = np.arange(200) % CLASSES
SCORES = np.eye(CLASSES, dtype=np.float32)[TRUTH]
"""A reference that is always right."""


@pytest.fixture
def judge(function_runner):
    """Compares scores of 200 rows; the candidate computes in INT8."""

    def run(candidate, reference, **rules):
        runners = [
            function_runner(function=lambda feed: {"y": reference}, label="reference", rank=0),
            function_runner(function=lambda feed: {"y": candidate}, label="candidate", rank=1, number_format=INT8),
        ]
        model = parsed("g (float[N, C] x) => (float[N, C] y) { y = Identity(x) }")
        rows = np.random.default_rng(0).random((200, CLASSES), np.float32)
        return Comparator(model, runners, data_loader=[{"x": rows}], **rules).compare()

    return run


RARE = np.where(np.arange(200) < 198, 0, 3)
"""Right answers of which nearly all are the same one."""


@pytest.mark.parametrize("metric", ["top1", "agree"])
@pytest.mark.parametrize(("drop", "verdict"), [(None, "undecided"), (0.5, "undecided"), (0.009, "fail")])
def test_a_drop_that_always_giving_the_same_answer_keeps_decides_nothing(judge, metric, drop, verdict):
    reference = np.eye(CLASSES, dtype=np.float32)[RARE]
    same = np.tile(reference[:1], (200, 1))
    labels = RARE if metric == "top1" else None
    (output,) = judge(same, reference, labels=labels, metric=metric, metric_drop=drop).outputs
    assert output.verdict == verdict
    if verdict == "undecided":
        assert "always giving the same answer would pass as well" in output.reason
        assert "give a --metric-drop of less than 0.01" in output.reason
    sound = judge(reference * np.float32(0.9), reference, labels=labels, metric=metric, metric_drop=0.009)
    assert sound.verdict == "pass"


def test_a_drop_of_a_function_that_zeros_keep_decides_nothing(judge):
    (output,) = judge(
        SCORES * np.float32(0.9),
        SCORES,
        labels=TRUTH,
        metric=lambda outputs, labels: float((outputs["y"].argmax(axis=1) == labels).mean()),
        metric_drop=2,
    ).outputs
    assert output.verdict == "undecided"
    assert "zeros in the place of the outputs would pass as well" in output.reason
