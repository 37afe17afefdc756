"""Outputs disagree and no layer exceeds its noise: cancellation, an unknown noise, or an error that is spread."""

from __future__ import annotations

import pytest
from layerdiff.compare.causes.case import LoudLayer
from layerdiff.compare.causes.examiner import loudest
from layerdiff.compare.causes.judgement import Judgement

from support.layer_cases import told

SHARES = (("n_a", 0.9), ("n_b", 0.3), ("n_c", 0.2), ("n_d", 0.1))


def layer(contribution=0.9, relative=0.01, known=True, rms_z=1.04, plain=1e-3) -> LoudLayer:
    judgement = Judgement(False, 0, relative, rms_z=rms_z, known=known)
    return LoudLayer(judgement, contribution, plain, (("n_a", contribution), *SHARES[1:]))


@pytest.mark.parametrize(
    ("case", "cause", "text"),
    [
        (layer(), "cancellation", "its error is rounding (RMS z 1.0), but 1.0e-02 of its values, and explains 90% of "
                                  "the final error: its inputs cancel; raise the precision before it"),
        (layer(rms_z=None), "cancellation", "its error is rounding, but 1.0e-02 of its values"),
        (layer(known=False), "unknown", "its expected noise is unknown; it is off by 1.0e-02 of its values and "
                                        "explains 90% of the final error"),
        (layer(contribution=0.6), "spread", "no layer is beyond rounding; the greatest contributions are n_a 60%, "
                                            "n_b 30%, n_c 20%"),
        (layer(relative=7e-3), "spread", "no layer is beyond rounding; the greatest contributions are n_a 90%"),
    ],
)  # fmt: skip
def test_the_loudest_layer(case, cause, text):
    found = loudest(case)
    assert found.cause == cause
    assert told(found).startswith(text)
