"""The table of operators, held against ONNX's own definitions."""

import numpy as np
import onnx
import pytest
from layerdiff import OnnxrtRunner
from layerdiff.graph import operators
from layerdiff.graph.cutting.fusion import fused_groups, static_tensors
from layerdiff.graph.formats import FP32
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.model import Model
from layerdiff.graph.operators import CONTRIB_DOMAIN, ML_DOMAIN, OPERATORS, Kind, facts_of, is_data, operator
from layerdiff.graph.rounding.emulation import needed_ranges, rewrite
from onnx import defs
from onnx.reference import ReferenceEvaluator

from support.models import assembled, infer, parsed


def newest() -> dict[str, defs.OpSchema]:
    """The newest definition of every operator that ONNX ever had, in any domain."""
    found: dict[str, defs.OpSchema] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.name not in found or schema.since_version > found[schema.name].since_version:
            found[schema.name] = schema
    return found


SCHEMAS = newest()


def named(test) -> set[str]:
    """Operators of ONNX of which the table says so."""
    return {name for name, facts in OPERATORS.items() if test(facts) and not facts.contrib}


def defined(test) -> set[str]:
    """Operators whose definition says so."""
    return {name for name, schema in SCHEMAS.items() if test(schema)}


def holds(formal, *types: str) -> bool:
    """Whether an input or output may be a tensor of a type that starts so."""
    return any(allowed.startswith(f"tensor({t}") for t in types for allowed in formal.types)


# ---- against ONNX ---------------------------------------------------------------------------------------------------


def test_every_operator_of_onnx_is_in_the_table():
    assert sorted(set(SCHEMAS) - set(OPERATORS)) == []


def test_what_onnx_does_not_define_is_marked_as_contrib():
    assert {name for name, facts in OPERATORS.items() if facts.contrib} == set(OPERATORS) - set(SCHEMAS)


def test_no_operator_stands_in_two_rows():
    names = [name for row, _ in operators.ROWS for name in row.split()]
    assert len(names) == len(set(names))


SOME_ARE_VALUES = named(lambda f: f.data and f.kind not in (Kind.CONTAINER, Kind.QUERY))


@pytest.mark.parametrize("name", sorted(SOME_ARE_VALUES))
def test_values_are_given_in_inputs_that_take_floats(name):
    inputs = SCHEMAS[name].inputs
    assert [i for i in OPERATORS[name].data if i >= len(inputs) or not holds(inputs[i], "float", "int8")] == []


@pytest.mark.parametrize("name", sorted(n for n, f in OPERATORS.items() if f.operands and n in SCHEMAS))
def test_operands_are_inputs_of_one_type(name):
    first, *others = (SCHEMAS[name].inputs[i] for i in OPERATORS[name].operands)
    assert {other.type_str for other in others} == {first.type_str}


FROM_DEFINITIONS = {
    "containers": (lambda f: f.container, lambda s: s.outputs and not holds(s.outputs[0], "")),
    "classical": (lambda f: f.kind is Kind.CLASSICAL, lambda s: s.domain not in ("", "ai.onnx.preview")),
    "bodies": (
        lambda f: f.kind is Kind.CONTROL,
        lambda s: s.domain == "" and any(a.type == defs.OpSchema.AttrType.GRAPH for a in s.attributes.values()),
    ),
    "quantizers": (
        lambda f: f.kind is Kind.QUANTIZER,
        lambda s: {"x_scale", "y_scale"} & {i.name for i in (*s.inputs, *s.outputs)} and len(s.inputs) <= 3,
    ),
    "shapes": (lambda f: f.kind is Kind.SHAPE, lambda s: s.name in ("Shape", "Size")),
    "random": (lambda f: f.kind is Kind.RANDOM, lambda s: "seed" in s.attributes and s.name != "Dropout"),
    "recurrent": (lambda f: f.kind is Kind.RECURRENT, lambda s: "hidden_size" in s.attributes),
    "windows": (lambda f: f.windowed, lambda s: {"kernel_shape", "strides", "dilations"} <= set(s.attributes)),
}


@pytest.mark.parametrize("name", FROM_DEFINITIONS)
def test_the_table_says_what_the_definitions_say(name):
    facts, definition = FROM_DEFINITIONS[name]
    assert named(facts) == defined(definition)


def test_commutative_operators_take_two_inputs_of_one_type():
    for name in operators.COMMUTATIVE:
        inputs = SCHEMAS[name].inputs
        assert len({i.type_str for i in inputs}) == 1, name
        assert len(inputs) == 2 or inputs[0].option == defs.OpSchema.FormalParameterOption.Variadic, name


def test_families_are_named_by_operators_of_onnx():
    assert {facts.family for facts in OPERATORS.values()} - {""} <= set(SCHEMAS)


# ---- sets -----------------------------------------------------------------------------------------------------------

SETS = {
    name: value for name, value in vars(operators).items() if isinstance(value, frozenset) and "DOMAINS" not in name
}


@pytest.mark.parametrize("name", SETS)
def test_sets_hold_operators_of_the_table_alone(name):
    assert sorted(SETS[name] - set(OPERATORS)) == []


APART = [
    ("MOVEMENT", "UNTOUCHED"),
    ("MOVEMENT", "SELECTION"),
    ("PRODUCTS", "EXACT_OPERATORS"),
    ("POINTWISE", "MOVEMENT"),
    ("LIBRARY_FUNCTIONS", "EXACT_OPERATORS"),
    ("RECURRENT", "PRODUCTS"),
]


@pytest.mark.parametrize(("one", "other"), APART)
def test_some_sets_have_nothing_in_common(one, other):
    assert sorted(SETS[one] & SETS[other]) == []


# ---- sets, against ONNX Runtime -------------------------------------------------------------------------------------

ORT = OnnxrtRunner(threads=1)
INPUTS = {  # of operators that are not given one tensor alone
    **{op: {"b": (2, 4, 6, 6)} for op in ("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Sum", "Mean", "Max", "Min")},
    "PRelu": {"slope": (4, 1, 1)},
    "Conv": {"w": (3, 4, 3, 3)},
    "ConvTranspose": {"w": (4, 3, 3, 3)},
    "BatchNormalization": {"scale": (4,), "bias": (4,), "mean": (4,), "variance": (4,)},
    "InstanceNormalization": {"scale": (4,), "bias": (4,)},
}
ATTRIBUTES = {
    **{op: {"kernel_shape": [2, 2]} for op in ("MaxPool", "AveragePool", "LpPool")},
    "Mod": {"fmod": 1},
    "Gelu": {"approximate": "none"},
}
NEWER = {"Gelu": 20, "Swish": 24}  # than opset 18
RANGES = {
    "Acosh": (1, 9),
    "Log": (0.1, 9),
    "Sqrt": (0, 9),
    "Reciprocal": (0.1, 9),
    "HardSigmoid": (-2, 2),
}


def of_one(op: str, dtype: str = "FLOAT", inputs: tuple[str, ...] = ("x",)) -> Model:
    """A model of one node."""
    elem_type = onnx.TensorProto.DataType.Value(dtype)
    node = onnx.helper.make_node(op, inputs, ["y"], **ATTRIBUTES.get(op, {}))
    infos = [(name, elem_type, None) for name in inputs]
    return Model(assembled([node], infos, [("y", elem_type, None)], opset=NEWER.get(op, 18)))


def values(op: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    low, high = RANGES.get(op, (-0.95, 0.95) if op.startswith("A") else (0.05, 3.0))
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


@pytest.mark.parametrize("op", sorted(op for op in operators.BATCHWISE if op in SCHEMAS and op != "SwiGLU"))
def test_entries_of_a_batch_are_computed_each_on_its_own(op):
    given = {"x": values(op, (2, 4, 6, 6), 0)}
    given |= {name: values(op, shape, i) for i, (name, shape) in enumerate(INPUTS.get(op, {}).items(), 1)}
    model = of_one(op, inputs=tuple(given))
    whole = infer(ORT, model, given)["y"]
    for entry in range(2):
        feed = {name: v[entry : entry + 1] if v.shape[:1] == (2,) else v for name, v in given.items()}
        np.testing.assert_allclose(infer(ORT, model, feed)["y"], whole[entry : entry + 1], rtol=1e-6)


def units_off(op: str) -> float:
    """The greatest relative error of ONNX Runtime's kernel, in units roundoff of FP32."""
    x = values(op, (100_000,), 0)
    exact = ReferenceEvaluator(of_one(op, "DOUBLE").proto).run(None, {"x": x.astype(np.float64)})[0]
    error = np.abs(infer(ORT, of_one(op), {"x": x})["y"] - exact)
    return float((error[exact != 0] / np.abs(exact[exact != 0])).max() / FP32.u)


FUNCTIONS = {
    name
    for name, facts in OPERATORS.items()
    if facts.kind in (Kind.EXACT, Kind.ACTIVATION, Kind.FUNCTION)
    and name in SCHEMAS
    and name not in ("PRelu", "SwiGLU")
}


@pytest.mark.parametrize("op", sorted(FUNCTIONS - operators.LIBRARY_FUNCTIONS))
def test_what_is_no_library_function_is_off_by_one_rounding_at_most(op):
    assert units_off(op) <= 1.0


@pytest.mark.parametrize(
    "op",
    [
        "Tan",
        "Asin",
        "Acos",
        "Atan",
        "Sinh",
        "Cosh",
        "Asinh",
        "Acosh",
        "Atanh",
        "Softsign",
        "HardSigmoid",
        "Tanh",
        "Erf",
    ],
)
def test_a_library_function_is_off_by_more_than_one_rounding(op):
    assert op in operators.LIBRARY_FUNCTIONS
    assert units_off(op) > 1.0


# ---- a node's operator ----------------------------------------------------------------------------------------------

DOMAINS = {
    "": "MatMul",
    "ai.onnx": "MatMul",
    CONTRIB_DOMAIN: "MatMul",
    ML_DOMAIN: "MatMul",
    "com.example": "com.example::MatMul",
}


@pytest.mark.parametrize("domain", DOMAINS)
def test_an_operator_of_an_unknown_domain_is_none_of_the_table(domain):
    node = onnx.helper.make_node("MatMul", ["a", "b"], ["y"], domain=domain)
    assert operator(node) == DOMAINS[domain]
    assert (facts_of(node).kind is Kind.PRODUCT) == (domain != "com.example")


OTHERS = "com.example"  # MatMul, Shape and Identity of this domain may be anything


def custom(body: str) -> GraphIndex:
    return GraphIndex(parsed(f"g (float[4,4] x) => (float[4,4] y) {{ {body} }}", domains=[OTHERS], w=np.eye(4)))


def test_a_custom_operator_called_matmul_is_not_quantized():
    assert needed_ranges(custom(f"y = {OTHERS}.MatMul(x, w)"), "int8") == []


def test_a_custom_operator_called_shape_may_depend_on_values():
    assert "a" not in static_tensors(custom(f"a = {OTHERS}.Shape(x) y = Add(x, a)"))


def test_a_custom_operator_called_relu_joins_no_group():
    groups = fused_groups(custom(f"a = MatMul(x, w) y = {OTHERS}.Relu(a)"))
    assert [group.nodes for group in groups] == [(0,), (1,)]


def test_what_a_custom_operator_called_transpose_makes_of_a_weight_is_rounded_when_it_runs():
    rewritten = rewrite(Model(custom(f"a = {OTHERS}.Transpose(w) y = MatMul(x, a)").proto), "fp16").model
    (product,) = [node for node in rewritten.proto.graph.node if node.op_type == "MatMul"]
    assert product.input[1] in {name for node in rewritten.proto.graph.node for name in node.output}


def test_all_inputs_of_an_unknown_operator_are_taken_for_values():
    node = onnx.helper.make_node("Resize", ["x", "roi", "scales"], ["y"], domain="com.example")
    assert [is_data(node, i) for i in range(3)] == [True, True, True]
    node.domain = ""
    assert [is_data(node, i) for i in range(3)] == [True, False, False]
