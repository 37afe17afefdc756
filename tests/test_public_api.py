"""The names that others build on: a change here is a change of the interface."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys

import layerdiff
import pytest
from layerdiff import runners

from support.paths import ROOT

PUBLIC = """
Capabilities Comparator DataError DataLoader EmulateRunner FunctionRunner LayerdiffError Model ModelError OnnxrtRunner
RecordedRunner ReferenceEvaluatorRunner Report RtxRunner Rules Runner RunnerError Session ShapeRange TfRunner
TfliteRunner TorchRunner TrtRunner UsageError
__version__ load open_data option
"""


def test_public_names():
    assert sorted(layerdiff.__all__) == sorted(PUBLIC.split())


@pytest.mark.parametrize("name", PUBLIC.split())
def test_every_public_name_loads(name):
    assert getattr(layerdiff, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Comparitor'"):
        _ = layerdiff.Comparitor


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, layerdiff, layerdiff.compare.cli.command, layerdiff.runners as r; r.discover()\n"
        "print({'numpy', 'onnx', 'rich', 'ml_dtypes', 'tensorflow', 'onnxruntime', 'tensorrt'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_built_in_runners_by_flag():
    found = runners.discover(third_parties=False)
    flags = "decode emulate load-outputs onnxrt reference-evaluator tf tflite torch trt trt-rtx unbatched"
    assert set(found) == set(flags.split())
    assert all(cls.flag == flag for flag, cls in found.items())


def test_every_package_is_in_the_wheel():
    """Packages are listed by name in pyproject.toml, so a new folder can be forgotten."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    listed = set(re.findall(r'"(layerdiff[\w.]*)"', re.search(r"^packages = \[(.*?)\]", text, re.M | re.S)[1]))
    found = {"layerdiff"}
    for folder in ("compare", "dataloaders", "graph", "runners"):
        package = importlib.import_module(f"layerdiff.{folder}")
        found.add(package.__name__)
        walked = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        found.update(module.name for module in walked if module.ispkg)
    assert found == listed


def test_no_other_python_file_lies_in_the_root():
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}
