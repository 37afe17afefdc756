"""Nodes that stay FP32: how they are named, and the data movement that goes with them."""

import pytest
from layerdiff.graph.errors import UsageError
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.rounding.kept import named_nodes, positions_in_copy, with_movement

from support.models import parsed

TEXT = """g (float[2,8] x) => (float[8,2] y) {
    [flat] r = Reshape(x, shape)
    ["ln/Pow"] p = Exp(r)
    [turn] t = Transpose(p)
    ["ln/Sqrt"] s = Abs(t)
    ["a[0]"] y = Relu(s)
}"""


def index() -> GraphIndex:
    import numpy as np

    return GraphIndex(parsed(TEXT, shape=np.array([2, 8], np.int64)))


@pytest.mark.parametrize(
    ("wanted", "nodes"),
    [
        (["ln/Sqrt"], ("ln/Sqrt",)),
        (["ln/*"], ("ln/Pow", "ln/Sqrt")),
        (["t?rn", "ln/Pow"], ("ln/Pow", "turn")),
        (["a[0]"], ("a[0]",)),
        ([], ()),
    ],
)
def test_nodes_are_named_as_they_are_or_by_patterns(wanted, nodes):
    assert named_nodes(index(), wanted, "emulate:fp16", "m.onnx") == nodes


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("ln/Sqr", "did you mean 'ln/Sqrt'"),
        ("TURN", "did you mean 'turn'"),
        ("p", "the tensor of that name is made by node 'ln/Pow'."),
        ("zzz", "its nodes are called 'flat', 'ln/Pow', 'turn' ..."),
        ("zzz*", "its nodes are called"),
    ],
)
def test_a_node_that_is_not_there_is_refused_with_those_that_may_be_meant(wanted, hint):
    with pytest.raises(UsageError) as refused:
        named_nodes(index(), [wanted], "emulate:fp16", "m.onnx")
    assert str(refused.value).startswith(f"emulate:fp16: keep={wanted}: m.onnx has no such node; ")
    assert hint in str(refused.value)


@pytest.mark.parametrize(
    ("kept", "whole"),
    [
        ({"ln/Pow"}, {"flat", "ln/Pow", "turn"}),  # what it makes, and the input on its way to it, are moved as FP32
        ({"ln/Sqrt"}, {"ln/Sqrt"}),  # what comes to it was rounded before
        (set(), set()),
    ],
)
def test_data_movement_hands_on_what_kept_nodes_make(kept, whole):
    assert with_movement(index(), kept) == whole


def test_a_node_is_found_again_in_a_copy_under_another_name():
    copy = parsed(TEXT.replace("ln/Sqrt", "renamed"))
    assert positions_in_copy(index(), GraphIndex(copy), {"ln/Sqrt"}) == {3}
