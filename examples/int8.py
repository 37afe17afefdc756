"""INT8 with calibration: would the digits survive it, and what if the calibration is wrong?

Run it from anywhere: python examples/int8.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner

DIGITS = Path(__file__).parent / "digits"
IMAGES = np.load(DIGITS / "heldout.npz")["image"]
LABELS = np.load(DIGITS / "labels.npy")


def compared(calibration: np.ndarray):
    """INT8, calibrated on some images, judged by how many digits of all are read rightly."""
    return Comparator(
        DIGITS / "digits.onnx",
        [OnnxrtRunner(), EmulateRunner(format="int8")],
        data_loader=[{"image": IMAGES}],
        calibration_data=[{"image": calibration}],
        labels=LABELS,
        metric="top1",
        layers="guilty",
    ).compare()


if __name__ == "__main__":
    print(compared(IMAGES[:64]))
    print()
    print(compared(IMAGES[:64] / 16))  # as if the pixels had been scaled once too often
