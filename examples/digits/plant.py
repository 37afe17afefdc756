"""Writes ``broken.onnx``: the digits network with one fault, for trying ``--layers``. Run it in this folder.

The weights of one convolution of the second block are rounded to INT8 with a single scale, as an export script that
quantizes too much would leave them. The file looks like the original, loads like it, and still reads most digits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

FOLDER = Path(__file__).resolve().parent
WEIGHT = "block2a_conv/convolution/merged_input:0"


def main() -> None:
    model = onnx.load(FOLDER / "digits.onnx")
    tensor = next(t for t in model.graph.initializer if t.name == WEIGHT)
    weights = numpy_helper.to_array(tensor)
    step = np.abs(weights).max() / 127
    tensor.CopyFrom(numpy_helper.from_array((np.rint(weights / step) * step).astype(np.float32), WEIGHT))
    onnx.save(model, FOLDER / "broken.onnx")


if __name__ == "__main__":
    main()
