"""Pieces: run one after the other they are the model, bit by bit; and what may not cross a border does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff.graph.cutting.dataflow import dataflow, random_nodes
from layerdiff.graph.cutting.extract import enter, extract
from layerdiff.graph.cutting.fusion import Group, fused_groups
from layerdiff.graph.cutting.pieces import plan_pieces
from layerdiff.graph.cutting.propagate import propagate
from layerdiff.graph.errors import ModelError
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.load import load
from layerdiff.graph.model import Model
from layerdiff.graph.specs import TensorSpec, is_float
from onnx import TensorProto, helper

from support import networks
from support.models import assembled, parsed

NETWORKS = {f.__name__: f for f in networks.FEEDS}
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def feed_of(name: str) -> dict[str, np.ndarray]:
    return networks.FEEDS[NETWORKS[name]](np.random.default_rng(0))


def chain(model: Model, pieces, feed) -> dict[str, np.ndarray]:
    """Runs the pieces one after the other, each on what those before it gave."""
    values = dict(feed)
    for piece in pieces:
        part = extract(model, piece.nodes, piece.outputs)
        assert {s.name for s in part.inputs} == set(piece.inputs)
        values.update(networks.run(part.proto, {n: values[n] for n in piece.inputs}))
    return values


def check_plan(model: Model, pieces) -> None:
    """Every node in exactly one piece; nothing is read before it is made."""
    assert sorted(p for piece in pieces for p in piece.nodes) == list(range(len(model.index.nodes)))
    assert [piece.index for piece in pieces] == list(range(len(pieces)))
    there = set(model.index.inputs)
    for piece in pieces:
        assert there.issuperset(piece.inputs)
        there.update(piece.outputs)
    assert there.issuperset(model.index.outputs)


@pytest.mark.parametrize("most", [1, 3, None])
@pytest.mark.parametrize("name", NETWORKS)
def test_pieces_in_a_row_are_the_model_bit_by_bit(name: str, most: int | None) -> None:
    model = load(NETWORKS[name]())
    pieces = plan_pieces(model.index, fused_groups(model.index), memory=1 << 30, most=most)
    check_plan(model, pieces)
    assert (len(pieces) == 1) == (most is None)
    feed = feed_of(name)
    values = chain(model, pieces, feed)
    for output, expected in networks.run(model.proto, feed).items():
        np.testing.assert_array_equal(values[output], expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_shape_arithmetic_integers_and_constants_are_no_borders(name: str) -> None:
    model = load(NETWORKS[name]())
    index = model.index
    for piece in plan_pieces(index, fused_groups(index), memory=1 << 30, most=1):
        for border in {*piece.inputs, *piece.outputs} - {*index.inputs, *index.outputs}:
            spec = index.specs[border]
            assert is_float(spec.dtype) or border == "positive"  # decided by floats: it cannot be made anew


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_stay_whole(name: str) -> None:
    model = load(NETWORKS[name]())
    groups = fused_groups(model.index)
    piece_of = {
        p: piece.index for piece in plan_pieces(model.index, groups, memory=1 << 30, most=1) for p in piece.nodes
    }
    flow = dataflow(model.index)
    for group in groups:
        data = [p for p in group.nodes if not all(flow.recomputed(o) for o in model.index.nodes[p].output)]
        assert len({piece_of[p] for p in data}) <= 1


@pytest.mark.parametrize("name", NETWORKS)
def test_pieces_may_be_single_nodes(name: str) -> None:
    model = load(NETWORKS[name]())
    nodes = [Group((p,), p) for p in range(len(model.index.nodes))]
    pieces = plan_pieces(model.index, nodes, memory=1 << 30, most=1)
    check_plan(model, pieces)
    feed = feed_of(name)
    values = chain(model, pieces, feed)
    for output, expected in networks.run(model.proto, feed).items():
        np.testing.assert_array_equal(values[output], expected)


def test_cuts_are_where_little_is_live() -> None:
    model = load(networks.residual())
    groups = fused_groups(model.index)
    first, second = plan_pieces(model.index, groups, memory=1 << 30, most=len(groups) * 2 // 3)
    assert len(second.inputs) == 1
    assert first.outputs == second.inputs


LIGHT_PLANS = {
    "light_densenet121": (60_000_000, 5),
    "light_resnet50": (60_000_000, 4),
    "light_shufflenet": (24_000_000, 3),
    "light_inception_v2": (30_000_000, 3),
    "light_squeezenet": (20_000_000, 2),
}


@pytest.mark.parametrize("name", LIGHT_PLANS)
def test_known_networks_fit_the_budget_at_its_narrow_places(name: str) -> None:
    memory, least = LIGHT_PLANS[name]
    model = load(LIGHT / f"{name}.onnx")
    pieces = plan_pieces(model.index, fused_groups(model.index), memory=memory)
    check_plan(model, pieces)
    assert len(pieces) >= least
    assert all(p.activations + p.weights <= memory for p in pieces)
    # one live tensor at every cut, where the network has such places; inside an Inception block there is none
    assert all(len(p.inputs) == 1 for p in pieces) or name in ("light_shufflenet", "light_inception_v2")
    rng = np.random.default_rng(0)
    feed = {s.name: rng.normal(size=s.shape).astype(s.dtype) for s in model.inputs}
    values = chain(model, pieces, feed)
    for output, expected in networks.run(model.proto, feed).items():
        np.testing.assert_array_equal(values[output], expected)


def test_masks_and_skips_stay_live_beside_the_main_path() -> None:
    model = load(networks.transformer())
    pieces = plan_pieces(model.index, fused_groups(model.index), memory=12_000)
    assert any({"mask_add"} < set(p.inputs) for p in pieces)


def test_a_group_is_never_cut_and_says_that_it_is_too_large() -> None:
    w = networks.Writer()
    parts = [w.node("Exp", [w.node("Mul", ["x", w.value(f"k{i}", i)], f"m{i}")], f"e{i}") for i in range(6)]
    w.node("Sum", parts, "y")
    model = load(w.model({"x": (TensorProto.FLOAT, [1000])}, ["y"]))
    groups = fused_groups(model.index)
    (piece,) = plan_pieces(model.index, groups, memory=3_000)
    assert "needs" in piece.note
    assert "3,000 bytes" in piece.note


@pytest.mark.parametrize("name", ["residual", "transformer", "unet", "dense"])
@pytest.mark.parametrize("memory", [1, 3_000, 12_000])
def test_a_budget_below_any_layer_gives_single_groups_not_larger_pieces(name: str, memory: int) -> None:
    model = load(NETWORKS[name]())
    groups = fused_groups(model.index)
    finest = plan_pieces(model.index, groups, memory=1 << 30, most=1)
    pieces = plan_pieces(model.index, groups, memory=memory)
    check_plan(model, pieces)
    single = {p.nodes for p in finest}
    for piece in pieces:
        fits = piece.activations + piece.weights <= memory
        assert fits or piece.nodes in single
        assert fits is (piece.note == "")
    assert memory > 1 or [p.nodes for p in pieces] == [p.nodes for p in finest]


def test_what_only_passes_by_does_not_count() -> None:
    """A large skip is live beside every piece, and is read by the last one alone."""
    w = networks.Writer()
    x = w.node("MatMul", ["big", w.weight("w0", 1000, 4)], "h0")
    for i in range(6):
        x = w.node("MatMul", [x, w.weight(f"w{i + 1}", 4, 4)], f"h{i + 1}")
    w.node("Mul", ["big", w.node("ReduceMean", [x], "mean", keepdims=0)], "y")
    model = load(w.model({"big": (TensorProto.FLOAT, [8, 1000])}, ["y"]))
    pieces = plan_pieces(model.index, fused_groups(model.index), memory=2_000)
    assert [bool(p.note) for p in pieces] == [True, False, True]


def test_a_piece_reads_no_weights_but_its_own(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    proto = networks.residual()
    onnx.save(proto, path, save_as_external_data=True, location="big.bin", size_threshold=16)
    model = load(path)
    (tmp_path / "big.bin").rename(tmp_path / "elsewhere.bin")  # nothing may be read from it
    position = model.index.producer["a1"]
    piece = extract(model, [position], ["a1"])
    assert [t.name for t in piece.proto.graph.initializer] == ["a1.w"]
    assert piece.proto.graph.initializer[0].data_location == TensorProto.EXTERNAL
    assert piece.folder == tmp_path
    (tmp_path / "elsewhere.bin").rename(tmp_path / "big.bin")
    np.testing.assert_array_equal(piece.index.weight("a1.w"), load(networks.residual()).index.weight("a1.w"))


def test_weights_count_once_in_a_piece() -> None:
    w = networks.Writer()
    shared = w.weight("w", 4, 4)
    w.node("MatMul", [w.node("Relu", [w.node("MatMul", ["x", shared], "a")], "b"), shared], "y")
    model = load(w.model({"x": (TensorProto.FLOAT, [2, 4])}, ["y"]))
    (piece,) = plan_pieces(model.index, fused_groups(model.index), memory=1 << 20)
    assert piece.weights == 64
    assert piece.activations == 4 * 2 * 4 * 4  # x, a, b, y


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "random"),
    [
        ("RandomNormal", [], {"shape": [3]}, True),
        ("RandomUniform", [], {"shape": [3]}, True),
        ("RandomNormalLike", ["x"], {}, True),
        ("Bernoulli", ["x"], {}, True),
        ("Dropout", ["x", "", "training"], {}, True),
        ("Dropout", ["x"], {}, False),
        ("Relu", ["x"], {}, False),
    ],
)
def test_random_operators_are_pieces_of_their_own(op: str, inputs: list[str], attributes: dict, random: bool) -> None:
    w = networks.Writer()
    w.value("training", True, np.bool_)
    w.node("Exp", ["input"], "x")
    w.node("Add", [w.node(op, inputs, "drawn", **attributes), "x"], "y")
    model = load(w.model({"input": (TensorProto.FLOAT, [3])}, ["y"], opset=15))
    assert random_nodes(model.index) == ((1,) if random else ())
    pieces = plan_pieces(model.index, fused_groups(model.index), memory=1 << 30)
    assert [p.outputs for p in pieces if p.random] == ([("drawn",)] if random else [])
    check_plan(model, pieces)


def test_sequences_are_no_borders() -> None:
    w = networks.Writer()
    w.nodes.append(helper.make_node("SplitToSequence", ["x"], ["seq"], axis=0))
    w.node("Exp", ["x"], "e")
    w.node("ConcatFromSequence", ["seq"], "joined", axis=0)
    w.node("Mul", ["joined", "e"], "y")
    model = load(w.model({"x": (TensorProto.FLOAT, [3, 2])}, ["y"]))
    pieces = plan_pieces(model.index, fused_groups(model.index), memory=1 << 30, most=1)
    assert not any("seq" in (*p.inputs, *p.outputs) for p in pieces)
    feed = {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}
    np.testing.assert_array_equal(chain(model, pieces, feed)["y"], networks.run(model.proto, feed)["y"])


def test_shapes_that_depend_on_the_data_may_cross() -> None:
    w = networks.Writer()
    w.node("Transpose", [w.node("NonZero", [w.node("Relu", ["x"], "r")], "where")], "places", perm=[1, 0])
    w.node("Exp", [w.node("GatherND", ["r", "places"], "picked")], "y")
    model = load(w.model({"x": (TensorProto.FLOAT, ["N"])}, ["y"]))
    groups = fused_groups(model.index)
    pieces = plan_pieces(model.index, groups, memory=1 << 30, most=1)
    for n in (3, 9):
        feed = {"x": np.random.default_rng(n).normal(size=n).astype(np.float32)}
        np.testing.assert_array_equal(chain(model, pieces, feed)["y"], networks.run(model.proto, feed)["y"])


def custom() -> Model:
    nodes = [
        helper.make_node("Exp", ["x"], ["a"]),
        helper.make_node("Mystery", ["a"], ["b"], domain="custom"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    x, y = ((n, TensorProto.FLOAT, [4]) for n in "xy")
    return load(assembled(nodes, [x], [y], domains=["custom"]))


def test_a_tensor_of_unknown_type_is_no_border_until_its_type_is_measured() -> None:
    model = custom()
    groups = fused_groups(model.index)
    assert not any("b" in p.inputs for p in plan_pieces(model.index, groups, memory=1 << 30, most=1))
    with pytest.raises(ModelError, match="type of 'b' is not known"):
        extract(model, [2], ["y"])
    specs = {"b": TensorSpec("b", np.dtype(np.float32), (4,))}
    assert any("b" in p.inputs for p in plan_pieces(model.index, groups, memory=1 << 30, most=1, specs=specs))
    piece = extract(model, [2], ["y"], specs=specs)
    assert piece.inputs[0].name == "b"
    assert [o.domain for o in piece.proto.opset_import] == ["", "custom"]


def test_an_output_that_the_nodes_do_not_make_is_refused() -> None:
    with pytest.raises(ModelError, match="does not make 'sum1'"):
        extract(load(networks.residual()), [0], ["sum1"])


def test_model_local_functions_and_versions_are_kept() -> None:
    proto = networks.residual()
    proto.functions.append(
        helper.make_function(
            "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 13)]
        )
    )
    piece = extract(load(proto), [0], ["stem"]).proto
    assert [f.name for f in piece.functions] == ["Twice"]
    assert (piece.ir_version, piece.opset_import[0].version) == (8, 13)


def test_outputs_come_in_the_order_asked_for_and_may_be_recomputed_tensors() -> None:
    model = load(networks.transformer())
    piece = extract(model, [model.index.producer["q1"]], ["batch1", "q1"])
    assert [o.name for o in piece.proto.graph.output] == ["batch1", "q1"]


def test_static_shape_arithmetic_needs_no_tensor_from_far_away() -> None:
    proto = networks.transformer()
    for info in proto.graph.input:
        info.type.tensor_type.shape.dim[0].dim_value, info.type.tensor_type.shape.dim[1].dim_value = 2, 9
    model = load(proto)
    piece = extract(model, [model.index.producer["q1_split"]], ["q1_split"])
    assert [s.name for s in piece.inputs] == ["q1"]
    dynamic = load(networks.transformer())
    piece = extract(dynamic, [dynamic.index.producer["q1_split"]], ["q1_split"])
    assert [s.name for s in piece.inputs] == ["q1", "embedded"]


def test_bodies_can_be_entered() -> None:
    model = load(networks.control())
    bodies = {
        op: enter(model, next(p for p, n in enumerate(model.index.nodes) if n.op_type == op))
        for op in ("If", "Loop", "Scan")
    }
    assert [sorted(b) for b in bodies.values()] == [["else_branch", "then_branch"], ["body"], ["body"]]
    loop = bodies["Loop"]["body"]
    assert [s.name for s in loop.inputs] == ["i", "go", "state", "first"]
    rng = np.random.default_rng(0)
    feed = {
        "i": np.array(0),
        "go": np.array(True),
        "state": rng.normal(size=(4, 4)).astype(np.float32),
        "first": rng.normal(size=(4, 4)).astype(np.float32),
    }
    gain = model.index.weight("gain")
    expected = feed["state"] * gain + feed["first"]
    np.testing.assert_array_equal(networks.run(loop.proto, feed)["next"], expected)
    then = bodies["If"]["then_branch"]
    assert [t.name for t in then.proto.graph.initializer] == ["gain"]


@pytest.mark.parametrize("name", NETWORKS)
def test_propagated_shapes_are_those_at_run_time(name: str) -> None:
    model = load(NETWORKS[name]())
    feed = feed_of(name)
    shapes = propagate(model, {n: v.shape for n, v in feed.items()})
    values = networks.run_all(model.proto, feed)
    known = {n: s for n, s in shapes.items() if s is not None}
    assert {n: values[n].shape for n in known} == known
    unknown = set(shapes) - set(known)
    assert unknown <= {"looped", "rows", "y"} if name == "control" else not unknown


def test_pieces_propagate_their_borders_for_min_opt_max() -> None:
    model = load(networks.transformer())
    pieces = plan_pieces(model.index, fused_groups(model.index), memory=12_000)
    for size in ((1, 4), (2, 9), (8, 16)):
        whole = propagate(model, {"ids": size, "mask": size})
        for piece in pieces:
            part = extract(model, piece.nodes, piece.outputs)
            mine = propagate(part, {n: whole[n] for n in piece.inputs})
            assert {n: mine[n] for n in piece.outputs} == {n: whole[n] for n in piece.outputs}


def test_what_is_known_of_a_graph_goes_with_it():
    import gc
    import weakref

    index = GraphIndex(parsed("g (float[4] x) => (float[4] y) { y = Relu(x) }"))
    assert dataflow(index) is dataflow(index)
    gone = weakref.ref(index)
    del index
    gc.collect()
    assert gone() is None
