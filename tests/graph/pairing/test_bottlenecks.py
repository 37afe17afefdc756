"""Branches that one graph computes side by side, and the other in one kernel."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.changes import OperatorChange
from layerdiff.graph.pairing.matching import match

from support.models import normal, parsed

BLOCKS = 3


def network(one_kernel: bool, lost: int | None = None, renamed: bool = False):
    """Blocks of two products and a shortcut, added up, with a Relu behind; or each block's products in one.

    Args:
        one_kernel: Whether each block is one product.
        lost: The block whose one product lacks the shortcut.
        renamed: Whether tensors and nodes have names of their own.
    """
    rng, weights, text, at = np.random.default_rng(3), {}, "[stem] r0 = MatMul(x, w)", "t" if renamed else "r"
    weights["w"] = rng.normal(size=(8, 8)).astype(np.float32)
    text = text.replace("r0", f"{at}0")
    for i in range(1, BLOCKS + 1):
        a, b = (rng.normal(size=(8, 8)).astype(np.float32) for _ in range(2))
        before = f"{at}{i - 1}"
        if one_kernel:
            weights[f"k{i}"] = a + b + (0 if i == lost else np.eye(8, dtype=np.float32))
            text += f" [{at}one{i}] {at}m{i} = MatMul({before}, k{i}) [{at}act{i}] {at}{i} = Relu({at}m{i})"
            continue
        weights.update({f"a{i}": a, f"b{i}": b})
        text += (
            f" [left{i}] p{i} = MatMul({before}, a{i}) [right{i}] q{i} = MatMul({before}, b{i})"
            f" [both{i}] s{i} = Add(p{i}, q{i}) [short{i}] m{i} = Add(s{i}, {before}) [act{i}] r{i} = Relu(m{i})"
        )
    text += f" [head] y = MatMul({at}{BLOCKS}, v)"
    weights["v"] = rng.normal(size=(8, 8)).astype(np.float32)
    return parsed(f"g (float[4,8] x) => (float[4,8] y) {{ {text} }}", **weights)


@pytest.mark.parametrize("lost", [None, 2])
@pytest.mark.parametrize("renamed", [False, True])
def test_what_each_block_ends_in_is_matched_and_no_branch_of_it(lost: int | None, renamed: bool) -> None:
    found = match(GraphIndex(network(False)), GraphIndex(network(True, lost, renamed)))
    at = "t" if renamed else "r"
    for i in range(1, BLOCKS + 1):
        assert found.tensors[f"r{i}"] == f"{at}{i}"
        assert found.tensors[f"m{i}"] == f"{at}m{i}"
        assert not {f"p{i}", f"q{i}", f"s{i}"} & found.tensors.keys()
    changes = [d.change for d in found.differences]
    assert all(isinstance(change, OperatorChange) for change in changes)
    assert [str(change) for change in changes] == ["MatMul, MatMul, Add, Add against MatMul"] * BLOCKS


def test_the_block_whose_kernel_is_wrong_is_the_one_that_is_named() -> None:
    data = [{"x": np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)}]
    whole, healthy, faulty = network(False), network(True), network(True, lost=2, renamed=True)
    for other in (healthy, faulty):
        report = Comparator(whole, [OnnxrtRunner()], data_loader=data, candidate_model=other, layers="guilty").compare()
        blamed = [(c.node, c.candidate_node, c.cause, c.remedies[0].text) for c in report.culprits]
        text = "fold left2, right2, both2 and short2 into tone2 again, or put them back there"
        assert blamed == ([] if other is healthy else [("right2", "tone2", "wrong-op", text)])


def test_a_shortcut_that_is_lost_is_missing_where_the_weights_are_the_same() -> None:
    whole, other = (
        parsed(
            "g (float[4,8] x) => (float[4,8] y) { [stem] a = MatMul(x, w) [one] b = MatMul(a, v) "
            f"{end} [head] y = MatMul(r, u) }}",
            **{n: np.random.default_rng(i).normal(size=(8, 8)).astype(np.float32) for i, n in enumerate("wvu")},
        )
        for end in ("[short] c = Add(b, a) [act] r = Relu(c)", "[act] r = Relu(b)")
    )
    found = match(GraphIndex(whole), GraphIndex(other))
    assert found.tensors["b"] == "b"
    assert [str(d.change) for d in found.differences] == ["Add short is missing in the candidate"]


def test_functions_of_another_order_are_no_bottlenecks() -> None:
    graphs = [
        parsed(
            "g (float[4,8] x) => (float[4,8] y) { [stem] a = MatMul(x, w) [p] b = MatMul(a, v) [q] c = MatMul(a, u) "
            f"[s] d = Add(b, c) [one] e = {first}(d) [t] f = MatMul(e, k) "
            f"[two] h = {second}(f) [head] y = MatMul(h, w) }}",
            **{n: np.random.default_rng(i).normal(size=(8, 8)).astype(np.float32) for i, n in enumerate("wvuk")},
        )
        for first, second in (("Relu", "Tanh"), ("Tanh", "Relu"))
    ]
    assert match(*map(GraphIndex, graphs)).tensors.get("e") != "h"


@pytest.mark.parametrize(
    ("perm", "says"), [("[1, 0, 2]", []), ("[2, 1, 0]", ["t1 and t2 together: perm [1, 0, 2] against [2, 1, 0]"])]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_transposes_that_follow_each_other_are_compared_as_one(perm: str, says: list[str], swapped: bool) -> None:
    weights = {"w": np.eye(4, dtype=np.float32), "v": np.ones((4, 3), np.float32)}
    two, one = (
        parsed(
            f"g (float[4,4,4] x) => (float[4,4,3] y) {{ [mm] a = MatMul(x, w) [act] b = Tanh(a) {body} "
            "[end] y = MatMul(d, v) }",
            **weights,
        )
        for body in (
            "[t1] c = Transpose<perm=[1, 2, 0]>(b) [t2] d = Transpose<perm=[0, 2, 1]>(c)",
            f"[t2] d = Transpose<perm={perm}>(b)",
        )
    )
    graphs = (one, two) if swapped else (two, one)
    found = match(*map(GraphIndex, graphs))
    if swapped:
        says = [text.replace("[1, 0, 2] against [2, 1, 0]", "[2, 1, 0] against [1, 0, 2]") for text in says]
    assert [d.detail for d in found.differences] == says
    assert found.tensors["d"] == "d"
    assert "c" not in found.tensors


def test_transposes_that_both_graphs_have_stay_two() -> None:
    """What one file leaves out between two Transposes brings them together there."""
    with_it, without = (
        parsed(
            f"g (float[4,4,4] x) => (float[4,4,3] y) {{ [mm] a = MatMul(x, w) [t1] b = Transpose<perm=[1, 2, 0]>(a) "
            f"{between} [t2] d = Transpose<perm=[0, 2, 1]>({read}) [end] y = MatMul(d, v) }}",
            w=np.eye(4, dtype=np.float32), v=np.ones((4, 3), np.float32),
        )
        for between, read in (("[act] c = Sin(b)", "c"), ("", "b"))
    )  # fmt: skip
    found = match(GraphIndex(with_it), GraphIndex(without))
    assert [str(d.change) for d in found.differences] == ["Sin act is missing in the candidate"]


def adapted(merged: bool, scale: tuple[float, ...] = (0.5, 0.5)):
    """Layers with a low-rank branch beside each product (LoRA), or with the branches merged into the products.

    Args:
        merged: Whether each layer is one product.
        scale: What the branch of each layer is multiplied with where it is merged.
    """
    rng, weights, text, read = np.random.default_rng(5), {}, "", "x"
    for i, factor in enumerate(scale):
        base, a, b = (rng.normal(size=size).astype(np.float32) / 3 for size in ((8, 8), (8, 2), (2, 8)))
        if merged:
            weights[f"W{i}"] = base + np.float32(factor) * (a @ b)
            text += f"[lin{i}] l{i} = MatMul({read}, W{i}) [tanh{i}] h{i} = Tanh(l{i})"
        else:
            weights |= {f"W{i}": base, f"A{i}": a, f"B{i}": b}
            text += (
                f"[base{i}] p{i} = MatMul({read}, W{i}) [down{i}] q{i} = MatMul({read}, A{i}) "
                f"[up{i}] r{i} = MatMul(q{i}, B{i}) [alpha{i}] s{i} = Mul(r{i}, half) "
                f"[merge{i}] m{i} = Add(p{i}, s{i}) [tanh{i}] h{i} = Tanh(m{i})"
            )
        read = f"h{i}"
    weights |= {"V": rng.normal(size=(8, 4)).astype(np.float32), "half": np.array([0.5], np.float32)}
    return parsed(f"g (float[4,8] x) => (float[4,4] y) {{ {text} [head] y = MatMul({read}, V) }}", **weights)


@pytest.mark.parametrize("scale", [(0.5, 2.0), (0.5, 0.0), (0.5, 2.0, 0.5)])
def test_a_branch_that_is_merged_wrongly_is_told_where_it_is(scale: tuple[float, ...]) -> None:
    data = [{"x": np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)}]
    whole = adapted(False, (0.5,) * len(scale))
    found = match(GraphIndex(whole), GraphIndex(adapted(True, scale)))
    for i in range(len(scale)):
        assert (found.tensors[f"m{i}"], found.tensors[f"h{i}"]) == (f"l{i}", f"h{i}")
        assert not {f"q{i}", f"r{i}", f"s{i}"} & found.tensors.keys()
    report = Comparator(
        whole, [OnnxrtRunner()], data_loader=data, candidate_model=adapted(True, scale), layers="guilty"
    ).compare()
    blamed = [(c.candidate_node, c.cause, c.remedies[0].text) for c in report.culprits]
    if scale[1]:
        adapter = "the adapter MatMul down1 and MatMul up1"
        text = f"merge {adapter} into lin1 again with a scale of 0.5, as the first file adds it"
        assert blamed == [("lin1", "weights", text)]
    else:
        assert [(c.node, c.cause) for c in report.culprits] == [("merge1", "wrong-op")]
        assert "MatMul down1, MatMul up1, Mul alpha1 and Add merge1 are missing" in str(
            report.culprits[0].facts[0].text
        )


def test_branches_that_are_computed_in_another_order_are_no_bottlenecks() -> None:
    weights = {"o": normal(24, 8, seed=9), **{f"w{i}": normal(8, 8, seed=i) for i in range(3)}}

    def index(name: str, *order: int) -> GraphIndex:
        branches = [f"{name}a{i} = MatMul(x, w{i}) {name}b{i} = Tanh({name}a{i})" for i in order]
        joined = ", ".join(f"{name}b{i}" for i in sorted(order))
        steps = f"{' '.join(branches)} {name}c = Concat<axis=1>({joined}) {name}d = Softmax({name}c)"
        return GraphIndex(parsed(f"g (float[4,8] x) => (float[4,8] y) {{ {steps} y = MatMul({name}d, o) }}", **weights))

    found = match(index("r", 0, 1, 2), index("c", 2, 1, 0))
    assert {f"b{i}": found.tensors[f"rb{i}"] for i in range(3)} == {f"b{i}": f"cb{i}" for i in range(3)}
