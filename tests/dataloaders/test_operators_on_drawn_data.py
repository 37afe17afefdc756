"""Every operator of ONNX, in the model of its own test, runs on the data that are drawn for it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from layerdiff.dataloaders import DataLoader
from layerdiff.graph.errors import BuildError, ModelError, RunnerError
from layerdiff.graph.model import Model

pytest.importorskip("onnxruntime")

# What their inputs demand of one another cannot be told from the graph.
TOO_HARD = ("test_col2im", "test_melweightmatrix", "test_affine_grid")


def runs_on_its_own_data(session, model, case) -> bool:
    """Whether this ONNX Runtime can run the model at all."""
    (inputs, _), *_ = case.data_sets
    try:
        session.infer({spec.name: np.asarray(value) for spec, value in zip(model.inputs, inputs, strict=True)})
    except RunnerError:
        return False
    return True


@pytest.mark.slow
def test_operators():
    from layerdiff.runners.onnxrt.runner import OnnxrtRunner
    from onnx.backend.test.case.node import collect_testcases

    runner = OnnxrtRunner(threads=1, optimization="disable")
    ran, failed = 0, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    for case in cases:
        if case.model is None or case.name.startswith(TOO_HARD):
            continue
        model = Model(case.model)
        try:
            session = runner.open(model)
        except (BuildError, ModelError):  # not in this ONNX Runtime, or no tensors
            continue
        with session:
            try:
                for sample in DataLoader(samples=2).bind(model):
                    session.infer(sample)
                ran += 1
            except RunnerError as error:
                if runs_on_its_own_data(session, model, case):
                    failed[case.name] = str(error)
    assert failed == {}
    assert ran > 1000
