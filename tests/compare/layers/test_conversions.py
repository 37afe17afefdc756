"""What converters do to a file, right and wrong: nodes inserted, outputs exchanged, other sizes, rounded constants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.graph.pairing.weight_changes import weight_change
from onnx import helper, numpy_helper

from support import networks
from support.edits import edited

FLOAT = networks.FLOAT
Edit = Callable[[onnx.GraphProto], None]


def compare(model: onnx.ModelProto, candidate: onnx.ModelProto, shape: tuple[int, ...], **options):
    data = [{"x": np.random.default_rng(i).standard_normal(shape).astype(np.float32)} for i in range(2)]
    runner = OnnxrtRunner(threads=1)
    return Comparator(
        model, [runner], candidate_model=candidate, data_loader=data, layers="guilty", **options
    ).compare()


def culprits(report) -> list[tuple[str, str]]:
    return [(c.node, c.cause) for c in report.culprits]


def after(tensor: str, *ops: tuple[str, dict]) -> Edit:
    """Inserts operators behind a tensor; whoever read it reads their result, which has its name."""

    def edit(graph: onnx.GraphProto) -> None:
        at, maker = next((i, n) for i, n in enumerate(graph.node) if tensor in n.output)
        names = [f"{tensor}/{i}" for i in range(len(ops))] + [tensor]
        maker.output[list(maker.output).index(tensor)] = names[0]
        for i, (op, attributes) in enumerate(ops):
            node = helper.make_node(op, [names[i]], [names[i + 1]], f"{tensor}.{op}{i}", **attributes)
            graph.node.insert(at + 1 + i, node)

    return edit


def weights(change: Callable[[str, np.ndarray], np.ndarray]) -> Edit:
    def edit(graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(change(tensor.name, value).astype(value.dtype), tensor.name))

    return edit


def chain(*, fixed: bool = True) -> onnx.ModelProto:
    """Three convolutions with a sum around the second and a pooling after it."""
    w = networks.Writer(3)
    first = w.node("Relu", [w.conv("x", "first", (3, 8))], "r")
    second = w.conv(first, "second", (8, 8))
    pooled = w.node("MaxPool", [w.node("Add", [second, first], "sum")], "pool", kernel_shape=[3, 3], strides=[2, 2])
    w.node("GlobalAveragePool", [w.node("Relu", [w.conv(pooled, "third", (8, 16))], "last")], "y")
    size = 12 if fixed else "n"
    return w.model({"x": (FLOAT, ["b", 3, size, size])}, ["y"])


@pytest.mark.parametrize("tensor", ["r", "sum", "pool"])
def test_who_makes_what_an_inserted_node_spoils_is_named_with_that_node(tensor: str) -> None:
    to_integer = after(tensor, ("Cast", {"to": networks.INT64}), ("Cast", {"to": FLOAT}))
    report = compare(chain(), edited(chain(), to_integer), (1, 3, 12, 12))
    maker = next(n.name for n in chain().graph.node if tensor in n.output)
    assert culprits(report) == [(maker, "wrong-op")]
    assert f"Cast {tensor}.Cast0 and Cast {tensor}.Cast1 are in the candidate alone" in report.culprits[0].evidence


def test_where_outputs_are_exchanged_their_node_is_named_and_no_reader() -> None:
    w = networks.Writer(5)
    w.nodes.append(helper.make_node("Split", [w.linear("x", "first", (16, 16))], ["a", "b"], "halves", axis=-1))
    a, b = w.node("Tanh", [w.linear("a", "left", (8, 8))], "t"), w.linear("b", "right", (8, 8))
    w.linear(w.node("Mul", [a, b], "m"), "y", (8, 4))
    model = w.model({"x": (FLOAT, [8, 16])}, ["y"])

    def exchange(graph: onnx.GraphProto) -> None:
        split = next(n for n in graph.node if n.op_type == "Split")
        split.output[0], split.output[1] = split.output[1], split.output[0]

    report = compare(model, edited(model, exchange), (8, 16))
    assert [c.node for c in report.culprits] == ["halves"]


def test_an_attribute_that_changes_sizes_is_found_though_all_sizes_behind_it_differ() -> None:
    def ceil(graph: onnx.GraphProto) -> None:
        pool = next(n for n in graph.node if n.op_type == "MaxPool")
        pool.attribute.append(helper.make_attribute("ceil_mode", 1))

    report = compare(chain(), edited(chain(), ceil), (1, 3, 12, 12))
    assert culprits(report) == [("n_pool", "attribute")]
    assert "ceil_mode 0 against 1" in report.culprits[0].evidence


@pytest.mark.parametrize("fixed", [True, False])
def test_a_sum_in_another_layout_between_transposes_is_no_fault(fixed: bool) -> None:
    """As where a converter moves transposes about: what is in between has other shapes, and they may not be known."""

    def islands(graph: onnx.GraphProto) -> None:
        at, add = next((i, n) for i, n in enumerate(graph.node) if n.op_type == "Add")
        names = list(add.input)
        add.input[:] = [f"{n}/last" for n in names]
        output = add.output[0]
        add.output[0] = f"{output}/last"
        back = helper.make_node("Transpose", [add.output[0]], [output], "back", perm=[0, 3, 1, 2])
        graph.node.insert(at + 1, back)
        for name in names:
            there = helper.make_node("Transpose", [name], [f"{name}/last"], f"{name}.to", perm=[0, 2, 3, 1])
            graph.node.insert(at, there)

    model = chain(fixed=fixed)
    assert culprits(compare(model, edited(model, islands), (1, 3, 12, 12))) == []
    off = edited(model, islands, weights(lambda name, v: v * 1.01 if name == "third.w" else v))
    assert culprits(compare(model, off, (1, 3, 12, 12)))[0][0] == "n_third"


def test_two_slices_and_one_split_are_the_same() -> None:
    def build(split: bool) -> onnx.ModelProto:
        w = networks.Writer(7)
        w.linear("x", "h", (16, 16))
        if split:
            w.nodes.append(helper.make_node("Split", ["h"], ["low", "high"], "split", axis=-1))
        else:
            ends = {n: w.value(n, [v], np.int64) for n, v in (("zero", 0), ("half", 8), ("end", 16), ("axis", 1))}
            w.node("Slice", ["h", ends["zero"], ends["half"], ends["axis"]], "low")
            w.node("Slice", ["h", ends["half"], ends["end"], ends["axis"]], "high")
        w.node("Concat", ["low", w.node("Relu", [w.linear("high", "f", (8, 8))], "g")], "c", axis=1)
        w.linear("c", "y", (16, 4))
        return w.model({"x": (FLOAT, [8, 16])}, ["y"])

    assert culprits(compare(build(False), build(True), (8, 16))) == []


def test_names_that_belong_to_other_tensors_over_several_layers_accuse_nobody() -> None:
    """Exporters number tensors by operator: with one more or one less of them, all names move on."""
    w = networks.Writer(11)
    for i in range(4):
        w.node("Tanh", [w.linear("x" if i == 0 else f"t{i - 1}", f"p{i}", (8, 8))], f"t{i}")
    w.linear("t3", "y", (8, 4))
    model = w.model({"x": (FLOAT, [16, 8])}, ["y"])

    def twice(graph: onnx.GraphProto) -> None:
        """The names of the second and the third layer change places, and the second is computed in two steps."""
        table = {"p1": "p2", "p2": "p1", "t1": "t2", "t2": "t1"}
        for node in graph.node:
            node.input[:] = [table.get(i, i) for i in node.input]
            node.output[:] = [table.get(o, o) for o in node.output]
            node.name = ""
        after("p2", ("Neg", {}), ("Neg", {}))(graph)

    report = compare(model, edited(model, twice), (16, 8))
    assert culprits(report) == []
    assert report.verdict == "pass"


# ---- constants that two programs computed ---------------------------------------------------------------------------


def one_unit(name: str, value: np.ndarray) -> np.ndarray:
    """Every weight to the next number or the one before."""
    if value.dtype != np.float32:
        return value
    ends = np.where(np.random.default_rng(len(name)).random(value.shape) < 0.5, -np.inf, np.inf)
    return np.nextafter(value, ends.astype(np.float32))


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_folded_constants_that_are_rounded_otherwise_are_no_fault(scale: float) -> None:
    """Sigmoid far below zero is a handful of steps in ONNX Runtime; what was rounded otherwise is on another one."""
    w = networks.Writer(13)
    h = w.conv("x", "wide", (3, 32), kernel=1)
    h = w.node("Mul", [h, w.node("Sigmoid", [h], "gate")], "swish")
    w.nodes.append(helper.make_node("Conv", [h, w.weight("deep.w", 32, 1, 5, 5)], ["deep"], "n_deep", group=32))
    w.conv(w.node("Relu", ["deep"], "relu"), "y", (32, 8), kernel=1)
    model = w.model({"x": (FLOAT, [1, 3, 24, 24])}, ["y"])
    model = edited(model, weights(lambda name, v: v * scale * 4 if name.startswith("wide") else v))
    assert culprits(compare(model, edited(model, weights(one_unit)), (1, 3, 24, 24))) == []


WEIGHT = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)


@pytest.mark.parametrize(
    ("x", "factor", "same"),
    [
        (WEIGHT, 1 + 2.0**-22, True),
        (WEIGHT, 1 + 2.0**-16, False),
        (WEIGHT.astype(np.float64), 1 + 2.0**-22, False),
    ],
)
def test_weights_differ_where_more_than_a_few_roundings_of_fp32_lie_between(x, factor, same) -> None:
    assert (weight_change(x, (x * factor).astype(x.dtype)) is None) == same


def test_a_bias_may_err_by_what_it_was_added_up_from() -> None:
    x = np.array([1.0, 1e-4, -3.0], np.float32)
    assert weight_change(x, x + np.float32(1e-7)) is None
    assert weight_change(x, x + np.float32(1e-5)) is not None


def test_scales_over_several_axes_are_no_channels() -> None:
    """As many values as channels, but not one for each."""
    w = networks.Writer(17)
    h = w.node("Mul", [w.linear("x", "p", (8, 8)), w.value("k", np.full((8,), 2.0, np.float32))], "m")
    w.node("Mul", [h, w.value("grid", np.ones((4, 2), np.float32).reshape(1, 4, 2, 1))], "y")
    model = w.model({"x": (FLOAT, [1, 4, 2, 8])}, ["y"])
    both = after("m", ("Neg", {}), ("Neg", {}))
    assert culprits(compare(model, edited(model, both), (1, 4, 2, 8))) == []


# ---- a quantized file against the one it was made from --------------------------------------------------------------


def quantized(model: onnx.ModelProto, factor: float = 1.0) -> onnx.ModelProto:
    """Every convolution's operands through Q/DQ, as ONNX Runtime's quantizer does it: 8 bits with a range from the
    data, and a Relu left out where the range of what it makes begins at zero. One scale is wrong by ``factor``."""
    x = np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)
    values = {"x": x, **networks.run_all(model, {"x": x})}
    copy = edited(model)
    graph = copy.graph
    pairs: list[onnx.NodeProto] = []

    def pair(name: str, array: np.ndarray, wrong: float) -> str:
        low, high = min(0.0, float(array.min())), max(0.0, float(array.max()))
        step = (high - low) / 255 * wrong
        zero = np.uint8(round(-low / step))
        for suffix, value in (("step", np.float32(step)), ("zero", zero)):
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{name}/{suffix}"))
        inputs = [f"{name}/step", f"{name}/zero"]
        pairs.append(helper.make_node("QuantizeLinear", [name, *inputs], [f"{name}/q"], f"{name}.q"))
        pairs.append(helper.make_node("DequantizeLinear", [f"{name}/q", *inputs], [f"{name}/dq"], f"{name}.dq"))
        return f"{name}/dq"

    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    made: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            for slot in (0, 1):
                name = node.input[slot]
                wrong = factor if name == "r" else 1.0
                made[name] = made.get(name) or pair(name, values.get(name, stored.get(name)), wrong)
                node.input[slot] = made[name]
    relu = next(n for n in graph.node if n.output[0] == "r")
    conv = next(n for n in graph.node if n.output[0] == relu.input[0])
    conv.output[0] = "r"
    ordered, done = [], {"x", *(t.name for t in graph.initializer)}
    waiting = [n for n in [*graph.node, *pairs] if n != relu]
    while waiting:
        node = next(n for n in waiting if done.issuperset(n.input))
        for reader in (r for r in waiting if r.op_type == "Add"):
            reader.input[:] = ["r/dq" if i == "r" else i for i in reader.input]
        waiting.remove(node)
        ordered.append(onnx.NodeProto.FromString(node.SerializeToString()))
        done.update(node.output)
    del graph.node[:]
    graph.node.extend(ordered)
    return copy


def test_a_quantized_file_has_no_culprit_against_the_one_it_was_made_from() -> None:
    report = compare(chain(), quantized(chain()), (1, 3, 12, 12))
    assert culprits(report) == []
    assert {layer.verdict for layer in report.layers} <= {"ok", "inherited"}


@pytest.mark.parametrize("factor", [0.25, 0.6])
def test_a_range_that_is_too_small_is_found_in_a_quantized_file(factor: float) -> None:
    """Also where it cuts off a few values, and their errors drown in the steps of all others."""
    report = compare(chain(), quantized(chain(), factor), (1, 3, 12, 12))
    assert culprits(report)[0] == ("n_r", "saturation")


def test_a_wrong_weight_is_found_in_a_quantized_file() -> None:
    wrong = edited(chain(), weights(lambda name, v: v * 1.2 if name == "third.w" else v))
    report = compare(chain(), quantized(wrong), (1, 3, 12, 12))
    assert [c.node for c in report.culprits] == ["n_third"]


def in_floats(node: str) -> Edit:
    """One layer of a quantized file in floating point again."""

    def edit(graph: onnx.GraphProto) -> None:
        layer = next(n for n in graph.node if n.name == node)
        layer.input[:] = [name.removesuffix("/dq") for name in layer.input]

    return edit


@pytest.mark.parametrize("swapped", [False, True])
def test_files_that_quantize_other_layers_are_undecided_and_accuse_nobody(swapped: bool) -> None:
    pair = [quantized(chain()), edited(quantized(chain()), in_floats("n_third"))]
    report = compare(*(pair[::-1] if swapped else pair), (1, 3, 12, 12))
    assert report.verdict == "undecided"
    assert culprits(report) == []
    assert len({layer.node for layer in report.layers}) > 3
    turned = [n.code for n in report.notices].count("layers-turned-round")
    assert turned == (0 if swapped else 1)


def test_a_quantized_file_is_compared_with_the_one_in_floating_point_that_is_named_second() -> None:
    report = compare(quantized(chain()), chain(), (1, 3, 12, 12))
    assert (report.verdict, culprits(report)) == ("undecided", [])
    assert any("computes in floating point: its layers are held against those of" in w for w in report.warnings)


def test_a_quantizer_before_a_cast_is_no_fault() -> None:
    w = networks.Writer(5)
    x = w.node("Cast", [w.node("Slice", ["x", *(w.value(n, [v], np.int64) for n, v in
                                               (("at", 0), ("to", 2), ("axis", 1)))], "s")], "c", to=FLOAT)  # fmt: skip
    w.node("Mul", [x, x], "y")
    model = w.model({"x": (FLOAT, [4, 3, 64])}, ["y"])

    def edit(graph: onnx.GraphProto) -> None:
        for name, value in (("k", np.float32(0.05)), ("z", np.int8(0))):
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        graph.node.insert(1, helper.make_node("QuantizeLinear", ["s", "k", "z"], ["s/q"], "s.q"))
        graph.node.insert(2, helper.make_node("DequantizeLinear", ["s/q", "k", "z"], ["s/dq"], "s.dq"))
        graph.node[3].input[0] = "s/dq"

    assert culprits(compare(model, edited(model, edit), (4, 3, 64), rtol=0.9, atol=10.0)) == []


def test_weights_beyond_fp16_are_an_overflow_of_that_layer() -> None:
    """Variances of a BatchNormalization, which a converter cuts off at FP16's greatest number."""
    w = networks.Writer(7)
    rng = np.random.default_rng(1)
    parts = {"scale": rng.uniform(1, 2, 8), "shift": rng.normal(size=8), "mean": rng.normal(size=8),
             "var": 1e8 * rng.uniform(1, 2, 8)}  # fmt: skip
    big = w.node("Mul", ["x", w.value("factor", 1e4)], "big")
    w.node("BatchNormalization", [big, *(w.value(n, v, np.float32) for n, v in parts.items())], "y")
    model = w.model({"x": (FLOAT, [2, 8, 16])}, ["y"])
    cut = edited(model, weights(lambda name, v: np.clip(v, -65504, 65504).astype(np.float16) if name == "var" else v))
    report = compare(model, cut, (2, 8, 16))
    assert culprits(report) == [("n_y", "overflow")]
    assert "8 of 8 weights beyond the greatest number of FP16, 65504" in report.culprits[0].evidence


def test_a_mask_beyond_fp16_that_changes_no_output_is_no_culprit() -> None:
    w = networks.Writer(9)
    mask = np.where(np.arange(16) < 12, 0, -3.4e38).astype(np.float32)
    w.node("Softmax", [w.node("Add", ["x", w.value("mask", mask, np.float32)], "masked")], "y")
    model = w.model({"x": (FLOAT, [4, 16])}, ["y"])
    cut = edited(model, weights(lambda name, v: np.clip(v, -65504, 65504).astype(np.float16)))
    report = compare(model, cut, (4, 16))
    assert (report.verdict, culprits(report)) == ("pass", [])


# ---- rounding that looks like more ----------------------------------------------------------------------------------


def in_fp16(model: onnx.ModelProto, data: list[dict[str, np.ndarray]]):
    runners = [OnnxrtRunner(threads=1), EmulateRunner(format="fp16", threads=1)]
    report = Comparator(model, runners, data_loader=data, layers="guilty", rtol=0.9, atol=10.0).compare()
    return [c for c in report.culprits if c.cause != "spread"]


def test_a_choice_between_values_that_fp16_cannot_tell_apart_is_no_fault() -> None:
    w = networks.Writer(19)
    w.node("Sqrt", ["x"], "r")
    w.nodes.append(helper.make_node("TopK", ["r", w.value("k", [8], np.int64)], ["values", "places"], "top"))
    w.node("Identity", ["values"], "y")
    model = w.model({"x": (FLOAT, [4, 256])}, ["y"])
    model.graph.output.append(helper.make_tensor_value_info("places", networks.INT64, [4, 8]))
    rng = np.random.default_rng(0)
    x = rng.uniform(0.01, 4, (4, 256)).astype(np.float32)
    x[:, ::20] = 5 + 1e-4 * rng.permutation(13)
    assert in_fp16(model, [{"x": x}]) == []
    smallest = edited(model, lambda g: g.node[1].attribute.append(helper.make_attribute("largest", 0)))
    assert [c.node for c in compare(model, smallest, (4, 256)).culprits] == ["top"]


def test_operands_among_the_subnormals_of_fp16_are_rounded_by_its_smallest_step() -> None:
    """A gate that closes a few channels all but entirely, and values large enough to show how it was rounded."""
    w = networks.Writer(23)
    w.node("Mul", ["x", "g"], "m")
    w.node("ReduceMean", ["m"], "y", axes=[2], keepdims=0)
    model = w.model({"x": (FLOAT, [1, 64, 128]), "g": (FLOAT, [1, 64, 1])}, ["y"])
    rng = np.random.default_rng(1)
    gates = np.where(np.arange(64) % 16 == 3, 8.1e-7, rng.uniform(0.1, 1, 64)).astype(np.float32).reshape(1, 64, 1)
    x = (100 * rng.standard_normal((1, 64, 128))).astype(np.float32)
    assert in_fp16(model, [{"x": x, "g": gates}]) == []


def test_dead_channels_whose_weights_a_target_lifts_are_no_culprits() -> None:
    """Weights below FP16's smallest number become that one: all of a dead channel, and nothing of the others."""
    w = networks.Writer(31)
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((16, 8, 3, 3)).astype(np.float32)
    weights[5] = 1e-9 * np.sign(weights[5])
    w.node("Conv", ["x", w.value("w", weights, np.float32)], "y")
    model = w.model({"x": (FLOAT, [1, 8, 24, 24])}, ["y"])
    x = (20 * rng.standard_normal((1, 8, 24, 24))).astype(np.float32)
    assert in_fp16(model, [{"x": x}]) == []


@pytest.mark.parametrize("computed", [True, False])
def test_a_factor_for_all_values_is_rounded_once_for_all(computed: bool) -> None:
    w = networks.Writer(29)
    factor = w.value("factor", 32**-0.5)
    if computed:
        ends = [w.value(name, [at], np.int64) for name, at in (("two", 2), ("three", 3))]
        size = w.node("Slice", [w.node("Shape", ["x"], "dims"), *ends], "last")
        number = w.node("Cast", [w.node("Squeeze", [size], "size")], "number", to=FLOAT)
        factor = w.node("Pow", [number, w.value("half", -0.5)], "power")
    w.linear(w.node("Mul", ["x", factor], "scaled"), "y", (32, 8))
    model = w.model({"x": (FLOAT, [16, 512, 32])}, ["y"])
    x = np.random.default_rng(2).standard_normal((16, 512, 32)).astype(np.float32)
    assert in_fp16(model, [{"x": x}]) == []
