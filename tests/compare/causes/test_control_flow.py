"""What is wrong with an If, Loop or Scan itself."""

from __future__ import annotations

import pytest
from layerdiff.compare.causes import control_flow

from support.layer_cases import told


@pytest.mark.parametrize(
    ("found", "cause", "text"),
    [
        (
            control_flow.stops_elsewhere(control_flow.Iterations(1200, 7)),
            "unknown",
            "from the same inputs the candidate makes 7 iterations, the reference 1,200: rounding decides when to "
            "stop, no node inside is beyond it",
        ),
        (
            control_flow.other_branch("then_branch", "else_branch"),
            "wrong-op",
            "given the same values the candidate takes its else_branch, the reference its then_branch",
        ),
        (
            control_flow.exchanged("then_branch", "else_branch"),
            "wrong-op",
            "the candidate's else_branch gives what the reference's then_branch does: its branches are exchanged",
        ),
    ],
)
def test_it_is_told(found, cause, text):
    assert (found.cause, told(found)) == (cause, text)
