"""What a number format cannot hold."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes.ranges import format_loss
from layerdiff.graph.formats import BF16, E4M3, FP16, INT8


@pytest.mark.parametrize(
    ("values", "fmt", "loss"),
    [
        ([1.0, 65504.0], FP16, None),
        ([1.0, 65519.0], FP16, None),  # rounds to 65,504
        ([1.0, 65520.0], FP16, "overflow"),
        ([1.0, 70000.0], FP16, "overflow"),
        ([1.0, -70000.0], FP16, "overflow"),
        ([1.0, 70000.0], BF16, None),
        ([1.0, 500.0], E4M3, "overflow"),
        ([1e-6, 2e-6, 3.3e-6], FP16, "underflow"),
        ([1e-6, 1.0], FP16, None),  # small beside what is large: nobody misses it
        ([1e-6, 2e-6], BF16, None),
        ([0.0, 0.0], FP16, None),
        ([np.inf, 1.0], FP16, None),
        ([np.nan], FP16, None),
        ([], FP16, None),
        ([1e9], INT8, None),
    ],
)
def test_what_a_format_cannot_hold(values, fmt, loss):
    assert format_loss(np.array(values, np.float32), fmt) == loss


def test_integers_overflow_no_floating_format():
    assert format_loss(np.array([1 << 40]), FP16) is None
