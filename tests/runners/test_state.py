"""What a runner knows of a deployed model is in its configuration: it can be sent to another process."""

import pickle

import numpy as np
import pytest
from layerdiff import EmulateRunner, OnnxrtRunner
from layerdiff.runners.contract.workload import Workload
from layerdiff.runners.trt.runner import TrtRunner

from support import elsewhere
from support.trt_cases import OLD, network, samples

pytest.importorskip("onnxruntime")

MODEL = network(batch=2)
WORK = Workload(samples=samples(2))
(FEED,) = samples(2)()

RUNNERS = [
    OnnxrtRunner(optimization="basic"),
    EmulateRunner(format="fp16"),
    EmulateRunner(format="int8"),
    EmulateRunner(format="e4m3", percentile=99.0),
]


def deployed(runner):
    """The runner for pieces of the model, after the whole of it ran."""
    with runner.open(MODEL, workload=WORK) as session:
        return runner.for_pieces(session.info)


@pytest.mark.parametrize("runner", RUNNERS, ids=lambda runner: runner.name)
def test_a_runner_with_its_state_gives_the_same_bits_in_another_process(runner):
    pieces = deployed(runner)
    here = elsewhere.run(pieces, MODEL.serialized(), FEED, None)
    there = elsewhere.elsewhere(pieces, MODEL, FEED)
    np.testing.assert_array_equal(there["outputs"]["y"], here["outputs"]["y"])


@pytest.mark.parametrize("options", [{"int8": True}, {"int8_qdq": "max"}], ids=["calibrator", "Q/DQ"])
def test_tensorrt_with_its_state_builds_the_same_in_another_process(tensorrt, options):
    module, _ = tensorrt(OLD)
    pieces = deployed(TrtRunner(fp16=True, **options))
    module.calls.clear()
    with pieces.open(MODEL.derive(MODEL.proto)) as session:  # without samples, it could not be calibrated anew
        expected = session.infer(FEED)["y"]
    pins = [call[2].name for call in module.calls if call[:2] == ("ILayer", "precision")]
    there = elsewhere.elsewhere(pieces, MODEL, FEED, OLD)
    assert pins
    assert there["pins"] == pins
    np.testing.assert_array_equal(there["outputs"]["y"], expected)


@pytest.mark.parametrize("runner", RUNNERS, ids=lambda runner: runner.name)
def test_what_a_session_turned_out_to_be_can_be_pickled(runner):
    with runner.open(MODEL, workload=WORK) as session:
        assert pickle.loads(pickle.dumps(session.info)) == session.info


def test_an_emulation_measures_the_ranges_of_a_model_once():
    passes = []

    def counted():
        passes.append(1)
        return iter([FEED])

    runner = EmulateRunner(format="int8")
    with runner.open(MODEL, workload=Workload(samples=counted)) as session:
        pieces = runner.for_pieces(session.info)
    assert pieces.calibrated(MODEL, Workload(samples=counted)) is pieces
    assert len(passes) == 1
    assert pieces.activation_ranges == session.info.calibration.ranges
