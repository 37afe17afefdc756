"""The stand-in for TensorRT in place of the library."""

import sys

import pytest
from layerdiff.runners.trt import cuda as cuda_module
from layerdiff.runners.trt.runner import TrtRunner

from support import trt_standin as standin


@pytest.fixture
def tensorrt(monkeypatch):
    """Installs the stand-in of a version, with a GPU made of host memory; returns (module, cuda)."""

    def install(version):
        module, cuda = standin.make(version), standin.FakeCuda()
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(cuda_module, "gpu", lambda: "Stand-in GPU")
        monkeypatch.setattr(cuda_module, "runtime", lambda: cuda)
        monkeypatch.setattr(TrtRunner, "may_crash", False)  # a process of its own would not have the stand-in
        return module, cuda

    return install
