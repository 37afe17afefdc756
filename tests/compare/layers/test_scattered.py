"""Messages along edges, gathered and added up: another exporter writes other operators, and forgets to add."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare
from support.models import normal, parsed

HEAD = "g (float[6,8] x, int64[12] to) => (float[6,8] y) { [index] i = Unsqueeze(to, one) "
FIRST = """[gather{0}] g{0} = GatherND(h{0}, i) [fc{0}] m{0} = MatMul(g{0}, u) [tanh{0}] t{0} = Tanh(m{0})
    [scatter{0}] s{0} = ScatterND<reduction="add">(zeros, i, t{0}) [up{1}] h{1} = MatMul(s{0}, w{0}) """
SECOND = """[gather{0}] g{0} = Gather<axis=0>(h{0}, to) [fc{0}] m{0} = MatMul(g{0}, u) [tanh{0}] t{0} = Tanh(m{0})
    [wide{0}] e{0} = Expand(i, shape) [scatter{0}] s{0} = ScatterElements<axis=0 HOW>(zeros, e{0}, t{0})
    [up{1}] h{1} = MatMul(s{0}, w{0}) """
WEIGHTS = {"u": normal(8, 8), "w0": normal(8, 8, seed=1), "w1": normal(8, 8, seed=2), "v": normal(8, 8, seed=3)}
GIVEN = {"one": np.array([1]), "zeros": np.zeros((6, 8), np.float32), "shape": np.array([12, 8])}
DATA = [{"x": normal(6, 8, seed=4), "to": np.arange(12) % 4}]


def network(block, how=""):
    text = HEAD + "[first] h0 = MatMul(x, v) " + "".join(block.format(n, n + 1) for n in range(2))
    given = {name: value for name, value in GIVEN.items() if name in text}
    return parsed(text.replace("HOW", how) + "[last] y = Neg(h2) }", **WEIGHTS, **given)


def test_each_block_that_does_not_add_is_told_and_no_product_between():
    report = compare(network(FIRST), network(SECOND), DATA)
    found = sorted(report.culprits, key=lambda culprit: culprit.node)
    assert [(c.node, c.cause) for c in found] == [("scatter0", "attribute"), ("scatter1", "attribute")]
    for n, culprit in enumerate(found):
        assert culprit.evidence.startswith(f"ScatterElements scatter{n}: reduction add against none")
        assert culprit.remedies[0].text == f"set the reduction of ScatterElements scatter{n} to add"


@pytest.mark.parametrize("turned", [False, True])
def test_other_operators_that_add_are_no_culprits(turned):
    models = [network(FIRST), network(SECOND, ', reduction="add"')]
    assert not compare(*(models[::-1] if turned else models), DATA).culprits
