"""A stand-in for the modules ``tensorrt`` and ``tensorrt_rtx``, made from the bindings of real versions.

They are in ``data/tensorrt_api.json``. The stand-in knows no name that the real version does not have, refuses wrong
numbers and names of arguments, and setting unknown attributes. What it computes, it computes with ONNX Runtime, in a
`FakeCuda` whose device memory is host memory. So a test that passes here says that the runner calls what exists, in a
sensible order; not that TensorRT does what we think.
"""

from .bindings import API as API
from .bindings import make as make
from .cuda import FakeCuda as FakeCuda
