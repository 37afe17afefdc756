"""The benchmark of faults: what it plants is real and in one place, what it calls clean is clean, its score is fair."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from benchmarks.faults import baseline, cases, clean, table
from benchmarks.faults.case import REACHED, REAL, Case, distance, floats, values
from benchmarks.faults.edit import Edit
from benchmarks.faults.plants import KINDS
from benchmarks.faults.running import judge
from benchmarks.kit.networks import NETWORKS, network
from benchmarks.kit.runtime import observe

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def first(kind: str) -> Case:
    return next(case for name in NETWORKS for case in cases.generate([kind], [name]))


def inside(node: onnx.NodeProto) -> set[str]:
    """Names of the nodes in the bodies of one."""
    return {name for a in node.attribute if a.type == onnx.AttributeProto.GRAPH for name in names(a.g)}


def names(graph: onnx.GraphProto) -> set[str]:
    """Names of all nodes, those in bodies too."""
    return {name for node in graph.node for name in (node.name, *inside(node))}


def downstream(proto: onnx.ModelProto, nodes: frozenset[str]) -> set[str]:
    """Tensors that depend on the output of one of the nodes, or of one that it is inside of."""
    reached: set[str] = set()
    for node in proto.graph.node:
        if {node.name, *inside(node)} & nodes or any(i in reached for i in node.input):
            reached.update(node.output)
    return reached


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_its_activations_in_scale(name):
    for tensor, value in values(name).items():
        if value.dtype == np.float32 and value.size > 100 and "mask" not in tensor:
            assert np.isfinite(value).all()
            assert np.abs(value).max() < 1e5, tensor
    net = network(name)
    outputs = observe(net.proto, net.samples(0, 2), [o.name for o in net.proto.graph.output])
    assert all(0.1 < value.std() < 30 for sample in outputs for value in sample.values())
    assert not any(np.array_equal(outputs[0][key], outputs[1][key]) for key in outputs[0])


def test_there_are_enough_kinds_and_networks():
    assert len(KINDS) >= 18
    assert len(NETWORKS) >= 6


@pytest.mark.parametrize("kind", [k for k, v in KINDS.items() if not v.emulated])
def test_a_fault_changes_its_node_and_nothing_before_it(kind):
    case = first(kind)
    assert case.local > REAL
    assert case.final > REACHED
    assert case.causes
    assert case.node in case.nodes
    assert case.node in names(case.reference.graph)
    after = downstream(case.reference, case.nodes)
    made = set(baseline.marked(case.candidate))  # a Constant is a weight
    before = [t for t in baseline.marked(case.reference) if t not in after and t in made]
    if not before:  # the first node
        return
    feeds = case.feeds()[:1]
    reference, candidate = (observe(p, feeds, before)[0] for p in (case.reference, case.candidate))
    assert all(np.array_equal(reference[t], candidate[t]) for t in before)


@pytest.mark.parametrize("kind", [k for k, v in KINDS.items() if not v.emulated])
def test_a_fault_leaves_the_other_nodes_as_they_are(kind):
    case = first(kind)
    reference, candidate = Edit(case.reference), Edit(case.candidate)
    others = {n.name: n for n in candidate.graph.node}
    for node in reference.graph.node:
        other = others.get(node.name)
        if {node.name, *inside(node)} & case.nodes:
            continue
        if other is None:  # what only the fault's node read, and what led there alone
            readers = {r.name for r in reference.readers(node.output[0])}
            assert all(r in case.nodes or r not in others for r in readers)
            continue
        assert list(node.attribute) == list(other.attribute) or node.op_type == "Constant", node.name
        for old, new in zip(node.input, other.input, strict=True):
            if (weight := reference.weight(old)) is not None:
                assert np.array_equal(weight, candidate.weight(new)), (node.name, old)


@pytest.mark.parametrize("kind", [k for k, v in KINDS.items() if v.emulated])
def test_a_fault_of_a_narrow_format_leaves_fp32_unharmed(kind):
    case = first(kind)
    original, outputs = network(case.network).proto, [o.name for o in case.reference.graph.output]
    pairs = zip(*(observe(p, case.feeds(), outputs) for p in (original, case.reference)), strict=True)
    assert max(distance(a[o], b[o]) for a, b in pairs for o in outputs) < 1e-3
    assert case.local > 0  # the share of elements that FP16 cannot hold
    assert case.emulate == "fp16"
    assert case.candidate is None


def test_cases_are_the_same_every_time():
    for kind in ("stale_weights", "fp16_accumulation", "overflow_fp16"):
        one, two = (next(cases.generate([kind], ["vit"])) for _ in range(2))
        assert one.id == two.id
        assert one.reference == two.reference
        assert one.candidate == two.candidate


def test_a_dressed_case_shares_no_inner_name_with_its_reference():
    case = next(cases.generate([cases.DRESSED], ["unet"]))
    assert not set(floats(case.reference)) & set(floats(case.candidate)) - {"mask"}


def test_a_fault_that_changes_nothing_is_left_out_and_counted():
    # The bias of the keys adds the same to every score of a query: Softmax does not see it.
    dropped = cases.Dropped()
    kind = KINDS["bias_dropped"]
    with pytest.raises(cases.Unreal):
        cases.plant("vit", kind, "/vit/encoder/layer.1/attention/key/Add", 0)
    list(cases.generate(["bias_dropped"], ["vit", "bert"], dropped))
    assert all("key" in why for why in dropped.places.get("bias_dropped", []))


@pytest.mark.parametrize("kind", ["bn_folded", "renamed", "constants_folded", "opset_upgraded"])
def test_a_clean_pair_of_files_computes_the_same(kind):
    pairs = list(clean.generate([kind], ["unet", "bert", "mobilenet"]))
    assert pairs
    for case in pairs:
        outputs = [o.name for o in case.reference.graph.output]
        one, two = (observe(p, case.feeds(), outputs) for p in (case.reference, case.candidate))
        assert max(distance(a[o], b[o]) for a, b in zip(one, two, strict=True) for o in outputs) < 1e-5


def test_a_network_typed_fp16_differs_by_rounding_alone():
    case = next(clean.generate(["typed_fp16"], ["resnet"]))
    one, two = (observe(p, case.feeds(), ["output"]) for p in (case.reference, case.candidate))
    assert 1e-5 < distance(one[0]["output"], two[0]["output"]) < 5e-3


@pytest.mark.parametrize("kind", ["typed_bn_folded", "typed_renamed", "typed_opset_upgraded"])
def test_a_clean_pair_of_typed_files_differs_by_rounding_alone(kind):
    (case,) = clean.generate([kind], ["resnet"])
    assert all(holds_fp16(proto) for proto in (case.reference, case.candidate))
    one, two = (observe(p, case.feeds(), ["output"]) for p in (case.reference, case.candidate))
    assert distance(one[0]["output"], two[0]["output"]) < 5e-3


def test_faults_between_typed_files_are_faults_that_their_noise_does_not_hide():
    planted = list(cases.generate(["typed_pair"], ["resnet"]))
    assert planted
    for case in planted:
        assert all(holds_fp16(proto) for proto in (case.reference, case.candidate))
        one, two = (observe(p, case.feeds(), ["output"]) for p in (case.reference, case.candidate))
        healthy = observe(network("resnet").proto, case.feeds(), ["output"])
        noise, error = (distance(a[0]["output"], one[0]["output"]) for a in (healthy, two))
        assert error > 2 * noise


def holds_fp16(proto):
    """Whether every floating weight is FP16."""
    types = {t.data_type for t in proto.graph.initializer} & {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    return types == {onnx.TensorProto.FLOAT16}


def result(answers, *, rank=None, cause=False, is_clean=False, error=None):
    return {
        "id": "n/k/0", "network": "n", "kind": "k", "clean": is_clean, "rank": rank, "cause_right": cause, "what": "",
        "answers": [{"node": a, "cause": "weights"} for a in answers], "error": error, "seconds": 1.0, "calls": 2,
        "node": None if is_clean else "a", "causes": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("case", "is_right"),
    [
        (result("a", rank=1, cause=True), True),
        (result("a", rank=1), False),
        (result("ba", rank=2, cause=True), False),
        (result("b"), False),
        (result(""), False),
        (result("", is_clean=True), True),
        (result("b", is_clean=True), False),
        (result("", is_clean=True, error="crashed"), False),
    ],
)
def test_only_a_whole_answer_is_right(case, is_right):
    assert table.right(case) == is_right


def test_the_score_counts_every_case_misses_included():
    found = table.score([result("a", rank=1, cause=True), result("ba", rank=2), result(""), result("", is_clean=True)])
    assert (found["cases"], found["top1"], found["top3"], found["cause"], found["alone"]) == (3, 1, 2, 1, 1)


@pytest.mark.parametrize(("part", "whole", "text"), [(10, 10, "100 %"), (999, 1000, "99.9 %"), (1, 2, "50 %")])
def test_only_a_full_share_reads_100_percent(part, whole, text):
    assert table.percent(part, whole) == text


def test_the_page_shows_a_miss():
    page = table.markdown([result("b"), result("a", rank=1, cause=True)], {"k": ["n: nothing"]}, 1)
    assert "| `n/k/0` |" in page.split("## What is missed")[1]


def test_baselines_name_the_node_of_the_first_tensor_that_fails():
    pytest.importorskip("polygraphy")
    case = next(cases.generate(["residual_missing"], ["lstm", "resnet"]))
    named = baseline.named(case)
    assert named["polygraphy"][0] == named["plain"][0]
    assert set(named["polygraphy"][:1]) - case.nodes == set() or case.tensors[0] != case.tensors[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [("norm_epsilon", "resnet"), ("softmax_axis", "vit"), ("overflow_fp16", "unet"), ("gates_reordered", "lstm")],
)
def test_the_localizer_finds_it(kind, name, tmp_path):
    scored = judge(next(cases.generate([kind], [name])), tmp_path / "case", baselines=False)
    assert scored["error"] is None
    assert scored["rank"] == 1
    assert scored["cause_right"]


@pytest.mark.slow
def test_the_localizer_is_silent_where_nothing_is_wrong(tmp_path):
    scored = judge(next(clean.generate(["renamed"], ["bert"])), tmp_path / "case", baselines=False)
    assert scored["error"] is None
    assert scored["answers"] == []


@pytest.mark.slow
def test_there_are_more_than_300_cases():
    assert sum(1 for _ in cases.generate()) > 300
