"""TensorFlow beside PyTorch in one process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("triton")
pytest.importorskip("tensorflow")


def test_pytorch_exports_behind_tensorflow():
    """Triton, which an export imports, does not survive to be loaded behind TensorFlow."""
    program = (
        "from layerdiff.graph.sources.tensorflow_packages import import_tensorflow\n"
        "import_tensorflow()\n"
        "import torch\n"
        "exported = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))\n"
        "print(len(exported.graph.nodes))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
