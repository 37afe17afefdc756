"""Random samples have every shape that was asked for: the usual ones, and the smallest and the largest."""

from __future__ import annotations

import pytest
from layerdiff import Comparator, DataLoader, OnnxrtRunner
from layerdiff.runners.contract.workload import ShapeRange

from examples.tiny_decoder import decoder
from support.models import parsed

OF_BATCH_4 = """g (float[N, 3] x) => (float[N, 3] y) <float one = {{1}}, int64 zero = {{0}}, int64 four = {{4}}> {{
    s = Shape(x) n = Gather(s, zero) q = Equal(n, four) k = Constant<value_float = {factor}>()
    w = Where(q, k, one) y = Mul(x, w) }}"""
RANGE = ShapeRange((1, 3), (2, 3), (4, 3))


def compared(shapes, samples=None, factor=2.0):
    models = [parsed(OF_BATCH_4.format(factor=f)) for f in (1.0, factor)]
    return Comparator(
        models[0],
        [OnnxrtRunner()],
        candidate_model=models[1],
        data_loader=DataLoader(samples=samples),
        shapes=shapes,
    ).compare()


def told(report):
    return [notice.text for notice in report.notices if notice.code == "shapes-not-run"]


@pytest.mark.parametrize("samples", [None, 3])
def test_the_largest_shape_of_a_range_is_run(samples):
    report = compared({"x": RANGE}, samples)
    assert (report.verdict, told(report)) == ("fail", [])
    assert compared({"x": RANGE}, samples, factor=1.0).data.samples == (samples or 4)


def test_as_many_samples_are_made_as_there_are_shapes():
    ranges = [{"x": ShapeRange((n, 3), (n + 1, 3), (n + 2, 3))} for n in (1, 5)]
    assert compared(ranges).data.samples == 6


@pytest.mark.parametrize("shapes", [{"x": RANGE}, [{"x": (n, 3)} for n in (1, 2, 4)]], ids=["range", "several"])
def test_shapes_that_no_sample_has_are_told(shapes):
    report = compared(shapes, 2)
    assert report.verdict == "pass"
    assert told(report) == ["No sample has the shapes x:4x3: give more --samples, or none, which makes enough of them."]


def test_ends_that_do_not_belong_together_are_told_and_left_out():
    shapes = {
        "input_ids": ShapeRange((1, 1), (1, 4), (1, 8)),
        "attention_mask": ShapeRange((1, 1), (1, 4), (1, 6)),
    }
    samples = Comparator(decoder(), [OnnxrtRunner(), OnnxrtRunner()], shapes=shapes).prepare()
    assert {sample["input_ids"].shape for sample in samples.samples} == {(1, 4), (1, 1)}
    (notice,) = samples.notices
    assert notice.text.startswith("No sample has the shapes input_ids:1x8, attention_mask:1x6: ")
