"""What the parts of the stand-in share."""

from __future__ import annotations

DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "BOOL": "bool", "INT8": "int8"}
ONNX_TYPES = {1: "FLOAT", 10: "HALF", 6: "INT32", 7: "INT64", 9: "BOOL", 3: "INT8", 2: "UINT8", 16: "BF16", 17: "FP8"}


def fresh(trt, name):
    """A fresh object of a stand-in class."""
    return getattr(trt, name)()


def host(trt, data):
    memory = fresh(trt, "IHostMemory")
    memory._data = data
    return memory


class IHostMemory:
    def __bytes__(self):
        return self._data
