"""Small models, and runners that are Python functions: the comparator's tests need no runtime but these."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from layerdiff import Runner, Session
from layerdiff.graph.formats import FP32, NumberFormat
from layerdiff.runners.contract.runner import SessionInfo

# What a terminal's width would fold is not what a pipe gets; pytest-xdist sets it for its workers.
os.environ.pop("COLUMNS", None)


def parse(text: str) -> onnx.ModelProto:
    """A model from ONNX's textual form, with versions that every supported runtime reads."""
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]>\n{text}')
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def onnx_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model given as text, with weights by name; returns the path."""

    def write(text: str, name: str = "model.onnx", **weights: np.ndarray) -> Path:
        model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]>\n{text}')
        model.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in weights.items())
        onnx.checker.check_model(model)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write


@dataclass(frozen=True)
class FunctionRunner(Runner):
    """A runner whose runtime is ``function(feed) -> outputs``."""

    function: Callable[[dict[str, np.ndarray]], dict[str, Any]] = lambda feed: {}
    label: str = "function"
    rank: int = 45
    number_format: NumberFormat = FP32
    refuses: Exception | None = None
    opened: list[Any] = field(default_factory=list, compare=False)

    @property
    def name(self) -> str:
        return self.label

    @property
    def trust(self) -> int:
        return self.rank

    @property
    def arithmetic(self) -> NumberFormat:
        return self.number_format

    def open(self, model, *, fetch=(), workload=None, progress=None):
        self.opened.append(model)
        if self.refuses is not None:
            raise self.refuses
        return FunctionSession(self, model)


class FunctionSession(Session):
    info = SessionInfo(options={"speed": "slow"}, versions={"python": "3"})

    def __init__(self, runner: FunctionRunner, model) -> None:
        self.runner = runner
        self.inputs = model.inputs
        self.outputs = model.outputs

    def infer(self, feed, fetch: Sequence[str] | None = None):
        found = self.runner.function(dict(feed))
        if fetch is not None:
            found = {name: {**feed, **found}[name] for name in fetch}
        return {name: np.asarray(value) for name, value in found.items()}


@pytest.fixture
def function_runner() -> type[FunctionRunner]:
    return FunctionRunner


@pytest.fixture
def identity_model() -> onnx.ModelProto:
    """One float input ``x``, one float output ``y``, both of unknown length."""
    return parse("g (float[N] x) => (float[N] y) { y = Identity(x) }")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Says at once why a test on a GPU failed: a run there may be cut off before its summary."""
    if report.failed and "gpu" in report.keywords:
        lines = report.longreprtext.splitlines()
        print("", f"FAILED {report.nodeid}", *lines[-12:], sep="\n", flush=True)
