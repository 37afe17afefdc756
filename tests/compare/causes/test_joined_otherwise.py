"""A Concat whose inputs are exchanged, of tensors that the second file makes otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

TEXT = """g (float[4,6] past, float[4,3] new) => (float[4,8] y) {{
    {0} [join] j = Concat<axis=1>({1}) [down] y = MatMul(j, w) }}"""
DATA = [{"past": normal(4, 6), "new": normal(4, 3, seed=1)}]
ENDS = {"one": np.array([1]), "six": np.array([6]), "axis": np.array([1]), "by": np.array([1])}
PICK = {"picked": np.arange(1, 6)}
SLICED, PICKED = "[cut] c = Slice(past, one, six, axis, by)", "[cut] c = Gather<axis=1>(past, picked)"


def network(cut: str, order: str):
    read = ENDS if cut == SLICED else PICK
    return parsed(TEXT.format(f"{cut} [act] n = Tanh(new)", order), w=normal(8, 8, seed=2), **read)


@pytest.mark.parametrize("cut", [SLICED, PICKED])
def test_inputs_that_are_exchanged_are_told_as_that(cut):
    culprit = only(compare(network(SLICED, "c, n"), network(cut, "n, c"), DATA))
    assert (culprit.node, culprit.op) == ("join", "Concat")
    assert "inputs 0 and 1 of Concat exchanged" in culprit.evidence
    assert culprit.remedies[0].text == "give join its inputs in the first file's order"
