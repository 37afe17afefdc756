"""Small models, and runners that are Python functions: the comparator's tests need no runtime but these."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from layerdiff.graph.sources.tensorflow_packages import import_triton

from support.models import parsed
from support.runners import FunctionRunner

import_triton()  # modules of tests import TensorFlow when they are collected

# What a terminal's width would fold is not what a pipe gets; pytest-xdist sets it for its workers.
os.environ.pop("COLUMNS", None)
# What a shell starts in the background ignores Ctrl-C, and so would the programs that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def onnx_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model given as text, with weights by name; returns the path."""

    def write(text: str, name: str = "model.onnx", **weights: np.ndarray) -> Path:
        model = parsed(text, **weights)
        onnx.checker.check_model(model)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def function_runner() -> type[FunctionRunner]:
    return FunctionRunner


@pytest.fixture
def identity_model() -> onnx.ModelProto:
    """One float input ``x``, one float output ``y``, both of unknown length."""
    return parsed("g (float[N] x) => (float[N] y) { y = Identity(x) }")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Says at once why a test on a GPU failed: a run there may be cut off before its summary."""
    if report.failed and "gpu" in report.keywords:
        lines = report.longreprtext.splitlines()
        print("", f"FAILED {report.nodeid}", *lines[-12:], sep="\n", flush=True)
