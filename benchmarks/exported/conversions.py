"""Sound conversions of an exported network, as people make them: each writes a file, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .architectures import Architecture

FUSED_AS = {
    "gpt2": "gpt2",
    "vit": "vit",
    "t5, encoder": "t5",
    "swin": "swin",
    "clip, text": "clip",
    "clip, image": "clip",
}
"""By architecture, the type of model that ONNX Runtime's optimizer of transformers takes it for, if not BERT."""
SPREAD = 0.5, 1.5
"""Between which gains and variances of normalizations are drawn."""

Feed = Mapping[str, np.ndarray]


def exported(architecture: Architecture, feed: Feed, target: Path, *, dynamo: bool) -> None:
    """Exports a network by one of PyTorch's exporters.

    Args:
        architecture: The network; it is built with the same random weights each time.
        feed: Its inputs.
        target: The file.
        dynamo: Whether by the newer exporter.

    Raises:
        Exception: Whatever the exporter raises.
    """
    import torch

    torch.manual_seed(0)
    module = architecture.build().eval()
    for part in module.modules():
        _with_statistics(part)
    names = list(feed)

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *given: Any) -> Any:
            plain = type(module).__module__.startswith("torchvision")
            made = module(*given) if plain else module(**dict(zip(names, given, strict=True)))
            made = made.to_tuple() if hasattr(made, "to_tuple") else made
            made = made if isinstance(made, tuple) else (made,)
            return tuple(one for one in made if torch.is_tensor(one) and one.is_floating_point())[:1]

    options: dict[str, Any] = {"dynamo": True, "external_data": False} if dynamo else {"dynamo": False}
    given = tuple(torch.from_numpy(value) for value in feed.values())
    opset = 18 if dynamo else 17
    torch.onnx.export(
        Plain().eval(), given, str(target), input_names=names, output_names=["y"], opset_version=opset, **options
    )


def _with_statistics(part: Any) -> None:
    import torch

    batch = hasattr(part, "running_var")
    if batch:
        part.running_mean.normal_(0, 0.1)
        part.running_var.uniform_(*SPREAD)
    if (batch or isinstance(part, torch.nn.LayerNorm)) and part.weight is not None:
        part.weight.data.uniform_(*SPREAD)
        part.bias.data.normal_(0, 0.1)


def _optimized(architecture: Architecture, source: Path, target: Path, feed: Feed) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _fused(architecture: Architecture, source: Path, target: Path, feed: Feed) -> None:
    from onnxruntime.transformers.optimizer import optimize_model

    kind = FUSED_AS.get(architecture.name, "bert")
    optimize_model(str(source), model_type=kind, opt_level=0).save_model_to_file(str(target))


def _folded(architecture: Architecture, source: Path, target: Path, feed: Feed) -> None:
    import onnx_ir
    import onnxscript.optimizer

    model = onnx_ir.load(source)
    onnxscript.optimizer.optimize(model)
    onnx_ir.save(model, target)


def _in_fp16(architecture: Architecture, source: Path, target: Path, feed: Feed) -> None:
    from onnxconverter_common import float16

    onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def _dynamic(architecture: Architecture, source: Path, target: Path, feed: Feed) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)


def _static(architecture: Architecture, source: Path, target: Path, feed: Feed) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        left: Iterator[Feed] = iter((feed,))

        def get_next(self) -> Any:
            return next(self.left, None)

    quantize_static(source, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)


CONVERSIONS: Mapping[str, Callable[[Architecture, Path, Path, Feed], None]] = {
    "ONNX Runtime's optimizer": _optimized,
    "its fusions of transformers": _fused,
    "onnxscript's optimizer": _folded,
    "float16 of onnxconverter-common": _in_fp16,
    "quantize_dynamic": _dynamic,
    "quantize_static": _static,
}
"""What is made of the file of the older exporter, or of the newer one's where that one fails."""
OTHER_EXPORTER = "the other exporter"
EMULATIONS = ("fp16", "bf16", "int8")
