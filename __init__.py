"""layerdiff: do the runtimes agree on this network, where do they part, and why?

The names below are the public ones. They load on first use, so that ``compare --help`` does not pay for NumPy.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers read it; nothing is imported here, as Ctrl-C meanwhile could not be told
if TYPE_CHECKING:
    from typing import Any

    from .compare.comparator import Comparator as Comparator
    from .compare.comparison import Rules as Rules
    from .compare.report.model import Report as Report
    from .dataloaders import DataLoader as DataLoader
    from .dataloaders import open_data as open_data
    from .graph.errors import DataError as DataError
    from .graph.errors import LayerdiffError as LayerdiffError
    from .graph.errors import ModelError as ModelError
    from .graph.errors import RunnerError as RunnerError
    from .graph.errors import UsageError as UsageError
    from .graph.load import load as load
    from .graph.model import Model as Model
    from .graph.options import option as option
    from .runners.contract.capabilities import Capabilities as Capabilities
    from .runners.contract.runner import Runner as Runner
    from .runners.contract.session import Session as Session
    from .runners.contract.workload import ShapeRange as ShapeRange
    from .runners.emulate import EmulateRunner as EmulateRunner
    from .runners.function import FunctionRunner as FunctionRunner
    from .runners.onnxrt.runner import OnnxrtRunner as OnnxrtRunner
    from .runners.pytorch.runner import TorchRunner as TorchRunner
    from .runners.recorded.runner import RecordedRunner as RecordedRunner
    from .runners.reference_evaluator.runner import ReferenceEvaluatorRunner as ReferenceEvaluatorRunner
    from .runners.tf import TfRunner as TfRunner
    from .runners.tflite.runner import TfliteRunner as TfliteRunner
    from .runners.trt.runner import TrtRunner as TrtRunner
    from .runners.trt.trt_rtx import RtxRunner as RtxRunner

__version__ = "0.1.0"

_HOME = {
    "Capabilities": "runners.contract.capabilities",
    "Comparator": "compare.comparator",
    "DataError": "graph.errors",
    "DataLoader": "dataloaders",
    "EmulateRunner": "runners.emulate",
    "FunctionRunner": "runners.function",
    "LayerdiffError": "graph.errors",
    "Model": "graph.model",
    "ModelError": "graph.errors",
    "OnnxrtRunner": "runners.onnxrt.runner",
    "RecordedRunner": "runners.recorded.runner",
    "ReferenceEvaluatorRunner": "runners.reference_evaluator.runner",
    "Report": "compare.report.model",
    "RtxRunner": "runners.trt.trt_rtx",
    "Rules": "compare.comparison",
    "Runner": "runners.contract.runner",
    "RunnerError": "graph.errors",
    "Session": "runners.contract.session",
    "ShapeRange": "runners.contract.workload",
    "TfRunner": "runners.tf",
    "TfliteRunner": "runners.tflite.runner",
    "TorchRunner": "runners.pytorch.runner",
    "TrtRunner": "runners.trt.runner",
    "UsageError": "graph.errors",
    "load": "graph.load",
    "open_data": "dataloaders",
    "option": "graph.options",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
