"""What operators' schemas say of nodes: which inputs and attributes can be left out, and what they were before."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import onnx

from .operators import domain_of

Optional = onnx.defs.OpSchema.FormalParameterOption.Optional


@functools.lru_cache(maxsize=4096)
def schema_at(op: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    """An operator's schema in an opset; None of a custom operator."""
    try:
        return onnx.defs.get_schema(op, version, domain)
    except Exception:  # a custom operator
        return None


def optional_inputs(node: onnx.NodeProto, version: int) -> Iterator[tuple[int, str]]:
    """Place and name of the inputs that a node has and could do without.

    Args:
        node: The node.
        version: The opset of its domain.
    """
    schema = schema_at(node.op_type, version, domain_of(node))
    if schema is not None:
        for slot, (name, known) in enumerate(zip(node.input, schema.inputs, strict=False)):
            if name and known.option == Optional:
                yield slot, known.name


def settings_made(node: onnx.NodeProto, version: int) -> Iterator[tuple[str, Any]]:
    """Name and value of the attributes that a node has and could do without, and that are not as if it had not.

    Args:
        node: The node.
        version: The opset of its domain.
    """
    schema = schema_at(node.op_type, version, domain_of(node))
    for attribute in node.attribute if schema is not None else ():
        known = schema.attributes.get(attribute.name) if schema is not None else None
        if known is None or known.required:
            continue
        value = onnx.helper.get_attribute_value(attribute)
        default = onnx.helper.get_attribute_value(known.default_value) if known.default_value.type else None
        if value != default:
            yield attribute.name, value.decode() if isinstance(value, bytes) else value


def attribute_until(node: onnx.NodeProto, version: int, name: str) -> int | None:
    """The last opset in which an input of a node was an attribute; None where it never was.

    Args:
        node: The node.
        version: The opset of its domain.
        name: The input, as the schema calls it.
    """
    while (schema := schema_at(node.op_type, version, domain_of(node))) is not None:
        if name in schema.attributes:
            return version
        version = schema.since_version - 1
    return None
