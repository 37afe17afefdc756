"""One way of writing for what ONNX can write in several: nodes made comparable across opsets.

Opsets moved attributes to inputs (axes, pads, min and max), gave them defaults and renamed them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx

from ..index import GraphIndex
from ..nodes import attribute
from ..operators import COMMUTATIVE, CONTRIB_DOMAIN, domain_of, family
from ..schemas import schema_at
from .constants import constant_value
from .settings import settle

# fmt: off
_SETTINGS = frozenset({
    "axes", "min", "max", "pads", "constant_value", "starts", "ends", "steps", "split", "k", "scales", "sizes", "ratio",
    "shape", "repeats", "roi", "depth", "output_shape", "kernel_shape", "trip_count", "max_output_boxes_per_class",
    "iou_threshold", "score_threshold", "training_mode", "seq_length", "axis",
})
# fmt: on
LEAST = -3.4e38
"""What is as small is minus infinity to a maximum of FP32 values."""
PADDED_WITH = "value of the padding"
"""Name of the setting that says what a Pad and the operator behind it pad with, where that operator pads with another
value."""
CAPTURED = "captured"
"""What the slots of tensors begin with that the bodies of a node read from around it."""
# input and attribute names that changed between opsets
_RENAMED = {"mean": "input_mean", "var": "input_var"}


_CONTRIB_INPUTS = {
    op: names.split()
    for op, _, names in (
        row.partition(":")
        for row in """
MultiHeadAttention: query key value bias key_padding_mask attention_bias past_key past_value
Attention: input weights bias mask_index past attention_bias past_sequence_length
GroupQueryAttention: query key value past_key past_value seqlens_k total_sequence_length cos_cache sin_cache
EmbedLayerNormalization: input_ids segment_ids word_embedding position_embedding segment_embedding scale b mask places
SkipLayerNormalization: input skip scale b bias
SkipSimplifiedLayerNormalization: input skip scale bias
""".strip().splitlines()
    )
}
"""What the inputs of ONNX Runtime's own operators are called, of which some may be left out: as in ONNX, where it has
the same."""


@dataclass(frozen=True)
class NormalForm:
    """A node, written so that the same computation reads the same in every opset.

    Attributes:
        op: Operator, with its domain where that is not the default one.
        family: Operator of which `op` is a way of writing (MatMul for Gemm).
        settings: Attributes and attribute-like constant inputs by name, defaults filled in.
        data: Slot and name of the inputs that depend on the data.
        weights: Slot and name of the other inputs, shape arithmetic among them.
        together: Names of nodes that are written as this one: Transposes that follow each other, a Pad and the operator
            that could have padded itself; empty for one alone.
    """

    op: str
    family: str
    settings: Mapping[str, Any]
    data: tuple[tuple[str, str], ...]
    weights: Mapping[str, str]
    together: tuple[str, ...] = ()

    @property
    def commutative(self) -> bool:
        """Whether the order of the data inputs says nothing."""
        return self.op in COMMUTATIVE


@functools.lru_cache(maxsize=4096)
def schema_defaults(op: str, version: int, domain: str) -> dict[str, Any]:
    """Attributes that an operator has where a node does not give them; empty for a custom operator."""
    schema = schema_at(op, version, domain)
    if schema is None:
        return {}
    found = {}
    for name, a in schema.attributes.items():
        if a.default_value.type:
            value = onnx.helper.get_attribute_value(a.default_value)
            found[name] = value.decode() if isinstance(value, bytes) else value
    return found


def slots(node: onnx.NodeProto, version: int) -> list[str]:
    """A name for each input position, the same in every opset: the schema's, numbered where it takes any number."""
    domain = domain_of(node)
    standard = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}.get(node.op_type)
    if domain and standard is not None:
        schema = schema_at(standard, onnx.defs.onnx_opset_version(), "")
    else:
        schema = schema_at(node.op_type, version, domain)
    names = []
    contrib = _CONTRIB_INPUTS.get(node.op_type, []) if domain == CONTRIB_DOMAIN else []
    for position in range(len(node.input)):
        if position < len(contrib):
            names.append(contrib[position])
        elif schema is None or not schema.inputs:
            names.append(f"in{position}")
        elif position < len(schema.inputs) - 1:
            names.append(schema.inputs[position].name.lower())
        else:
            last = schema.inputs[-1]
            variadic = last.option == onnx.defs.OpSchema.FormalParameterOption.Variadic
            names.append(f"{last.name.lower()}{position}" if variadic else last.name.lower())
    return [_RENAMED.get(name, name) for name in names]


def spelled(index: GraphIndex, position: int, name: str) -> str:
    """An input that is given by its slot, as the operator's schema writes it: the ``K`` of a TopK."""
    node = index.nodes[position]
    domain = domain_of(node)
    schema = schema_at(node.op_type, index.opset.get(domain, 1), domain)
    return next((i.name for i in schema.inputs if i.name.lower() == name), name) if schema is not None else name


def inputs_alike(reference: GraphIndex, n: int, candidate: GraphIndex, m: int) -> list[tuple[str, str]]:
    """What two nodes read by the same inputs: in the same place, where they are of one operator; else by the names that
    the operators' schemas have.

    Args:
        reference, n: A graph, and the position of a node in it.
        candidate, m: The same of the other graph.
    """
    node, other = reference.nodes[n], candidate.nodes[m]
    if family(node) == family(other):
        return list(zip(node.input, other.input, strict=False))
    mine, theirs = _by_slot(reference, n), _by_slot(candidate, m)
    return [(name, theirs[slot]) for slot, name in mine.items() if slot in theirs]


def _by_slot(index: GraphIndex, position: int) -> dict[str, str]:
    node = index.nodes[position]
    return dict(zip(slots(node, index.opset.get(domain_of(node), 1)), node.input, strict=True))


def is_optional(index: GraphIndex, position: int, slot: str) -> bool:
    """Whether the operator of a node may be without an input; of ONNX Runtime's own, where its inputs are known."""
    node = index.nodes[position]
    domain = domain_of(node)
    schema = schema_at(node.op_type, index.opset.get(domain, 1), domain)
    if schema is None:
        return domain != CONTRIB_DOMAIN or slot in _CONTRIB_INPUTS.get(node.op_type, ())
    optional = (i.name.lower() for i in schema.inputs if i.option == onnx.defs.OpSchema.FormalParameterOption.Optional)
    return slot in {_RENAMED.get(name, name) for name in optional}


def normal_form(index: GraphIndex, position: int, constant: Callable[[str], bool] | None = None) -> NormalForm:
    """The node at ``position``, rewritten. ``constant(name)`` tells whether a tensor is independent of the data: where
    it is not given, those are that `constant_value` knows."""
    constant = constant or (lambda name: constant_value(index, name) is not None)
    node = index.nodes[position]
    domain = domain_of(node)
    version = index.opset.get(domain, 1)
    op = f"{domain}::{node.op_type}" if domain else node.op_type
    settings: dict[str, Any] = dict(schema_defaults(node.op_type, version, domain))
    for a in node.attribute:
        if a.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            settings[a.name] = attribute(node, a.name)
    if op == "Pad" and "value" in settings:
        settings.setdefault("constant_value", settings.pop("value"))
    data: list[tuple[str, str]] = []
    weights: dict[str, str] = {}
    for slot, name in zip(slots(node, version), node.input, strict=True):
        if not name:
            continue
        if not constant(name):
            data.append(("*" if op in COMMUTATIVE else slot, name))
            continue
        value = index.constant(name) if slot in _SETTINGS and not domain else None
        if value is not None and value.size <= 4096:
            settings[slot] = value.item() if value.ndim == 0 else value.tolist()
        else:
            weights["const" if op in COMMUTATIVE else slot] = name
    listed = set(node.input)
    for i, name in enumerate(r for r in index.reads[position] if r not in listed):
        if constant(name):
            weights[f"{CAPTURED}{i}"] = name
        else:
            data.append((f"{CAPTURED}{i}", name))
    if not domain:
        settle(index, node, version, settings, weights)
    return NormalForm(op, family(node), settings, tuple(data), weights)


def composed(first: NormalForm, second: NormalForm, names: tuple[str, str]) -> NormalForm:
    """Two Transposes as one, where both say how they move axes; else the second as it is.

    Args:
        first, second: The one before, and the one that reads it.
        names: What the nodes are called.
    """
    before, after = first.settings.get("perm"), second.settings.get("perm")
    if not isinstance(before, list) or not isinstance(after, list) or len(before) != len(after):
        return second
    moved = [before[axis] for axis in after]
    together = (*(first.together or names[:1]), names[1])
    return replace(second, settings={**second.settings, "perm": moved}, data=first.data, together=together)


def padding_value(op: str) -> float:
    """What an operator with a window pads with itself."""
    return -math.inf if op == "MaxPool" else 0.0


def padded(first: NormalForm, second: NormalForm, names: tuple[str, str]) -> NormalForm:
    """A Pad and the convolution or pooling behind it as one that pads itself. The second as it is where it does so
    already, beside which a Pad is one too many, and where no operator could.

    Args:
        first, second: The Pad, and what reads it.
        names: What the nodes are called.
    """
    pads, own, value = (*(form.settings.get("pads") for form in (first, second)), first.settings["constant_value"])
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if first.settings.get("mode") != "constant" or not isinstance(value, (int, float)) or "axes" in first.settings:
        return second
    if not isinstance(pads, list) or not isinstance(own, list) or len(pads) != len(own) + 4:
        return second
    half = len(pads) // 2
    if any(own) or any(pads[:2]) or any(pads[half : half + 2]):  # of the batch or the channels
        return second
    settings = {**second.settings, "pads": pads[2:half] + pads[half + 2 :]}
    if second.op == "AveragePool" and any(pads):
        settings["count_include_pad"] = 1
    if max(value, LEAST) != max(padding_value(second.op), LEAST):
        settings[PADDED_WITH] = value
    together = (*(first.together or names[:1]), names[1])
    data = ((second.data[0][0], first.data[0][1]), *second.data[1:])
    return replace(second, settings=settings, data=data, together=together)
