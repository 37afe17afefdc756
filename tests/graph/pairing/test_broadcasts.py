"""Constants of the same values and another shape, which run along other axes of what is computed."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.load import load
from layerdiff.graph.pairing.broadcasts import RunsOtherwise, runs_otherwise
from layerdiff.graph.pairing.constants import Operand
from layerdiff.graph.pairing.matching import match

from support.layerwise import compare, only
from support.models import normal, parsed

W = normal(8, 3, 3, 3)
X = normal(1, 3, 10, 10, seed=1)
VALUES = np.linspace(0.1, 2.0, 8, dtype=np.float32)
GRAPH = """g (float[1,3,10,10] x) => (float[1,8,8,8] y) {
    made = Conv(x, w)
    [node] scaled = OPERATOR
    y = Tanh(scaled)
}"""


def network(operator, shape, values=VALUES):
    text = GRAPH.replace("OPERATOR", operator)
    return parsed(text, w=W, k=values.reshape(shape))


def changes(one, other):
    return [difference.change for difference in match(load(one).index, load(other).index).differences]


@pytest.mark.parametrize("operator", ["Mul(made, k)", "Mul(k, made)", "Sub(made, k)", "Pow(k, made)", "PRelu(made, k)"])
def test_it_says_the_shapes_and_the_axes(operator):
    (change,) = changes(network(operator, (8, 1, 1)), network(operator, (8,)))
    assert (change.shape, change.candidate_shape, change.axes, change.candidate_axes) == ((8, 1, 1), (8,), (1,), (3,))
    assert str(change).endswith(
        "shape 8x1x1 against 8, which runs along axis 1 in the reference, along axis 3 in the candidate"
    )


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (8, 1, 1)])
def test_axes_of_length_one_in_front_say_nothing(shape):
    assert changes(network("Mul(made, k)", (8, 1, 1)), network("Mul(made, k)", shape)) == []


def test_a_scalar_may_have_any_rank():
    one = np.full(1, 0.5, np.float32)
    assert changes(network("Mul(made, k)", (), one), network("Mul(made, k)", (1, 1, 1), one)) == []


def test_other_values_are_told_beside_another_shape():
    one, other = network("Mul(made, k)", (8, 1, 1)), network("Mul(made, k)", (8,), 2 * VALUES)
    assert [isinstance(change, RunsOtherwise) for change in changes(one, other)] == [True, False]


def test_channels_last_are_another_layout_and_no_fault():
    """Where the result has its channels last, the constant has another shape and runs along them all the same."""
    found = []
    for shape, constant in (((1, 8, 6, 7), (8, 1, 1)), ((1, 6, 7, 8), (8,))):
        dims = ",".join(map(str, shape))
        text = f"g (float[{dims}] x) => (float[{dims}] y) {{ y = Mul(x, k) }}"
        value = VALUES.reshape(constant)
        found.append(Operand(load(parsed(text, k=value)).index, 0, "const", "k", value))
    assert runs_otherwise(*found) is None


@pytest.mark.parametrize("operator", ["Mul(made, k)", "PRelu(made, k)"])
def test_it_is_the_cause_and_the_remedy_names_the_shape(operator):
    one, other = network(operator, (8, 1, 1)), network(operator, (8,))
    culprit = only(compare(one, other, [{"x": X}]))
    assert (culprit.node, culprit.cause) == ("node", "layout")
    assert "shape 8x1x1 against 8" in culprit.evidence
    assert "the shape [8, 1, 1]" in culprit.remedies[0].text
