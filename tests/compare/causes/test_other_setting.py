"""The setting of a fused attention that is wrong beside plain operators is found by trying, and so is its mask."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from support.layerwise import compare, only
from support.models import normal, parsed

B, T, H, D = 2, 9, 4, 6
HIDDEN = H * D
X = f"float[{B}, {T}, {HIDDEN}]"
PLAIN = f"""g ({X} x, float[{B}, 1, {T}, {T}] mask) => ({X} y) {{
    q0 = MatMul(x, wq) q1 = Add(q0, bq) q2 = Reshape(q1, heads) q = Transpose<perm=[0, 2, 1, 3]>(q2)
    k0 = MatMul(x, wk) k1 = Add(k0, bk) k2 = Reshape(k1, heads) k = Transpose<perm=[0, 2, 3, 1]>(k2)
    v0 = MatMul(x, wv) v1 = Add(v0, bv) v2 = Reshape(v1, heads) v = Transpose<perm=[0, 2, 1, 3]>(v2)
    s = MatMul(q, k) z = Mul(s, root) m = Add(z, mask) p = Softmax(m) a = MatMul(p, v)
    a2 = Transpose<perm=[0, 2, 1, 3]>(a) a3 = Reshape(a2, merged) [out] y = MatMul(a3, wo)
}}"""
FUSED = f"""g ({X} x, float[{B}, 1, {T}, {T}] mask) => ({X} y) {{
    [attend] a = com.microsoft.Attention<%s>(x, w, b, , , wide) [out] y = MatMul(a, wo)
}}"""
WIDE = "wide = Expand(mask, wide_shape) [attend]"
STANDARD = f"""g ({X} x, float[{B}, 1, {T}, {T}] mask) => ({X} y) {{
    q0 = MatMul(x, wq) q1 = Add(q0, bq) k0 = MatMul(x, wk) k1 = Add(k0, bk) v0 = MatMul(x, wv) v1 = Add(v0, bv)
    [attend] a = Attention<%s>(q1, k1, v1, mask) [out] y = MatMul(a, wo)
}}"""
PARTS = {f"w{n}": normal(HIDDEN, HIDDEN, seed=i) / 3 for i, n in enumerate("qkv")}
BIASES = {f"b{n}": normal(HIDDEN, seed=10 + i) for i, n in enumerate("qkv")}
OUT = normal(HIDDEN, HIDDEN, seed=20) / 5
MASK = np.where(np.arange(T) < 7, 0, -1e4).astype(np.float32)
DATA = [{"x": normal(B, T, HIDDEN, seed=3), "mask": np.broadcast_to(MASK, (B, 1, T, T)).copy()}]


def plain(root: float = D**-0.5):
    shapes = {"heads": np.array([B, T, H, D]), "merged": np.array([B, T, HIDDEN])}
    return parsed(PLAIN, **PARTS, **BIASES, **shapes, wo=OUT, root=np.float32(root))


def packed(values, order="qkv", by_heads=False):
    parts = np.concatenate([values[name] for name in sorted(values, key=lambda name: order.index(name[1]))], axis=-1)
    if by_heads:
        parts = parts.reshape(*parts.shape[:-1], 3, H, D).swapaxes(-2, -3).reshape(parts.shape)
    return parts.copy()


def fused(attributes="num_heads=4", weights=None, bias=None, mask=True):
    text = FUSED.replace("[attend]", WIDE if mask else "[attend]").replace(", , , wide", ", , , wide" if mask else "")
    constants = {"wide_shape": np.array([B, H, T, T])} if mask else {}
    weights, bias = packed(PARTS) if weights is None else weights, packed(BIASES) if bias is None else bias
    return parsed(text % attributes, domains=["com.microsoft"], w=weights, b=bias, wo=OUT, **constants)


def standard(attributes):
    return parsed(STANDARD % attributes, opset=23, **PARTS, **BIASES, wo=OUT)


RIGHT = "q_num_heads=4, kv_num_heads=4"


@pytest.mark.parametrize("candidate", [fused(), standard(RIGHT)], ids=["ONNX Runtime's", "ONNX's"])
def test_what_is_right_is_right(candidate):
    report = compare(plain(), candidate, DATA)
    assert report.verdict == "pass"
    assert not report.culprits


@pytest.mark.parametrize(
    ("candidate", "told"),
    [
        (fused("num_heads=4, unidirectional=1"), "unidirectional of Attention attend is 1: with 0 it makes"),
        (fused("num_heads=4, scale=0.25"), "scale of Attention attend is 0.25: with 0.4082483 it makes"),
        (standard(f"{RIGHT}, is_causal=1"), "is_causal of Attention attend is 1: with 0 it makes"),
        (standard(f"{RIGHT}, scale=0.3"), "scale of Attention attend is 0.3: with 0.4082483 it makes"),
        (standard(f"{RIGHT}, softcap=2.0"), "softcap of Attention attend is 2: with none it makes"),
    ],
)
def test_a_setting_that_is_wrong_is_told_with_the_right_one(candidate, told):
    culprit = only(compare(plain(), candidate, DATA))
    assert culprit.cause == ("scale" if told.startswith("scale") else "attribute")
    assert told in culprit.evidence


@pytest.mark.parametrize(
    ("reference", "told", "remedy"),
    [
        (
            fused("num_heads=4, unidirectional=1"),
            "unidirectional of Attention attend is 1 in the first file: with 0 it would make what the second file does",
            "compute with unidirectional 1 in the second file, as Attention attend of the first does",
        ),
        (
            standard(f"{RIGHT}, softcap=2.0"),
            "softcap of Attention attend is 2 in the first file: with none it would make what the second file does",
            "compute with softcap 2 in the second file, as Attention attend of the first does",
        ),
        (
            fused("num_heads=4, scale=0.25"),
            "the constant of Mul Mul_13 is 0.4082483: with 0.25 it makes what the first file does",
            "set the constant of Mul Mul_13 to 0.25",
        ),
    ],
)
def test_a_setting_of_the_first_file_that_the_second_does_not_compute_with_is_told(reference, told, remedy):
    culprit = only(compare(reference, plain(), DATA))
    assert told in culprit.evidence
    assert culprit.remedies[0].text == remedy


def apart(query: str, key: str, value: str):
    """An attention that does not project what it reads."""
    text = f"""g ({X} x) => ({X} y) {{ [mq] q = MatMul(x, wq) [mk] k = MatMul(x, wk) [mv] v = MatMul(x, wv)
        [attend] a = com.microsoft.MultiHeadAttention<num_heads={H}>({query}, {key}, {value}, b)
        [out] y = MatMul(a, wo) }}"""
    return parsed(text, domains=["com.microsoft"], **PARTS, b=packed(BIASES), wo=OUT)


def test_inputs_that_stand_for_each_other_are_told_on_either_side():
    unmasked = plain()
    del unmasked.graph.input[1]
    unmasked.graph.initializer.append(numpy_helper.from_array(np.zeros((B, 1, T, T), np.float32), "mask"))
    data = [{"x": DATA[0]["x"]}]
    assert compare(unmasked, apart("q", "k", "v"), data).verdict == "pass"
    culprit = only(compare(unmasked, apart("q", "v", "k"), data))
    assert culprit.evidence.startswith("MultiHeadAttention attend reads 'v' as key and 'k' as value: with these two")
    assert culprit.remedies[0].text == "let MultiHeadAttention attend read 'k' as key and 'v' as value"
    culprit = only(compare(apart("q", "v", "k"), unmasked, data))
    assert "with these two exchanged it would make what the second file does" in culprit.evidence


def test_a_value_that_masks_is_told():
    text = f"""g ({X} x, int32[{B}, {T}] kept) => ({X} y) {{
        [attend] a = com.microsoft.Attention<num_heads={H}, mask_filter_value=%s>(x, w, b, kept) [out] y = MatMul(a, wo)
    }}"""
    plainly = PLAIN.replace(f"float[{B}, 1, {T}, {T}] mask", f"int32[{B}, {T}] kept").replace(
        "s = MatMul",
        "r = Cast<to=1>(kept) o = Sub(unit, r) far = Mul(o, least) mask = Unsqueeze(far, between) s = MatMul",
    )
    shapes = {"heads": np.array([B, T, H, D]), "merged": np.array([B, T, HIDDEN]), "between": np.array([1, 2])}
    numbers = {"root": np.float32(D**-0.5), "unit": np.float32(1), "least": np.float32(-1e4)}
    first = parsed(plainly, **PARTS, **BIASES, **shapes, **numbers, wo=OUT)
    kept = np.broadcast_to(np.arange(T) < 7, (B, T)).astype(np.int32)
    seconds = [
        parsed(text % v, domains=["com.microsoft"], w=packed(PARTS), b=packed(BIASES), wo=OUT) for v in ("-1e4", "-1.0")
    ]
    data = [{"x": DATA[0]["x"], "kept": kept}]
    assert compare(first, seconds[0], data).verdict == "pass"
    culprit = only(compare(first, seconds[1], data))
    assert culprit.remedies[0].text == "set mask_filter_value of Attention attend to -10000"


def test_a_mask_that_the_second_file_alone_reads_is_told():
    culprit = only(compare(fused(mask=False), plain(), DATA))
    assert "Add Add_14 takes 'mask' into account, which the first file does not read there" in culprit.evidence
    assert culprit.remedies[0].text == "take 'mask' out of what Add Add_14 computes in the second file"


def test_a_number_of_heads_that_is_wrong_is_told():
    masked = {"x": DATA[0]["x"], "mask": np.zeros_like(DATA[0]["mask"])}
    culprit = only(compare(plain(), fused("num_heads=8", mask=False), [masked]))
    assert "num_heads of Attention attend is 8: with 4 it makes" in culprit.evidence
    assert culprit.remedies[0].text == "set num_heads of Attention attend to 4"


def test_a_scale_that_is_not_given_is_told():
    """The reference scales by one over the number of channels, the other by one over its root."""
    culprit = only(compare(plain(root=1 / D), fused(), DATA))
    assert "scale of Attention attend is none: with 0.1666667 it makes" in culprit.evidence


@pytest.mark.parametrize(
    ("candidate", "told"),
    [
        (
            fused(bias=packed(BIASES, "vkq")),
            "bias of Attention attend is packed in another order: with its parts in the order 3, 2, 1 it makes",
        ),
        (
            fused(weights=packed(PARTS, "kqv"), bias=packed(BIASES, "kqv")),
            "weights and bias of Attention attend are packed in another order: with their parts in the order 2, 1, 3",
        ),
        (
            fused(weights=packed(PARTS, by_heads=True), bias=packed(BIASES, by_heads=True)),
            "weights and bias of Attention attend are packed in another order: with each projection as a whole",
        ),
    ],
)
def test_weights_that_are_packed_in_another_order_are_told(candidate, told):
    culprit = only(compare(plain(), candidate, DATA))
    assert culprit.cause == "weights"
    assert told in culprit.evidence


def test_a_mask_that_is_not_handed_on_is_told():
    culprit = only(compare(plain(), fused(mask=False), DATA))
    assert culprit.cause == "wrong-op"
    assert "Attention attend is not given 'mask': it makes what the first file would if that were 0" in culprit.evidence
    assert culprit.remedies[0].text == "let Attention attend read what is 'mask' in the first file"


NORMED = "g (float[3, 16, 12] x) => (float[3, 16, 12] y) {{ {} }}"
INSTANCE = NORMED.format("[norm] n = InstanceNormalization(x, gain, offset) y = Relu(n)")
PIECES = NORMED.format("""
m = ReduceMean<axes=[2]>(x) c = Sub(x, m) s = Mul(c, c) t = ReduceSum(s, last) [count] v = Div(t, number)
e = Add(v, small) r = Sqrt(e) d = Div(c, r) g = Mul(d, gain) n = Add(g, offset) y = Relu(n)
""")
AFFINE = {"gain": 1 + normal(16) / 9, "offset": normal(16)}


@pytest.mark.parametrize(
    ("number", "small", "told"),
    [
        (11, 1e-5, "the constant of Div count is 11: with 12 it makes what the first file does"),
        (12, 1e-2, "epsilon 1e-05 against 0.01"),
        (12, 1e-5, ""),
    ],
)
def test_a_number_inside_a_normalization_in_pieces_is_told(number, small, told):
    numbers = {"number": np.float32(number), "small": np.float32(small), "last": np.array([2])}
    by_channel = {name: value[:, None] for name, value in AFFINE.items()}
    report = compare(parsed(INSTANCE, **AFFINE), parsed(PIECES, **numbers, **by_channel), [{"x": normal(3, 16, 12)}])
    assert report.verdict == ("fail" if told else "pass")
    assert [told in culprit.evidence for culprit in report.culprits] == [True] * bool(told)


def test_two_settings_that_are_wrong_are_other_operators():
    culprit = only(compare(plain(), fused("num_heads=4, unidirectional=1, scale=0.25"), DATA))
    assert culprit.cause == "wrong-op"
    assert "it makes what the first file does" not in culprit.evidence


@pytest.mark.parametrize(
    ("candidate", "told"), [("Elu", "Relu against Elu"), ("LeakyRelu<alpha = 0.3>", "Relu against LeakyRelu")]
)
def test_another_activation_is_told_as_that_though_a_setting_of_it_would_make_the_same(candidate, told):
    text = "g (float[4, 8] x) => (float[4, 8] y) { h = MatMul(x, w) [act] a = ACT(h) y = MatMul(a, w) }"
    files = [parsed(text.replace("ACT", act), w=normal(8, 8)) for act in ("Relu", candidate)]
    culprit = only(compare(*files, [{"x": normal(4, 8, seed=1)}]))
    assert (culprit.node, culprit.cause, culprit.evidence) == ("act", "wrong-op", told)
