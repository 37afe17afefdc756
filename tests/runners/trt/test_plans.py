"""Precision plans on TensorRT: types written into the graph for every set that is judged, or layer precisions."""

import json

import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.runners.trt.runner import TrtRunner

from support import ray_standin
from support.plan_networks import cancelling, overflowing, samples
from support.trt_cases import ELEVEN, OLD, TEN
from support.trt_standin import engines

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    ("version", "runner"), [(ELEVEN, TrtRunner(fp16=True)), (TEN, TrtRunner(fp16=True, strongly_typed=True))]
)
def test_a_plan_is_searched_on_engines_and_layers_are_measured_without_any(tensorrt, tmp_path, version, runner):
    tensorrt(version)
    path = str(tmp_path / "plan.json")
    runners = [OnnxrtRunner(), runner]
    report = Comparator(overflowing(), runners, data_loader=samples(), fix=path).compare()
    plan = report.plan
    assert plan.status == "found"
    # emulated, fc2 overflows too; the stand-in computes with ONNX Runtime, which carries FP32 past that, and it decides
    assert [layer.node for layer in plan.kept] == ["fc1"]
    assert plan.minimal
    assert plan.probes == 5
    assert plan.runs == 3, "what was expected to do, and that without each of its two layers"
    report = Comparator(overflowing(), runners, data_loader=samples(), plan=path).compare()
    assert report.verdict == "pass"
    assert report.candidates[0].options["keep"] == list(plan.keep)


def test_where_times_are_asked_for_they_tell_what_keeping_costs(tensorrt, tmp_path):
    tensorrt(ELEVEN)
    path = str(tmp_path / "plan.json")
    runners = [OnnxrtRunner(), TrtRunner(fp16=True)]
    plan = Comparator(overflowing(), runners, data_loader=samples(), fix=path, latency=2).compare().plan
    assert [layer.node for layer in plan.kept] == ["fc1"]
    assert plan.cost == "time"
    assert plan.before.latency == plan.after.latency == plan.fp32.latency == 1, "of whole runs, by CUDA's events"
    assert plan.fp32.passed
    assert (plan.first_pass, plan.runs) == (1, 3), "the engine of everything in FP32 is none of the search's"
    assert [point.layers for point in plan.curve] == [0, 5, 2, 1, 1]


@pytest.fixture
def rounding(tensorrt, monkeypatch):
    """TensorRT 8.6 whose engines round after every node that is not held in FP32."""
    tensorrt(OLD)
    monkeypatch.setattr(engines, "run", engines.rounded(engines.run))


def test_cancellation_on_layer_precisions_takes_one_engine_and_one_to_be_timed(rounding, tmp_path):
    path = str(tmp_path / "plan.json")
    runners = [OnnxrtRunner(), TrtRunner(fp16=True)]
    plan = Comparator(cancelling(), runners, data_loader=samples(), fix=path, latency=2).compare().plan
    assert [layer.node for layer in plan.kept] == ["fc1"]
    assert (plan.first_pass, plan.runs, plan.minimal) == (1, 1, True)
    assert plan.kept[0].without == plan.before
    assert (plan.cost, plan.fp32.passed) == ("time", True)


def test_engines_of_a_search_on_a_cluster_take_a_gpu_each_and_emulated_probes_none(tensorrt, tmp_path, monkeypatch):
    """Two of the three that are judged drop one layer each: they are built at once. So are four emulations of
    everything, the nearest of which measures layers."""
    tensorrt(ELEVEN)
    ray = ray_standin.install(monkeypatch, CPU=8.0, GPU=2.0)
    runners = [OnnxrtRunner(), TrtRunner(fp16=True)]

    def plan(**options):
        path = tmp_path / "plan.json"
        Comparator(overflowing(), runners, data_loader=samples(), fix=str(path), **options).compare()
        return json.loads(path.read_text(), object_hook=untimed)

    def untimed(found):
        return {key: value for key, value in found.items() if key != "seconds"}

    alone = plan()
    assert plan(ray="auto") == alone
    assert alone["minimal"]
    assert [asked["num_gpus"] for asked in ray.started] == [0] * (4 + alone["probes"]) + [1] * alone["runs"]
    assert ray.at_once[-3:] == [1, 2, 1]


def test_the_engine_that_is_saved_is_the_one_that_was_asked_for(tensorrt, tmp_path):
    tensorrt(ELEVEN)
    engine = tmp_path / "net.engine"
    runners = [OnnxrtRunner(), TrtRunner(fp16=True, save_engine=str(engine))]
    plan = Comparator(overflowing(), runners, data_loader=samples(), fix=str(tmp_path / "plan.json")).compare().plan
    assert plan.runs == 3
    assert json.loads((tmp_path / "net.engine.json").read_text())["choices"]["keep"] == []
