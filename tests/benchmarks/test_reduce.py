"""The benchmark of reductions: what it asks is the command, and what it counts is what a bundle holds."""

from __future__ import annotations

import argparse

import pytest

from benchmarks.reduce.__main__ import good, markdown
from benchmarks.reduce.running import work

RESULT = {"id": "a/b/0", "kind": "b", "culprit": "conv (Conv): weights", "nodes": 2, "seconds": 1.0, "shown": True}


@pytest.fixture(scope="module")
def results():
    options = argparse.Namespace(case=None, limit=1, keep=None)
    return work("looped", "body_stale_weights", options)


def test_a_planted_fault_is_reduced(results):
    (result,) = results
    assert good(result)
    assert 0 < result["nodes"] <= 5


@pytest.mark.parametrize(
    ("change", "counts"),
    [({}, True), ({"nodes": 6}, False), ({"shown": False, "nodes": None, "why": ["refused"]}, False)],
)
def test_what_counts_as_reduced(change, counts):
    assert good({**RESULT, **change}) is counts


def test_the_page_tells_what_was_missed_and_what_was_not_counted():
    missed = {**RESULT, "id": "a/c/0", "kind": "c", "shown": False, "nodes": None, "why": ["too large"]}
    text = markdown([RESULT, missed, {**RESULT, "id": "a/d/0", "culprit": None}], 1)
    for told in ("50.0 % (1 of 2)", "1 cases name no culprit", "| `a/c/0` | conv (Conv): weights | too large |"):
        assert told in text
