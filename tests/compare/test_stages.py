"""A comparison is data: it can be sent to another process and run there, and what a run leaves can be kept."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, DataLoader, EmulateRunner, OnnxrtRunner, RunnerError
from layerdiff.compare import stages
from layerdiff.compare.assemble import assemble
from layerdiff.compare.collect import Collector
from layerdiff.compare.report.json import to_json
from layerdiff.compare.runs.streaming import execute

TWO_LAYERS = """g (float[N, 8] x) => (float[N, 4] y)
{ h = MatMul(x, w) a = Relu(h) z = MatMul(a, v) y = Softmax <axis = 1> (z) }"""
RNG = np.random.default_rng(0)
WEIGHTS = {"w": RNG.standard_normal((8, 16)).astype(np.float32), "v": RNG.standard_normal((16, 4)).astype(np.float32)}
OFF = {**WEIGHTS, "v": WEIGHTS["v"] * np.float32(1.2)}
LABELS = RNG.integers(0, 4, 6)


@pytest.fixture(scope="module")
def elsewhere():
    """Another process, started as Windows and macOS start them: it inherits nothing."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def said(report) -> dict:
    """All that a report says, but for the times."""
    found = {**to_json(report), "date": None}
    for runner in found["runners"]:
        runner["seconds"] = None
    return found


@pytest.mark.parametrize(
    ("second", "data", "rules"),
    [
        (None, DataLoader(samples=3, seed=5), {}),
        (None, DataLoader(samples=2), {"layers": "guilty"}),
        (OFF, None, {"layers": "all"}),
        (OFF, DataLoader(float_range=(-1.0, 1.0)), {"tolerances": {"y": (0.0, 0.5)}}),
        (None, [{"x": RNG.standard_normal((6, 8)).astype(np.float32)}], {"metric": "top1", "labels": LABELS}),
    ],
    ids=["outputs", "layers", "two files", "tolerances", "labels"],
)
def test_a_comparison_runs_elsewhere_and_the_report_is_the_same(onnx_file, elsewhere, second, data, rules):
    first = onnx_file(TWO_LAYERS, **WEIGHTS)
    other = None if second is None else onnx_file(TWO_LAYERS, "second.onnx", **second)
    runners = [OnnxrtRunner(threads=1), EmulateRunner(format="fp16", threads=1)]
    comparison = Comparator(first, runners, candidate_model=other, data_loader=data, **rules).prepare()
    here = stages.compare(comparison)
    there = elsewhere.submit(stages.compare, comparison).result()
    assert said(there) == said(here)
    assert there.outputs


def test_a_model_that_was_never_in_a_file_is_sent_along(elsewhere):
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]>\n{TWO_LAYERS}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in WEIGHTS.items())
    comparison = Comparator(model, [OnnxrtRunner(), OnnxrtRunner(optimization="disable")]).prepare()
    assert said(elsewhere.submit(stages.compare, comparison).result()) == said(stages.compare(comparison))


def test_what_a_run_leaves_can_be_kept_and_made_a_report_of_later(onnx_file):
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    comparison = Comparator(onnx_file(TWO_LAYERS, **WEIGHTS), runners, latency=2, layers="guilty").prepare()
    collector = Collector(comparison)
    log = execute(comparison, collector.begin, remember=True)
    evidence = collector.evidence(comparison, log)
    kept = pickle.loads(pickle.dumps((log, evidence)))
    assert to_json(assemble(comparison, *kept)) == to_json(assemble(comparison, log, evidence))
    assert kept[0] == log
    assert log.of("emulate:fp16").latency["runs"] == 2
    assert log.of("emulate:fp16").info.versions
    assert log.of("onnxrt").postponed == 0
    kept_of = {(side, sample) for side, sample, _ in log.deployed.hashes}
    assert kept_of == {("onnxrt", 0), *(("emulate:fp16", n) for n in range(4))}


def test_a_notice_has_a_code_a_subject_and_a_text(identity_model, function_runner):
    runners = [
        function_runner(function=lambda feed: {"y": feed["x"]}, label="broken", rank=0, refuses=RunnerError("gone")),
        function_runner(function=lambda feed: {"y": feed["x"]}, label="one", rank=1),
        function_runner(function=lambda feed: {"y": feed["x"]}, label="two", rank=2),
    ]
    report = Comparator(identity_model, runners).compare()
    (notice,) = report.notices
    assert (notice.code, notice.subject) == ("reference-replaced", "broken")
    assert report.warnings == (notice.text,) == (str(notice),)
    assert to_json(report)["notices"] == [{"code": notice.code, "subject": "broken", "text": notice.text}]
    assert notice.text in to_json(report)["warnings"]
