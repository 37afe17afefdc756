"""Attention and positions."""

from __future__ import annotations

import numpy as np
import onnx

from ..decoder import LENGTH, WIDTH, Form, decoder
from ..expectation import Pair, fault, healthy
from ..writing import Drawn, File, beside, file, inputs, known, made, network, pair, set_attribute

LAYERS = 6
"""Of minilm."""


def _masked(lowest: float) -> Pair:
    net = known("minilm")
    changed = file(net.reference)
    changed.set_weight("lowest", np.array([lowest], np.float32))
    return beside(net, changed)


@healthy()
def mask_of_minus_10000() -> Pair:
    """The mask of an encoder adds -1e4 for the lowest number of FP32"""
    return _masked(-1e4)


@healthy()
def mask_of_minus_65504() -> Pair:
    """The mask of an encoder adds the lowest number of FP16"""
    return _masked(-65504)


@fault("bias_Mul", causes="weights scale")
def mask_of_minus_8() -> Pair:
    """The mask of an encoder adds -8, which lets hidden words through"""
    return _masked(-8)


@fault("l2_q_prescale", "l2_q*", causes="wrong-op scale")
def queries_scaled_twice() -> Pair:
    """Queries of one layer scaled, and their products once more"""
    net = known("minilm")
    changed = file(net.reference)
    changed.add("query_scale", np.array([1 / np.sqrt(32)], np.float32))
    turned = changed.node("l2_q_Transpose")
    changed.before(turned, made("Mul", turned.input[0], "query_scale", name="l2_q_prescale"))
    changed.node("l2_q_Transpose").input[0] = "l2_q_prescale"
    return beside(net, changed)


def scale_folded(changed: File) -> File:
    """The scale of the scores taken into weight and bias of the queries, in every layer of minilm."""
    scale = changed.value("scale")
    for layer in range(LAYERS):
        for kind in ("weight", "bias"):
            changed.scaled(f"encoder_layer_{layer}_attention_self_query_{kind}", 1 / scale.astype(np.float64))
        scaled = changed.node(f"l{layer}_scaled_Div")
        changed.node(f"l{layer}_biased_Add").input[0] = scaled.input[0]
        changed.remove(scaled)
    return changed


@healthy()
def scale_in_the_queries() -> Pair:
    """The scale of the scores in weight and bias of the queries"""
    net = known("minilm")
    return beside(net, scale_folded(file(net.reference)))


@fault("l2_up_product_MatMul", causes="weights")
def scale_in_the_queries_and_a_weight() -> Pair:
    """The same, and one column of another layer's weight 50 % too large"""
    net = known("minilm", 2)
    changed = scale_folded(file(net.reference))
    one_column(changed)
    return beside(net, changed)


def one_column(changed: File) -> None:
    """Column 5 of a weight of minilm 50 % too large."""
    name = "encoder_layer_2_intermediate_dense_weight"
    factor = np.ones(changed.value(name).shape[1], np.float32)
    factor[5] = 1.5
    changed.scaled(name, factor)


def _projections_joined(changed: File, exchanged: int = -1) -> File:
    """One product for queries, keys and values in every layer of minilm; keys and values exchanged in one."""
    changed.add("thirds", np.array([384] * 3))
    for layer in range(LAYERS):
        for kind, axis in (("weight", 1), ("bias", 0)):
            names = [f"encoder_layer_{layer}_attention_self_{part}_{kind}" for part in ("query", "key", "value")]
            changed.add(f"qkv{layer}_{kind}", np.concatenate([changed.value(name) for name in names], axis))
        split = made("Split", f"qkv{layer}_sum", "thirds", name=f"qkv{layer}_split", axis=2)
        split.output[:] = [f"l{layer}_{part}_sum" for part in ("qvk" if layer == exchanged else "qkv")]
        changed.before(
            changed.node(f"l{layer}_q_product_MatMul"),
            made("MatMul", f"h{layer}", f"qkv{layer}_weight", name=f"qkv{layer}_product"),
            made("Add", f"qkv{layer}_product", f"qkv{layer}_bias", name=f"qkv{layer}_sum"),
            split,
        )
        kinds = ("product_MatMul", "sum_Add")
        changed.remove(*(changed.node(f"l{layer}_{part}_{kind}") for part in "qkv" for kind in kinds))
    return changed


@healthy()
def projections_joined() -> Pair:
    """Queries, keys and values by one product and a Split"""
    net = known("minilm")
    return beside(net, _projections_joined(file(net.reference)))


@fault("qkv2_*", "l2_k_*", "l2_v_*", causes="wrong-op layout weights attribute")
def projections_joined_keys_and_values_exchanged() -> Pair:
    """The same, with keys and values exchanged in one layer"""
    net = known("minilm")
    return beside(net, _projections_joined(file(net.reference), 2))


@fault("l2_up_product_MatMul", causes="weights")
def projections_joined_and_a_weight() -> Pair:
    """One product for queries, keys and values, and one column of another layer's weight 50 % too large"""
    net = known("minilm", 2)
    changed = _projections_joined(file(net.reference))
    one_column(changed)
    return beside(net, changed)


@fault("l3_v_split_Reshape", "l3_v_Transpose", causes="attribute layout weights")
def heads_in_another_order() -> Pair:
    """Values of one layer split into heads along the wrong axis"""
    net = known("minilm")
    changed = file(net.reference)
    changed.add("split_the_other_way", np.array([0, 0, 32, 12]))
    changed.node("l3_v_split_Reshape").input[1] = "split_the_other_way"
    set_attribute(changed.node("l3_v_Transpose"), "perm", [0, 3, 1, 2])
    return beside(net, changed)


@fault("typed_Add", "types*", causes="wrong-op")
def no_types() -> Pair:
    """The embedding of the kind of text is not added"""
    net = known("minilm")
    changed = file(net.reference)
    changed.node("summed_Add").input[0] = "words"
    changed.remove(changed.node("typed_Add"), changed.node("types_Gather"))
    return beside(net, changed)


@fault("ids*", "positions*", causes="weights attribute")
def positions_from_two() -> Pair:
    """Positions begin at two, as another family of encoders has it"""
    net = known("minilm")
    changed = file(net.reference)
    positions = changed.value("embeddings_position_ids")
    changed.set_weight("embeddings_position_ids", np.minimum(positions + 2, 511))
    return beside(net, changed)


ATTENTION_SHAPE = (2, 10, 32)


def _attention(*, operator: bool) -> onnx.ModelProto:
    """Attention of four heads, as an operator or in pieces."""
    drawn = Drawn()
    weights = {f"w{name}": drawn.weight(32, 32) for name in "qkvo"}
    constants = {"apart": np.array([2, 10, 4, 8]), "whole": np.array(ATTENTION_SHAPE), "by": np.float32(8**-0.5)}
    pieces = """
      q4 = Reshape(q, apart)  qh = Transpose<perm = [0, 2, 1, 3]>(q4)
      k4 = Reshape(k, apart)  kh = Transpose<perm = [0, 2, 3, 1]>(k4)
      v4 = Reshape(v, apart)  vh = Transpose<perm = [0, 2, 1, 3]>(v4)
      products = MatMul(qh, kh)
      scores = Mul(products, by)
      weights = Softmax<axis = -1>(scores)
      context = MatMul(weights, vh)
      rows = Transpose<perm = [0, 2, 1, 3]>(context)
      attended = Reshape(rows, whole)"""
    one = "attended = Attention<q_num_heads = 4, kv_num_heads = 4>(q, k, v)"
    text = f"""attention (float[2,10,32] x) => (o) {{
      q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
      {one if operator else pieces}
      o = MatMul(attended, wo)
    }}"""
    return network(text, 23, **weights, **({} if operator else constants))


@healthy()
def attention_as_an_operator() -> Pair:
    """Attention as one operator"""
    return pair(_attention(operator=False), _attention(operator=True), inputs(*ATTENTION_SHAPE))


@fault("context", "attended", "scores", causes="wrong-op scale")
def attention_as_an_operator_with_another_scale() -> Pair:
    """Attention as one operator, with the scale 0.25 for 0.354"""
    changed = file(_attention(operator=True))
    set_attribute(changed.node("attended"), "scale", 0.25)
    return pair(_attention(operator=False), changed, inputs(*ATTENTION_SHAPE))


@fault("attended", causes="attribute")
def attention_that_looks_back_only() -> Pair:
    """Attention as one operator, with a causal mask"""
    changed = file(_attention(operator=True))
    set_attribute(changed.node("attended"), "is_causal", 1)
    return pair(_attention(operator=True), changed, inputs(*ATTENTION_SHAPE))


def _decoders(mistake: str = "", **form: float) -> Pair:
    whole = Form(**form)  # type: ignore[arg-type]
    wrong = Form(**form, mistake=mistake)  # type: ignore[arg-type]
    return pair(decoder(whole), decoder(wrong), inputs(1, LENGTH, WIDTH))


@healthy()
def mask_of_infinity() -> Pair:
    """The causal mask of a decoder adds minus infinity for -1e9"""
    return pair(decoder(), decoder(Form(hidden=-np.inf)), inputs(1, LENGTH, WIDTH))


@fault("l1_masked", causes="weights")
def mask_off_by_one() -> Pair:
    """A causal mask that lets the next word through"""
    return _decoders("mask_off_by_one")


@fault("l1_q_*", "l1_k_*", causes="wrong-op layout weights attribute")
def rotary_pairs_for_halves() -> Pair:
    """Rotary positions turn neighbours for halves of a head"""
    return _decoders("interleaved")


@fault("l1_k_cos", "l1_k_sin", causes="weights", also=("l1_k_rotated",))
def rotary_keys_shifted() -> Pair:
    """Rotary positions of the keys off by one"""
    return _decoders("shifted_keys")


@fault("l1_q_sin", "l1_k_sin", causes="weights", every=True)
def rotary_sine_sign() -> Pair:
    """The sine of rotary positions with the other sign, of queries and of keys"""
    return _decoders("sine_sign")


@fault("l1_q_*", "l1_k_*", causes="wrong-op")
def no_rotary_positions() -> Pair:
    """One layer without rotary positions"""
    return _decoders("no_positions")


@fault("l1_k_*", "l1_v_*", causes="wrong-op layout attribute weights")
def groups_tiled() -> Pair:
    """Heads of keys and values in the order 0 1 0 1 for 0 0 1 1"""
    return _decoders("tiled_groups", groups=2)


@fault("l1_cap*", causes="wrong-op")
def no_softcap() -> Pair:
    """One layer without the soft bound of its scores"""
    return _decoders("no_softcap", softcap=2.0)


@fault("l1_cap*", causes="wrong-op")
def no_wide_softcap() -> Pair:
    """One layer without the soft bound of its scores, 50, which they hardly reach"""
    return _decoders("no_softcap", softcap=50.0)
