"""The table of operators, held against ONNX's own definitions."""

import numpy as np
import onnx
import pytest
from layerdiff.graph import operators
from layerdiff.graph.cutting.fusion import fused_groups, static_tensors
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.model import Model
from layerdiff.graph.operators import CONTRIB_DOMAIN, ML_DOMAIN, OPERATORS, Kind, facts_of, is_data, operator
from layerdiff.graph.rounding.emulation import needed_ranges, rewrite
from onnx import defs

from support.models import parsed


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


@pytest.mark.parametrize("name", sorted(n for n, f in OPERATORS.items() if f.data and n in SCHEMAS))
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
    "windows": (lambda f: f.windowed, lambda s: {"kernel_shape", "strides", "auto_pad"} <= set(s.attributes)),
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
