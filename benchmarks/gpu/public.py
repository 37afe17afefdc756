"""Prepares trained networks that others published, with real images, for emulation.py. Needs Pillow and onnx.

    python -m benchmarks.gpu.public OUT_DIR --squeezenet SqueezeNet_fp16.onnx --photos FILE ...
        [--ocr FOLDER --screenshots FILE ...]

- SqueezeNet 1.0 for ImageNet, from the repository microsoft/Windows-Machine-Learning (MIT), where it is stored in FP16:
  its weights and types are widened to FP32, so its weights are exact in FP16.
- PP-OCRv4 of PaddleOCR (Apache-2.0): text detection, recognition and direction, as in the package rapidocr-onnxruntime.

Nothing of them is part of this repository. Beside each ``NAME.onnx`` lies ``NAME.npz`` with its inputs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from PIL import Image, ImageDraw, ImageFont

MEANS = np.array([104.0, 117.0, 123.0], np.float32)
"""Of ImageNet's blue, green and red, as Caffe subtracts them."""

LINES = (
    "The quick brown fox",
    "jumps over the lazy dog",
    "0123456789 +-*/=",
    "layer by layer",
    "Half precision: 65504",
    "exp(11.1) overflows",
    "tolerance 1e-3",
    "Which node is guilty?",
)


def widened(path: Path) -> onnx.ModelProto:
    """The network with every FP16 weight and type in FP32, and an open batch."""
    model = onnx.load(str(path))
    graph = model.graph
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT16:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), weight.name))
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type == TensorProto.FLOAT16:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    weights = {weight.name for weight in graph.initializer}
    for info in (*graph.input, *graph.output):
        if info.name not in weights:
            info.type.tensor_type.shape.dim[0].dim_param = "n"
    del graph.value_info[:]
    return model


def photo(path: Path, height: int, width: int) -> np.ndarray:
    """Red, green and blue from 0 to 255: (height, width, 3), float32."""
    image = Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32)


def line(text: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A line of dark text on an uneven bright ground, as `photo` gives it."""
    image = Image.new("RGB", (width, height), tuple(int(v) for v in rng.integers(190, 256, 3)))
    ink = tuple(int(v) for v in rng.integers(0, 90, 3))
    ImageDraw.Draw(image).text((6, height // 8), text, fill=ink, font=ImageFont.load_default(height * 0.6))
    return np.clip(np.asarray(image, np.float32) + rng.normal(scale=6, size=(height, width, 1)), 0, 255)


def planes(images: list[np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2), np.float32)


def save(folder: Path, name: str, model: onnx.ModelProto, array: np.ndarray) -> None:
    onnx.save(model, str(folder / f"{name}.onnx"))
    weights = {weight.name for weight in model.graph.initializer}
    (entry,) = [info.name for info in model.graph.input if info.name not in weights]
    np.savez_compressed(folder / f"{name}.npz", **{entry: array})
    print(f"{name}: {len(model.graph.node)} nodes, {entry} {array.shape}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--squeezenet", type=Path, required=True)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--ocr", type=Path, help="folder of ch_*.onnx")
    parser.add_argument("--screenshots", type=Path, nargs="+", default=[])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    photos = [photo(path, 224, 224)[..., ::-1] - MEANS for path in arguments.photos]
    save(arguments.out, "squeezenet", widened(arguments.squeezenet), planes(photos))
    if arguments.ocr:
        rng = np.random.default_rng(0)
        pages = [photo(path, 480, 640) for path in arguments.screenshots]
        inputs = {
            "det": pages,
            "cls": [line(text, 48, 192, rng) for text in LINES],
            "rec": [line(text, 48, 320, rng) for text in LINES],
        }
        for path in sorted(arguments.ocr.glob("ch_*.onnx")):
            kind = next(k for k in inputs if f"_{k}_" in path.name)
            array = planes([image / 127.5 - 1 for image in inputs[kind]])
            save(arguments.out, f"ppocr_{kind}", onnx.load(str(path)), array)


if __name__ == "__main__":
    main()
