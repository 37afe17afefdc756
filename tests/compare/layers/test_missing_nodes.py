"""Nodes between two products that one file lacks, or has in another order."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

WEIGHTS = {"w": normal(8, 16), "v": normal(16, 4, seed=1), "u": normal(16, seed=5)}
NUMBERS = {
    "three": np.array([3.0], np.float32),
    "seven": np.array([7.0], np.float32),
    "half": np.float32(0.5),
    "low": np.float32(-90),
}
DATA = [{"x": normal(6, 8, seed=2)}]
STEPS = {
    "three": "[three] {out} = Mul({data}, three)",
    "seven": "[seven] {out} = Mul({data}, seven)",
    "bias": "[bias] {out} = Add({data}, u)",
    "lift": "[lift] {out} = Add({data}, half)",
    "floor": "[floor] {out} = Clip({data}, half)",
    "deep": "[deep] {out} = Clip({data}, low)",
    "minus": "[minus] {out} = Neg({data})",
    "relu": "[relu] {out} = Relu({data})",
    "tanh": "[tanh] {out} = Tanh({data})",
    "gate": "[gate] {out} = Sigmoid({data})",
}


def network(*steps: str):
    nodes = " ".join(STEPS[step].format(data=f"t{i}", out=f"t{i + 1}") for i, step in enumerate(steps))
    text = f"""g (float[6,8] x) => (float[6,4] y) {{
        [first] t0 = MatMul(x, w) {nodes} [last] y = MatMul(t{len(steps)}, v) }}"""
    read = {name: value for name, value in (WEIGHTS | NUMBERS).items() if f", {name})" in text}
    return parsed(text, **read)


@pytest.mark.parametrize(
    ("reference", "candidate", "node", "cause", "evidence"),
    [
        (["three", "seven"], ["three"], "seven", "scale", "Mul seven is missing in the candidate"),
        (["three"], ["three", "seven"], "three", "scale", "Mul seven is in the candidate alone"),
        (["three", "tanh", "seven"], ["three", "seven"], "tanh", "wrong-op", "Tanh tanh is missing in the candidate"),
        (
            ["three", "tanh", "seven"],
            ["three"],
            "seven",
            "wrong-op",
            "Tanh tanh and Mul seven are missing in the candidate",
        ),
        (
            ["bias", "relu", "three"],
            ["three"],
            "relu",
            "wrong-op",
            "Add bias and Relu relu are missing in the candidate",
        ),
        (["three", "gate"], ["gate", "three"], "gate", "wrong-op", "Mul, Sigmoid against Sigmoid, Mul"),
        (["gate", "three"], ["three", "gate"], "three", "wrong-op", "Sigmoid, Mul against Mul, Sigmoid"),
        (["three", "bias"], ["bias", "three"], "bias", "wrong-op", "Mul, Add against Add, Mul"),
        (["bias", "three"], ["three", "bias"], "three", "wrong-op", "Add, Mul against Mul, Add"),
        (["relu", "bias"], ["bias", "relu"], "bias", "wrong-op", "Relu, Add against Add, Relu"),
    ],
)
def test_what_is_missing_or_in_another_order_is_told_once(reference, candidate, node, cause, evidence):
    culprit = only(compare(network(*reference), network(*candidate), DATA))
    assert (culprit.node, culprit.cause) == (node, cause)
    assert culprit.evidence.count(evidence) == 1


@pytest.mark.parametrize(
    ("reference", "candidate", "told"),
    [
        (["three", "seven"], ["three"], "Mul seven (with 7)"),
        (["bias", "lift"], ["bias"], "Add lift (with 0.5)"),
        (["tanh", "bias"], ["tanh"], "Add bias"),
        (["floor", "minus"], ["floor"], "Neg minus"),
    ],
)
def test_what_the_second_file_lacks_is_to_be_put_there_with_its_number(reference, candidate, told):
    culprit = only(compare(network(*reference), network(*candidate), DATA))
    assert culprit.remedies[0].text == f"put the first file's {told} there"


def test_what_the_second_file_lacks_behind_an_operator_of_its_own_is_to_be_put_there():
    culprit = only(compare(network("lift"), network("deep"), DATA))
    assert culprit.remedies[0].text == "put the first file's Add lift behind Clip deep in the second file"


def test_a_factor_that_is_moved_is_to_be_put_there_and_left_out_where_it_is():
    """A bias that is added to scores before they are scaled, and not behind that."""
    text = """g (float[6,16] x, float[6,6] b) => (float[6,6] y) {{
        [q] q = MatMul(x, w) [k] k = MatMul(x, v) t = Transpose<perm=[1,0]>(k)
        [s] s = MatMul(q, t) {} y = Softmax(z) }}"""
    first = "[scale] m = Mul(s, quarter) [bias] z = Add(m, b)"
    second = "[bias] m = Add(s, b) [late] z = Mul(m, quarter)"
    read = {"w": normal(16, 8), "v": normal(16, 8, seed=1), "quarter": np.float32(0.25)}
    data = [{"x": normal(6, 16, seed=2), "b": normal(6, 6, seed=3)}]
    report = compare(parsed(text.format(first), **read), parsed(text.format(second), **read), data)
    told = "put the first file's Mul scale (with 0.25) there, and leave Mul late out"
    assert told in [r.text for c in report.culprits for r in c.remedies]


@pytest.mark.parametrize("more", [["seven"], ["tanh"], ["relu", "three"]])
def test_what_the_second_file_alone_has_is_to_be_left_out(more):
    culprit = only(compare(network("bias"), network("bias", *more), DATA))
    ops = {"seven": "Mul", "three": "Mul", "tanh": "Tanh", "relu": "Relu"}
    names = " and ".join(f"{ops[name]} {name}" for name in more)
    assert culprit.remedies[0].text == f"leave {names} out of the second file"


@pytest.mark.parametrize(
    ("one", "other"), [(["relu", "tanh"], ["tanh", "relu"]), (["three", "seven"], ["seven", "three"])]
)
def test_another_order_that_makes_no_difference_is_no_fault(one, other):
    report = compare(network(*one), network(*other), DATA)
    assert report.verdict == "pass"
    assert not report.culprits


RESIZING = {
    "pool": "[pool] {out} = MaxPool<kernel_shape=[2,2], strides=[2,2]>({data})",
    "pad": "[pad] {out} = Pad({data}, pads)",
    "crop": "[crop] {out} = Slice({data}, starts, ends, axes)",
}
MAPS = {
    **{n: normal(8, 8, 3, 3, seed=i) / 8 for i, n in enumerate("abc")}, "stem_w": normal(8, 3, 3, 3, seed=7) / 4,
    "gate_w": normal(8, 8, 1, 1, seed=8) / 4, "head_w": normal(8, 5, seed=9), "flat": np.array([2, 8]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "starts": np.array([1, 1]), "ends": np.array([16, 16]),
    "axes": np.array([2, 3]), "hw": np.array([2, 3]),
}  # fmt: skip


def maps(*steps: str):
    """Convolutions with a gate that looks at all places, and a mean of all places at the end."""
    nodes = " ".join(RESIZING[step].format(data=f"t{i}", out=f"t{i + 1}") for i, step in enumerate(steps))
    conv = "Conv<pads=[1,1,1,1]>"
    text = f"""g (float[2,3,16,16] x) => (float[2,5] y) {{
        [stem] m0 = {conv}(x, stem_w) [stem_act] t0 = Relu(m0) {nodes} [a] m1 = {conv}(t{len(steps)}, a)
        [a_act] m2 = Relu(m1) [look] g0 = ReduceMean<axes=[2,3]>(m2) [gate] g1 = Conv(g0, gate_w)
        [open] g2 = Sigmoid(g1) [gated] m3 = Mul(m2, g2) [b] m4 = {conv}(m3, b) [b_act] m5 = Relu(m4)
        [c] m6 = {conv}(m5, c) [sum] m7 = Add(m6, m5) [mean] m8 = ReduceMean<axes=[2,3]>(m7)
        [flatten] m9 = Reshape(m8, flat) [head] y = MatMul(m9, head_w)
    }}"""
    read = {name: value for name, value in MAPS.items() if f"{name})" in text or f"{name}," in text}
    return parsed(text, **read)


@pytest.mark.parametrize(
    ("reference", "candidate", "node", "evidence", "remedy"),
    [
        (["pool"], [], "pool", "MaxPool pool is missing in the candidate", "put the first file's MaxPool pool there"),
        ([], ["pool"], "pool", "MaxPool pool is in the candidate alone", "leave MaxPool pool out of the second file"),
        (["pool"], ["pad", "pool"], "pad", "Pad pad is in the candidate alone", "leave Pad pad out of the second file"),
        ([], ["crop"], "crop", "Slice crop is in the candidate alone", "leave Slice crop out of the second file"),
    ],
)
def test_an_operator_behind_which_all_sizes_are_others_is_the_one_culprit(reference, candidate, node, evidence, remedy):
    data = [{"x": normal(2, 3, 16, 16, seed=3)}]
    report = compare(maps(*reference), maps(*candidate), data, layers="all")
    culprit = only(report)
    assert (report.verdict, culprit.node, culprit.cause) == ("fail", node, "wrong-op")
    assert evidence in culprit.evidence
    assert [r.text for r in culprit.remedies] == [remedy]


def test_sizes_that_follow_from_an_attribute_are_told_as_that():
    first = maps("pool")
    second = maps("pool")
    (pool,) = (n for n in second.graph.node if n.name == "pool")
    for a in pool.attribute:
        if a.name == "strides":
            a.ints[:] = [1, 1]
    culprit = only(compare(first, second, [{"x": normal(2, 3, 16, 16, seed=3)}], layers="all"))
    assert (culprit.node, culprit.cause) == ("pool", "attribute")


LATE = """g (float[4,8] x) => (float[4,8] y) {{
    [loop] y = Loop(six, yes, x) <body = body (int64 i, bool go, float[4,8] s) => (bool on, float[4,8] n) {{
        [on] on = Identity(go) [fc] h = MatMul(s, w) {0} }}> }}"""
FACTOR = "[late] g = Greater(i, three) [fac] f = Where(g, factor, one) [mul] k = Mul(h, f) [act] n = Tanh(k)"


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "more"])
def test_a_factor_that_follows_from_another_tensor_is_told_as_what_one_file_alone_has(missing):
    given = {"six": np.int64(6), "yes": np.bool_(True), "three": np.int64(3), "w": normal(8, 8, seed=4)}
    given |= {"factor": np.float32(1.02), "one": np.float32(1)}
    models = [parsed(LATE.format(body), **given) for body in (FACTOR, "[act] n = Tanh(h)")]
    culprit = only(compare(*(models if missing else models[::-1]), [{"x": normal(4, 8)}]))
    where = "missing in the candidate" if missing else "in the candidate alone"
    assert culprit.evidence.startswith(f"Greater late, Where fac and Mul mul are {where}")
    assert culprit.cause == "wrong-op"


GATED = {
    "first": """[silu_gate] s = Sigmoid(m0) [silu] m1 = Mul(m0, s) [b] m2 = Conv<pads=[1,1,1,1], strides=[2,2]>(m1, b)
        [group] r = Reshape(m2, groups) [norm] i = InstanceNormalization(r, ones, zeros) [back] j = Reshape(i, sizes)
        [relu] k = Relu(j) [c] l = Conv(k, c) [act] o = HardSwish(l)""",
    "second": """[quick] m1 = com.microsoft.QuickGelu<alpha=1.0>(m0)
        [b_] m2 = Conv<pads=[1,1,1,1], strides=[2,2]>(m1, b) [group_] r = Reshape(m2, groups)
        [mean] n0 = ReduceMean<axes=[-1]>(r) [less] n1 = Sub(r, n0) [square] n2 = Pow(n1, two)
        [var] n3 = ReduceMean<axes=[-1]>(n2) [more] n4 = Add(n3, eps) [root] n5 = Sqrt(n4) [over] i = Div(n1, n5)
        [back_] j = Reshape(i, sizes) [relu_] k = {relu}
        [c_] l = Conv(k, c) [sig] u = HardSigmoid<alpha=0.1666666716337204, beta=0.5>(l) [act_] o = Mul(l, u)""",
}


@pytest.mark.parametrize("relu", ["Relu(j)", "Max(j, zero)"])
def test_what_a_normalization_is_written_with_changes_no_sizes_behind_it(relu):
    def network(steps: str, stem):
        text = f"""g (float[2,3,16,16] x) => (float[2,8,8,8] y) {{
            [stem] m0 = Conv<pads=[1,1,1,1]>(x, stem_w) {GATED[steps].format(relu=relu)} [last] y = Conv(o, a) }}"""
        values = {
            "a": normal(8, 8, 1, 1, seed=5), "b": MAPS["b"], "c": normal(8, 8, 1, 1, seed=6), "stem_w": stem,
            "ones": np.ones(2, np.float32), "zeros": np.zeros(2, np.float32), "two": np.array(2, np.float32),
            "zero": np.zeros(1, np.float32), "eps": np.array(1e-5, np.float32), "groups": np.array([2, 2, -1]),
            "sizes": np.array([2, 8, 8, 8]),
        }  # fmt: skip
        read = {name: value for name, value in values.items() if f" {name})" in text or f" {name}," in text}
        return parsed(text, domains=["com.microsoft"] if steps == "second" else [], **read)

    pair = network("first", MAPS["stem_w"]), network("second", MAPS["stem_w"] * np.float32(1.001))
    culprit = only(compare(*pair, [{"x": normal(2, 3, 16, 16, seed=3)}]))
    assert (culprit.node, culprit.cause) == ("stem", "weights")


def test_axes_of_one_size_that_are_exchanged_before_tokens_are_told_at_what_exchanges_them():
    def network(turn: str, read: str):
        text = f"""g (float[2,3,8,8] x) => (float[2,64,5] y) {{
            [stem] s = Conv<pads=[1,1,1,1]>(x, stem_w) [act] a = Relu(s) {turn} [flatten] f = Reshape({read}, flat)
            [tokens] k = Transpose<perm=[0,2,1]>(f) [mix] y = MatMul(k, head_w) }}"""
        return parsed(text, stem_w=MAPS["stem_w"], head_w=MAPS["head_w"], flat=np.array([2, 8, 64]))

    pair = network("", "a"), network("[turn] t = Transpose<perm=[0,1,3,2]>(a)", "t")
    culprit = only(compare(*pair, [{"x": normal(2, 3, 8, 8, seed=3)}]))
    assert (culprit.node, culprit.cause) == ("turn", "wrong-op")
    assert "Reshape flatten is given its result in place of 'a'" in culprit.evidence


def test_a_normalization_in_pieces_gives_its_name_to_what_is_written_otherwise():
    def network(middle: str, **numbers: float):
        text = f"""g (float[2,3,8,8] x) => (float[2,8,8,8] y) {{
            [stem] s = Conv<pads=[1,1,1,1]>(x, stem_w) {middle} [last] y = Conv<pads=[1,1,1,1]>(k, a) }}"""
        values = {name: np.array(value, np.float32) for name, value in numbers.items()}
        values |= {"ones": np.ones(8, np.float32), "zeros": np.zeros(8, np.float32)}
        read = {name: value for name, value in values.items() if f" {name})" in text or f" {name}," in text}
        return parsed(text, stem_w=MAPS["stem_w"], a=MAPS["a"], **read)

    whole = network("[norm] i = InstanceNormalization(s, ones, zeros) [relu] k = Relu(i)")
    pieces = """[mean] n0 = ReduceMean<axes=[2,3]>(s) [less] n1 = Sub(s, n0) [square] n2 = Pow(n1, two)
        [var] n3 = ReduceMean<axes=[2,3]>(n2) [more] n4 = Add(n3, eps) [root] n5 = Sqrt(n4) [over] i = Div(n1, n5)
        [positive] k = Max(i, zero)"""
    data = [{"x": normal(2, 3, 8, 8, seed=3)}]
    assert not compare(whole, network(pieces, two=2, eps=1e-5, zero=0), data).culprits
    assert only(compare(whole, network(pieces, two=2, eps=0.5, zero=0), data)).node == "norm"


@pytest.mark.parametrize(
    ("eps", "act", "node"), [(1e-5, "Max(h, low)", "relu"), (0.5, "Max(h, zero)", "norm"), (1e-5, "Max(h, zero)", "")]
)
def test_a_gain_and_a_bias_part_what_is_written_otherwise_on_both_sides_of_them(eps, act, node):
    def network(middle: str, end: str, shape: tuple[int, ...]):
        text = f"""g (float[2,3,8,8] x) => (float[2,16,6,6] y) {{
            [stem] s = Conv<pads=[1,1,1,1]>(x, w) {middle} [gain] j = Mul(i, gain) [bias] h = Add(j, bias) {end}
            [last] y = Conv(k, v) }}"""
        values = {
            "w": normal(16, 3, 3, 3, seed=1) / 4, "v": normal(16, 16, 3, 3, seed=2) / 8,
            "gain": 1 + normal(16, seed=3).reshape(shape) / 4, "bias": normal(16, seed=4).reshape(shape),
            "eps": np.float32(eps), "two": np.float32(2), "zero": np.float32(0), "tenth": np.float32(0.1),
            "ones": np.ones(16, np.float32), "zeros": np.zeros(16, np.float32),
        }  # fmt: skip
        read = {name: value for name, value in values.items() if f" {name})" in text or f" {name}," in text}
        return parsed(text, **read)

    norm = "[norm] i = InstanceNormalization(s, ones, zeros)"
    pieces = """[mean] n0 = ReduceMean<axes=[2,3]>(s) [less] n1 = Sub(s, n0) [square] n2 = Pow(n1, two)
        [var] n3 = ReduceMean<axes=[2,3]>(n2) [more] n4 = Add(n3, eps) [root] n5 = Sqrt(n4) [over] i = Div(n1, n5)"""
    leak = "[leak] low = Mul(h, tenth) " if "low" in act else ""
    pair = network(norm, "[relu] k = Relu(h)", (16, 1, 1)), network(pieces, f"{leak}[act] k = {act}", (1, 16, 1, 1))
    report = compare(*pair, [{"x": normal(2, 3, 8, 8, seed=3)}])
    assert [c.node for c in report.culprits] == ([node] if node else [])


def test_what_reads_a_normalization_that_is_missing_is_fed_apart_from_what_reads_the_tensor_before_it():
    norm = """[square] q = Mul(s, s) [mean] m = ReduceMean<axes = [-1], keepdims = 1>(q) [eps] e = Add(m, tiny)
        [root] r = Sqrt(e) [norm] n = Div(s, r)"""
    text = """g (float[6,8] x) => (float[6,8] y) {{ [stem] a = MatMul(x, k) [add] s = Add(x, a) {norm}
        [gate] g = MatMul({n}, w) [act] t = Sigmoid(g) [silu] h = Mul(g, t) [up] u = MatMul({n}, v)
        [both] b = Mul(h, u) [down] d = MatMul(b, z) [out] y = Add(s, d) }}"""
    weights = {"k": normal(8, 8, seed=3), "w": normal(8, 16), "v": normal(8, 16, seed=1), "z": normal(16, 8, seed=4)}
    small = {"tiny": np.float32(1e-6)}
    reference, candidate = (
        parsed(text.format(norm=norm, n="n"), **weights, **small),
        parsed(text.format(norm="", n="s"), **weights),
    )
    culprit = only(compare(reference, candidate, DATA))
    assert (culprit.node, culprit.cause) == ("norm", "wrong-op")
    assert "missing in the candidate" in culprit.evidence
