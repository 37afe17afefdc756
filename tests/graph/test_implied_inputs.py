"""What graphs imply about their inputs: tables of small graphs, and what a user would expect for each."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from layerdiff.graph.errors import DataError
from layerdiff.graph.implied_inputs import input_ranges
from layerdiff.graph.implied_shapes import choose_shapes, concrete_specs
from layerdiff.graph.index import GraphIndex
from onnx import helper, parser
from onnx.reference import ReferenceEvaluator

from support.models import of_nodes


def graph(nodes: str, inputs: str, **more) -> GraphIndex:
    return GraphIndex(of_nodes(nodes, inputs, **more))


def of(index: GraphIndex, **shapes) -> str:
    """The ranges of all inputs, as a user reads them."""
    found = input_ranges(index, shapes or None)
    return "; ".join(f"{name} {value}" for name, value in found.items())


TABLE = np.zeros((30522, 4), "f")
SMALL = np.zeros((2, 4), "f")

INDICES = {
    "embedding": ("y = Gather(t, x)", "x int64 N,S", {"t": TABLE}, "x [0, 30522)"),
    "through a cast and a reshape": (
        """c = Cast<to=7>(x)
           r = Reshape(c, flat)
           y = Gather(t, r)""",
        "x int32 N,S",
        {"t": TABLE, "flat": np.array([-1])},
        "x [0, 30522)",
    ),
    "through a padding and the greatest": (
        """p = Pad(x, ends)
           m = MaxPool<kernel_shape=[2]>(p)
           g = GlobalMaxPool(m)
           c = Cast<to=7>(g)
           y = Gather(t, c)""",
        "x float N,1,S",
        {"t": TABLE, "ends": np.array([0, 0, 1, 0, 0, 1])},
        "x [0, 30521]",
    ),
    "two rows: token types": ("y = Gather(t, x)", "x int64 N", {"t": SMALL}, "x [0, 2)"),
    "the smaller of two tables": (
        """a = Gather(t, x)
           b = Gather(s, x)
           y = Add(a, b)""",
        "x int64 N",
        {"t": TABLE, "s": SMALL},
        "x [0, 2)",
    ),
    "axis 1": ("y = Gather<axis=1>(t, x)", "x int64 N", {"t": SMALL}, "x [0, 4)"),
    "offset": (
        """o = Add(x, two)
           y = Gather(t, o)""",
        "x int64 N",
        {"t": TABLE, "two": np.array(2)},
        "x [-2, 30520)",
    ),
    "subtracted": (
        """o = Sub(x, one)
           y = Gather(t, o)""",
        "x int64 N",
        {"t": TABLE, "one": np.array(1)},
        "x [1, 30523)",
    ),
    "from the end": (
        """o = Sub(last, x)
           y = Gather(t, o)""",
        "x int64 N",
        {"t": TABLE, "last": np.array(30521)},
        "x [0, 30522)",
    ),
    "several tables in one, with offsets": (
        """o = Add(x, offsets)
           y = Gather(t, o)""",
        "x int64 N,3",
        {"t": TABLE, "offsets": np.array([0, 10000, 20000])},
        "x [0, 10522)",
    ),
    "scaled": (
        """o = Mul(x, two)
           y = Gather(t, o)""",
        "x int64 N",
        {"t": TABLE, "two": np.array(2)},
        "x [0, 15261)",
    ),
    "divided": (
        """o = Div(x, two)
           y = Gather(t, o)""",
        "x int64 N",
        {"t": SMALL, "two": np.array(2)},
        "x [0, 4)",
    ),
    "clipped: anything goes": (
        """o = Clip(x, lo, hi)
           y = Gather(t, o)""",
        "x int64 N",
        {"t": TABLE, "lo": np.array(0), "hi": np.array(30521)},
        "x None",
    ),
    "clipped below": (
        """o = Max(x, lo)
           y = Gather(t, o)""",
        "x int64 N",
        {"t": TABLE, "lo": np.array(0)},
        "x [-inf, 30522)",
    ),
    "wrapped around: anything goes": (
        """o = Mod(x, rows)
           y = Gather(t, o)""",
        "x int64 N",
        {"t": TABLE, "rows": np.array(30522)},
        "x None",
    ),
    "concatenated": (
        """o = Concat<axis=0>(x, z)
           y = Gather(t, o)""",
        "x int64 N;z int64 M",
        {"t": TABLE},
        "x [0, 30522); z [0, 30522)",
    ),
    "elements": ("y = GatherElements<axis=1>(t, x)", "x int64 2,3", {"t": SMALL}, "x [0, 4)"),
    "places": ("y = GatherND(t, x)", "x int64 5,2", {"t": TABLE}, "x [0, 4)"),
    "rows of places": ("y = GatherND(t, x)", "x int64 5,1", {"t": TABLE}, "x [0, 30522)"),
    "scattered": ("y = ScatterND(t, x, u)", "x int64 5,1;u float 5,4", {"t": TABLE}, "x [0, 30522); u None"),
    "scattered elements": (
        "y = ScatterElements(t, x, u)",
        "x int64 1,4;u float 1,4",
        {"t": SMALL},
        "x [0, 2); u None",
    ),
    "classes": ("y = OneHot(x, n, v)", "x int64 N", {"n": np.array(10), "v": np.array([0.0, 1.0])}, "x [0, 10)"),
    "ids that are also compared with the padding": (
        """p = Equal(x, zero)
           e = Gather(t, x)
           y = Identity(e)""",
        "x int64 N,S",
        {"t": TABLE, "zero": np.array(0)},
        "x [0, 30522)",
    ),
    "lengths": ("y, h = GRU<hidden_size=4>(v, w, r, b, x)", "v float 7,2,3;x int32 2", {
        "w": np.zeros((1, 12, 3), "f"), "r": np.zeros((1, 12, 4), "f"), "b": np.zeros((1, 24), "f"),
    }, "v None; x [1, 8)"),
    "k": ("y, i = TopK(v, x)", "v float 3,9;x int64 1", {}, "v None; x [1, 10)"),
    "divisor": ("y = Div(v, x)", "v int64 N;x int64 N", {}, "v None; x [1, inf)"),
    "bits": ("y = BitShift<direction=\"LEFT\">(v, x)", "v uint8 N;x uint8 N", {}, "v None; x [0, 8)"),
}  # fmt: skip


@pytest.mark.parametrize("case", INDICES)
def test_indices_stay_inside_their_tables(case):
    nodes, inputs, weights, expected = INDICES[case]
    assert of(graph(nodes, inputs, **weights)) == expected


def test_a_table_whose_size_comes_with_the_shapes():
    index = graph("y = Gather(v, x)", "v float N,4;x int64 M")
    assert of(index) == "v None; x None"
    assert of(index, v=(5, 4), x=(3,)) == "v None; x [0, 5)"


MASKS = {
    "attention": (
        """f = Cast<to=1>(x)
           u = Unsqueeze(f, axes)
           i = Sub(one, u)
           y = Mul(i, large)""",
        "x int64 N,S",
        {"axes": np.array([1, 2]), "one": np.float32(1), "large": np.float32(-1e4)},
    ),
    "attention, least float": (
        """i = Sub(one, x)
           y = Mul(i, large)""",
        "x float N,S",
        {"one": np.float32(1), "large": np.finfo("f").min},
    ),
    "read as bool": (
        """b = Cast<to=9>(x)
           y = Where(b, v, v)""",
        "x int64 N;v float N",
        {},
    ),
    "compared": ("y = Equal(x, zero)", "x int64 N", {"zero": np.array(0)}),
    "subtracted from 1": ("y = Sub(one, x)", "x int64 N", {"one": np.array(1)}),
    "by name": (
        """f = Cast<to=1>(attention_mask)
           y = Mul(f, v)""",
        "attention_mask int64 N;v float N",
        {},
    ),
}


@pytest.mark.parametrize("case", MASKS)
def test_masks(case):
    nodes, inputs, weights = MASKS[case]
    index = graph(nodes, inputs, **weights)
    found = input_ranges(index)[index.inputs[0]]
    assert (found.lo, found.hi, found.integer, found.mask, found.strict) == (0, 2, True, True, False)


NO_MASKS = {
    "a scaled image": ("y = Mul(x, c)", "x float N", {"c": np.float32(255)}),
    "large factors alone": ("y = Mul(x, c)", "x float N", {"c": np.float32(1e4)}),
    "1 - x alone": ("y = Sub(c, x)", "x float N", {"c": np.float32(1)}),
    "a float that is compared": ("y = Greater(x, c)", "x float N", {"c": np.float32(0)}),
    "compared with another number": ("y = Equal(x, c)", "x int64 N", {"c": np.array(50256)}),
    "features": ("y = Cast<to=1>(x)", "x int64 N", {}),
    "odd or even": ("m = Mod(x, c)\ny = Cast<to=9>(m)", "x int64 N", {"c": np.array(2)}),
    "a remainder": ("m = Mod(x, c)\ny = Equal(m, z)", "x int64 N", {"c": np.array(7), "z": np.array(0)}),
    "a quotient": ("m = Div(x, c)\ny = Cast<to=9>(m)", "x int64 N", {"c": np.array(7)}),
}


@pytest.mark.parametrize("case", NO_MASKS)
def test_what_is_no_mask(case):
    nodes, inputs, weights = NO_MASKS[case]
    assert of(graph(nodes, inputs, **weights)) == "x None"


DOMAINS = {
    "log": ("y = Log(x)", {}, 1e-6, math.inf),
    "log of a sum": ("s = Add(x, c)\ny = Log(s)", {"c": np.float32(1)}, 1e-6 - 1, math.inf),
    "sqrt": ("y = Sqrt(x)", {}, 0, math.inf),
    "sqrt after relu": ("r = Relu(x)\ny = Sqrt(r)", {}, None, None),
    "asin": ("y = Asin(x)", {}, -1, 1),
    "broken power": ("y = Pow(x, c)", {"c": np.float32(0.4)}, 0, math.inf),
    "square": ("y = Pow(x, c)", {"c": np.float32(2)}, None, None),
    "inverse root": ("y = Pow(x, c)", {"c": np.float32(-0.5)}, 1e-6, math.inf),
    "negated": ("n = Neg(x)\ny = Sqrt(n)", {}, -math.inf, 0),
}


@pytest.mark.parametrize("case", DOMAINS)
def test_domains(case):
    nodes, weights, lo, hi = DOMAINS[case]
    found = input_ranges(graph(nodes, "x float N", **weights))["x"]
    if lo is None:
        assert found is None
    else:
        assert (found.lo, found.hi) == pytest.approx((lo, hi))
        assert not found.integer
        assert not found.strict


SHAPE_INPUTS = {
    "same rank": ("y = Reshape(v, x)", "v float 2,3,4;x int64 3", {}, (2, 3, 4)),
    "lower rank": ("y = Reshape(v, x)", "v float 2,3,4;x int64 2", {}, (2, 12)),
    "higher rank": ("y = Reshape(v, x)", "v float 2,3;x int64 4", {}, (2, 3, 1, 1)),
    "through identity": ("i = Identity(x)\ny = Reshape(v, i)", "v float 2,3;x int64 1", {}, (6,)),
    "expand": ("y = Expand(v, x)", "v float 3,1;x int64 3", {}, (1, 3, 1)),
    "resize sizes": ("y = Resize(v, , , x)", "v float 1,3,8,8;x int64 4", {}, (1, 3, 16, 16)),
    "resize scales": ("y = Resize(v, , x)", "v float 1,3,8,8;x float 4", {}, (1, 1, 2, 2)),
    "split": ("y, z = Split(v, x)", "v float 7,2;x int64 2", {}, (3, 4)),
    "starts": ("y = Slice(v, x, e)", "v float 7,2;x int64 2", {"e": np.array([5, 2])}, (0, 0)),
    "ends": ("y = Slice(v, s, x)", "v float 7,2;x int64 2", {"s": np.array([1, 0])}, (7, 2)),
    "ends of one axis": ("y = Slice(v, s, x, a)", "v float 7,2;x int64 1", {"s": [0], "a": np.array([1])}, (2,)),
    "steps": ("y = Slice(v, s, e, a, x)", "v float 7,2;x int64 1", {"s": [0], "e": [5], "a": np.array([0])}, (1,)),
}


@pytest.mark.parametrize("case", SHAPE_INPUTS)
def test_inputs_that_are_shapes_have_a_legal_value(case):
    nodes, inputs, weights, expected = SHAPE_INPUTS[case]
    index = graph(nodes, inputs, **weights)
    assert input_ranges(index)["x"].value == expected
    evaluator = ReferenceEvaluator(index.proto)
    v = next(s for n, s in index.specs.items() if n == "v")
    dtype = next(s.dtype for n, s in index.specs.items() if n == "x")
    evaluator.run(None, {"v": np.ones(v.shape, "f"), "x": np.array(expected, dtype)})


LEGAL = {
    "a hint": ("y = Cast<to=9>(x)", {}, None),
    "a table": ("y = Gather(t, x)", {"t": SMALL}, "[0, 2)"),
    "a table and a hint": ("b = Cast<to=9>(x)\ny = Gather(t, x)", {"t": TABLE}, "[0, 30522)"),
}


@pytest.mark.parametrize("case", LEGAL)
def test_what_is_legal_is_known_apart_from_hints(case):
    nodes, weights, expected = LEGAL[case]
    found = input_ranges(graph(nodes, "x int64 N", **weights))["x"].legal
    assert (None if found is None else str(found)) == expected


def test_demands_inside_subgraphs_reach_inputs_captured_from_outside():
    body = parser.parse_graph("then () => (float[N,4] o) { o = Gather(t, x) }")
    other = parser.parse_graph("else () => (float[N,4] p) { p = Gather(s, x) }")
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=other)
    base = graph("y = Identity(c)", "c bool;x int64 N", t=TABLE, s=SMALL)
    model = onnx.ModelProto()
    model.CopyFrom(base.proto)
    model.graph.node[0].CopyFrom(node)
    assert of(GraphIndex(model)) == "c [0, 2); x [0, 2)"


def test_demands_on_loop_carried_values():
    body = parser.parse_graph(
        "body (int64 i, bool go, int64[N] k) => (bool on, int64[N] same) { on = Identity(go) "
        "e = Gather(t, k) same = Identity(k) }"
    )
    node = helper.make_node("Loop", ["m", "", "x"], ["y"], body=body)
    base = graph("y = Identity(x)", "m int64;x int64 N", t=SMALL)
    model = onnx.ModelProto()
    model.CopyFrom(base.proto)
    model.graph.node[0].CopyFrom(node)
    assert of(GraphIndex(model)) == "m [1, 5); x [0, 2)"


def test_fused_embeddings():
    index = graph(
        "y, m = com.microsoft.EmbedLayerNormalization(ids, kinds, words, places, types, g, b)",
        "ids int32 N,S;kinds int32 N,S",
        domains=["com.microsoft"],
        words=TABLE,
        places=np.zeros((512, 4), "f"),
        types=SMALL,
        g=np.zeros(4, "f"),
        b=np.zeros(4, "f"),
    )
    assert of(index) == "ids [0, 30522); kinds [0, 2)"


def test_strings_and_images_imply_nothing():
    weights = np.zeros((8, 3, 3, 3), "f")
    assert of(graph("y = Conv(x, w)", "x float 1,3,9,9", w=weights)) == "x None"
    assert of(graph("y = Identity(x)", "x string N")) == "x None"


def test_the_reason_names_the_table():
    found = input_ranges(graph("y = Gather(t, x)", "x int64 N", t=TABLE))["x"]
    assert found.reason == "indexes 't', 30522 along axis 0"
    assert found.strict


# -- shapes -----------------------------------------------------------------------------------------------------------


def shapes(index: GraphIndex, **given) -> dict:
    return dict(choose_shapes(index, given).shapes)


def weight(*dims):
    return np.zeros(dims, "f")


SHAPES = {
    "open dimensions": ("y = Relu(x)", "x float N,S,3", {}, {}, {"x": (2, 8, 3)}),
    "nameless dimensions": ("y = Relu(x)", "x float ?,?,3", {}, {}, {"x": (2, 8, 3)}),
    "scalars": ("y = Relu(x)", "x float", {}, {}, {"x": ()}),
    "one name, one size": ("y = MatMul(x, z)", "x float N,K;z float K,M", {}, {}, {"x": (2, 8), "z": (8, 8)}),
    "given": ("y = Relu(x)", "x float N,S", {}, {"x": (3, 5)}, {"x": (3, 5)}),
    "given in part": ("y = Relu(x)", "x float N,S", {}, {"x": (-1, 5)}, {"x": (2, 5)}),
    "given for another input of that name": (
        "y = Add(x, z)", "x float N,S;z float N,S", {}, {"x": (3, 5)}, {"x": (3, 5), "z": (3, 5)},
    ),
    "given for another input, nameless": (
        "y = Add(x, z)", "x float ?,?;z float ?,?", {}, {"x": (3, 5)}, {"x": (3, 5), "z": (3, 5)},
    ),
    "positions of one length": (
        "y = Add(x, p)", "x float N,S,4", {"p": weight(1, 197, 4)}, {}, {"x": (2, 197, 4)},
    ),
    "a picture that has to be large": (
        """c = Conv<strides=[16,16]>(x, w)
           f = Flatten(c)
           y = MatMul(f, v)""",
        "x float N,3,H,W", {"w": weight(4, 3, 16, 16), "v": weight(4 * 14 * 14, 5)}, {}, {"x": (2, 3, 224, 224)},
    ),
    "a window that does not fit": ("y = AveragePool<kernel_shape=[12,12]>(x)", "x float N,3,H,W", {}, {},
                                   {"x": (2, 3, 16, 16)}),
    "channels that the weights decide": ("y = Conv(x, w)", "x float N,C,9,9", {"w": weight(4, 3, 3, 3)}, {},
                                         {"x": (2, 3, 9, 9)}),
    "a network in the shape of a U": (
        """a = MaxPool<kernel_shape=[2,2],strides=[2,2]>(x)
           b = MaxPool<kernel_shape=[2,2],strides=[2,2]>(a)
           c = MaxPool<kernel_shape=[2,2],strides=[2,2]>(b)
           d = MaxPool<kernel_shape=[2,2],strides=[2,2]>(c)
           e = ConvTranspose<strides=[2,2]>(d, w)
           f = Concat<axis=1>(c, e)
           y = Relu(f)""",
        "x float N,3,H,W", {"w": weight(3, 3, 2, 2)}, {}, {"x": (2, 3, 16, 16)},
    ),
    "a batch of one, written into a reshape": (
        "y = Reshape(x, s)", "x float N,4,4", {"s": np.array([1, 16])}, {}, {"x": (1, 4, 4)},
    ),
    "a batch of four, written into a reshape": (
        "y = Reshape(x, s)", "x float N,4,4", {"s": np.array([4, 16])}, {}, {"x": (4, 4, 4)},
    ),
    "features that a matrix decides": ("y = MatMul(x, w)", "x float N,K", {"w": weight(10, 3)}, {}, {"x": (2, 10)}),
    "a given batch stays": ("y = MatMul(x, w)", "x float N,K", {"w": weight(10, 3)}, {"x": (5, None)}, {"x": (5, 10)}),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES)
def test_shapes(case):
    nodes, inputs, weights, given, expected = SHAPES[case]
    index = graph(nodes, inputs, **weights)
    assert shapes(index, **given) == expected
    assert choose_shapes(index, given).doubt is None


def test_what_was_chosen_is_told():
    chosen = choose_shapes(graph("y = Add(x, p)", "x float batch,?,4", p=weight(1, 197, 4)))
    assert chosen.chosen == {"x": ("batch=2", "axis 1=197")}
    assert chosen.refused.startswith("Add")
    assert choose_shapes(graph("y = Relu(x)", "x float 2,3")).chosen == {}


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        ("x float N,3", {"z": (1, 3)}, "A shape is given for 'z', which is no input. The model has 'x'"),
        ("x float N,3", {"x": (1, 4)}, "The shape 1x4 of 'x': axis 1 is 3 in the model"),
        ("x float N,3", {"x": (1, 3, 4)}, "The shape 1x3x4 of 'x' has 3 dimensions"),
        ("x float N,N", {"x": (1, 3)}, "Shapes give 'N' two sizes: 1 in 'x', 3 in 'x'"),
    ],
)
def test_given_shapes_that_contradict_the_model(inputs, given, message):
    with pytest.raises(DataError, match=message.replace(".", r"\.")):
        choose_shapes(graph("y = Relu(x)", inputs), given)


@pytest.mark.parametrize("placeholder", ["*", "-1", "None"])
def test_dimensions_without_a_name_may_differ(placeholder):
    index = graph("y = Relu(x)", f"x float 2,3,{placeholder},{placeholder}")
    assert index.specs["x"].shape == (2, 3, None, None)
    assert shapes(index, x=(2, 3, 48, 192)) == {"x": (2, 3, 48, 192)}


def test_shapes_that_nothing_makes_right_are_doubted():
    chosen = choose_shapes(graph("y = MatMul(x, w)", "x float N,K", w=weight(10, 3)), {"x": (2, 7)})
    assert chosen.shapes == {"x": (2, 7)}
    assert chosen.doubt.startswith("MatMul")


def test_a_graph_that_inference_cannot_follow_is_not_doubted():
    index = graph("a = Relu(x)\ny = zz.Custom(a)", "x float N,K", domains=["zz"])
    chosen = choose_shapes(index)
    assert (chosen.shapes, chosen.doubt) == ({"x": (2, 8)}, None)


def test_concrete_specs_are_numbers():
    index = graph("y = MatMul(x, w)", "x float N,10", w=weight(10, 3))
    assert concrete_specs(index, {"x": (5, 10)})["y"].shape == (5, 3)
    assert index.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"  # the model itself is as it was
