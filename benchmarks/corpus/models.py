"""The backend models of the onnx package, by its own loader, with the data that come with them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
from layerdiff import load
from layerdiff.graph.model import Model
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

DATA = Path(onnx.backend.test.__file__).parent / "data"
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "light")


@dataclass(frozen=True)
class CorpusModel:
    """One model.

    Attributes:
        kind: One of `KINDS`.
        name: Its name in the onnx package.
        source: The model, or the file that it is in.
        given: The inputs that come with it, in the order of the model's; None where there are none, or no tensors.
    """

    kind: str
    name: str
    source: onnx.ModelProto | Path
    given: tuple[np.ndarray, ...] | None

    def model(self) -> Model:
        """The model, loaded."""
        return load(self.source) if isinstance(self.source, Path) else Model(self.source, source=self.name)

    def sample(self, model: Model) -> dict[str, np.ndarray] | None:
        """The given inputs by name."""
        if self.given is None or len(self.given) != len(model.inputs):
            return None
        return {spec.name: array for spec, array in zip(model.inputs, self.given, strict=True)}


def corpus() -> Iterator[CorpusModel]:
    """All models, those of single nodes first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nodes = load_model_tests(kind="node")
    for case in nodes:
        yield CorpusModel("node", case.name, case.model, _tensors(case.data_sets[0][0]))
    for kind in KINDS[1:4]:
        for file in sorted((DATA / kind).glob("*/model.onnx")):
            inputs = sorted(file.parent.glob("test_data_set_0/input_*.pb"), key=lambda f: int(f.stem.split("_")[1]))
            yield CorpusModel(kind, file.parent.name, file, _read(inputs))
    for file in sorted((DATA / "light").glob("*.onnx")):
        yield CorpusModel("light", file.stem, file, None)


def _tensors(values: Any) -> tuple[np.ndarray, ...] | None:
    arrays = [numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in values]
    return tuple(map(np.asarray, arrays)) if all(isinstance(a, (np.ndarray, np.generic)) for a in arrays) else None


def _read(files: list[Path]) -> tuple[np.ndarray, ...] | None:
    try:
        return _tensors([onnx.TensorProto.FromString(f.read_bytes()) for f in files])
    except Exception:  # a sequence or an optional in the place of a tensor
        return None
