"""A quantized graph written with float operators: what the quantized ones compute, between Q/DQ pairs.

Every way to quantize becomes one: integers stand behind QuantizeLinear or in weights, DequantizeLinear makes floats of
them, and float operators compute. In this form a quantized file has the structure of the float one that it was made
from, and all steps stand in its quantizers. It is read and never run: the file's own kernels are what is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..index import GraphIndex
from ..nodes import attribute_int, subgraphs
from ..operators import CASTS, INTEGER_PRODUCTS, MOVEMENT, PRODUCTS, QUANTIZED, QUANTIZERS, RECURRENT, operator
from ..specs import is_float
from ..writer import GraphWriter, Names
from .layouts import (
    Layout,
    channels_last,
    channels_moved,
    float_attributes,
    given,
    is_product_of_integers,
    layout_of,
    with_channels_last,
)
from .packed import unpacked_blocks
from .scales import Scale, integers_made, moved, moves, scales_of


@dataclass(frozen=True)
class FloatForm:
    """A graph in float operators.

    Attributes:
        index: The graph.
        origins: For each of its nodes, the position of the node in the file's graph that it stands for.
        invented: Tensors that the file's graph does not have.
    """

    index: GraphIndex
    origins: tuple[int, ...]
    invented: frozenset[str]

    def followed_by(self, other: FloatForm) -> FloatForm:
        """Another form of this one's graph, as one of the file's graph."""
        origins = tuple(self.origins[position] for position in other.origins)
        return FloatForm(other.index, origins, self.invented | other.invented)


def is_quantized(index: GraphIndex) -> bool:
    """Whether a graph quantizes activations, multiplies scaled integers, or looks them up in a table."""
    return any(
        operator(node) in QUANTIZED and (operator(node) != "DequantizeLinear" or node.input[0] in index.producer)
        for node in index.nodes
    )


def float_form(index: GraphIndex) -> FloatForm:
    """The graph in float operators. What no float operator stands for stays as it is."""
    return _Writing(index).run()


@dataclass(frozen=True)
class ScaledOperands:
    """What of products, recurrences and lookups in tables a graph holds as scaled integers.

    Attributes:
        layers: How many of these have nothing but scaled operands.
        scaled, others: How many operands are scaled, and are not.
    """

    layers: int
    scaled: int
    others: int

    def differ(self, other: ScaledOperands) -> bool:
        """Whether operands that are scaled here are not there, or the reverse. A product that is written in parts has
        more operands, of one kind."""
        return (self.scaled - other.scaled) * (self.others - other.others) < 0


def scaled_operands(index: GraphIndex) -> ScaledOperands:
    """What of products a graph computes of scaled integers, however the file writes it.

    Args:
        index: A graph, quantized or not.
    """
    quantized = is_quantized(index)
    form = float_form(index).index if quantized else index
    found: list[list[bool]] = []
    for node in form.nodes:
        op = operator(node)
        if quantized and op in INTEGER_PRODUCTS:  # in a layout that no float operator has
            found.append([True, True])
        elif op in PRODUCTS | RECURRENT | {"Gather"}:
            specs = ((name, form.specs.get(name)) for name in list(node.input)[:2])
            floats = [name for name, spec in specs if spec is not None and is_float(spec.dtype)]
            found.append([quantized and _is_scaled(form, name) for name in floats])
    return ScaledOperands(
        sum(bool(operands) and all(operands) for operands in found),
        sum(map(sum, found)),
        sum(len(operands) - sum(operands) for operands in found),
    )


def weight_scales(index: GraphIndex) -> list[tuple[tuple[int, ...], bytes]]:
    """Shape and scales of every stored weight of scaled integers, of two axes or more.

    Args:
        index: A graph, quantized or not.
    """
    form = float_form(index).index if is_quantized(index) else index
    found = []
    for node in form.nodes:
        if operator(node) != "DequantizeLinear" or node.input[0] not in form.initializers:
            continue
        scale, shape = form.weight(node.input[1]), tuple(form.initializers[node.input[0]].dims)
        if scale is not None and len(shape) > 1:
            found.append((shape, np.ascontiguousarray(scale).tobytes()))
    return found


def _is_scaled(form: GraphIndex, name: str) -> bool:
    """Whether a tensor is one that a DequantizeLinear makes, moved perhaps."""
    while (position := form.producer.get(name)) is not None:
        node = form.nodes[position]
        if operator(node) == "DequantizeLinear":
            return True
        if operator(node) not in MOVEMENT | CASTS or not node.input:
            return False
        name = node.input[0]
    return False


@dataclass(frozen=True)
class _Product:
    """A product of integers and the nodes behind it that put its scales back.

    Attributes:
        position: The product.
        output: What the last of them makes.
        scales: Of both operands.
        nodes: Positions of the nodes behind.
    """

    position: int
    output: str
    scales: tuple[str, str]
    nodes: tuple[int, ...]


class _Writing:
    """Writes the float form of one graph, node by node."""

    def __init__(self, index: GraphIndex) -> None:
        self.index = index
        self.writer = GraphWriter(Names.of(index.graph), index.opset.get("", 1))
        self.origins: list[int] = []
        self.scales = scales_of(index)
        self.floats: dict[str, str] = {}
        """Tensor of integers -> the tensor that its DequantizeLinear makes."""
        self.pending: dict[int, _Product] = {}
        """Last node behind a product of integers -> the product."""
        self.absorbed: set[int] = set()

    def run(self) -> FloatForm:
        for position, node in enumerate(self.index.nodes):
            before = len(self.writer.nodes)
            if position in self.pending:
                self._product(self.pending[position])
            elif position not in self.absorbed:
                self._add(position, node)
            self.origins.extend([position] * (len(self.writer.nodes) - before))
        proto = onnx.ModelProto(ir_version=self.index.proto.ir_version)
        proto.opset_import.extend(self.index.proto.opset_import)
        proto.functions.extend(self.index.proto.functions)
        graph, source = proto.graph, self.index.graph
        graph.name = source.name
        graph.input.extend(source.input)
        graph.output.extend(source.output)
        graph.value_info.extend(source.value_info)
        graph.initializer.extend(source.initializer)
        graph.initializer.extend(self.writer.initializers)
        graph.sparse_initializer.extend(source.sparse_initializer)
        graph.node.extend(self.writer.nodes)
        form = GraphIndex(proto, self.index.folder)
        form.kept[with_channels_last] = with_channels_last(self.index)
        invented = frozenset(name for name in form.producer if name not in self.index.producer)
        return FloatForm(form, tuple(self.origins), invented)

    # -- nodes --------------------------------------------------------------------------------------------------

    def _add(self, position: int, node: onnx.NodeProto) -> None:
        op = operator(node)
        if op in QUANTIZERS:
            self._quantizer(node)
        elif is_product_of_integers(node) and (product := self._scaled_product(position, node)) is not None:
            self.pending[product.nodes[-1]] = product
            self.absorbed.update(product.nodes)
        elif (layout := layout_of(node)) is not None and (not channels_last(node) or channels_moved(self.index, node)):
            self._scaled_operator(node, layout)
        elif op in _CONTRIB and _CONTRIB[op](self, node):
            pass
        elif moves(node) and node.output[0] in self.scales:
            self._move_integers(node)
        else:
            self._keep(node)

    def _keep(self, node: onnx.NodeProto) -> None:
        self.writer.nodes.append(node)

    def _quantizer(self, node: onnx.NodeProto) -> None:
        self._keep(node)
        if node.op_type == "DequantizeLinear":
            self.floats.setdefault(node.input[0], node.output[0])

    def _emit(self, op: str, inputs: Sequence[str], output: str, attributes: Iterable[onnx.AttributeProto]) -> str:
        self.writer.emit(op, inputs, output)
        self.writer.nodes[-1].attribute.extend(attributes)
        return output

    def _fresh(self, name: str) -> str:
        return self.writer.names.fresh(f"{name}__float")

    def _float(self, integers: str, scale: str, zero: str, axis: int = 0, block: int = 0) -> str:
        """The float tensor that scaled integers stand for."""
        known = self.floats.get(integers)
        if known is not None:
            return known
        inputs = [integers, self._vector(scale), zero]
        settings = {"axis": axis, **({"block_size": block} if block else {})}
        made = self.writer.emit("DequantizeLinear", inputs if zero else inputs[:2], self._fresh(integers), **settings)
        if integers in self.index.producer:  # a weight may be read along several axes
            self.floats[integers] = made
        return made

    def _vector(self, name: str) -> str:
        """A scale as DequantizeLinear takes it: scales of channels are written to broadcast where nodes multiply."""
        value = self.index.constant(name)
        if value is None or value.ndim < 2 or value.size != max(value.shape):
            return name
        return self.writer.constant(value.reshape(-1), f"{name}__vector")

    def _requantized(self, made: str, integers: str, scale: str, zero: str) -> None:
        """Writes the QuantizeLinear that makes integers of a float tensor."""
        self.writer.emit("QuantizeLinear", [made, scale, zero] if zero else [made, scale], integers)

    # -- operators ----------------------------------------------------------------------------------------------

    def _scaled_operator(self, node: onnx.NodeProto, layout: Layout) -> None:
        """An operator that takes its scales along."""
        inputs = [node.input[i] for i in layout.before]
        turns = channels_moved(self.index, node) if channels_last(node) else None
        for number, place in enumerate(layout.operands):
            axis = layout.weight_axis if number else 0
            rank = self.index.rank(given(node, place.data)) or 0
            axis = axis % rank if rank else max(axis, 0)
            integers, scale, zero = (given(node, p) for p in (place.data, place.scale, place.zero))
            made = self._float(integers, scale, zero, axis)
            if turns is not None and not number:
                made = self.writer.emit("Transpose", [made], self._fresh(integers), perm=turns[0])
            inputs.append(made)
        bias = "" if layout.bias is None else given(node, layout.bias)
        if bias:
            scales = [node.input[place.scale] for place in layout.operands]
            both = self.writer.emit("Mul", scales, self._fresh(f"{bias}_scale"))
            inputs.append(self.writer.emit("DequantizeLinear", [bias, both], self._fresh(bias), axis=0))
        output = node.output[0]
        attributes = float_attributes(node, layout.op)
        if layout.scale is None:
            self._emit(layout.op, inputs, output, attributes)
            return
        made = self._emit(layout.op, inputs, self._fresh(output), attributes)
        scale, zero = node.input[layout.scale], "" if layout.zero is None else given(node, layout.zero)
        if turns is not None:
            made = self._moved_back(made, output, (scale, zero), turns[1])
        self._requantized(made, output, scale, zero)

    def _moved_back(self, made: str, output: str, scale: Scale, turn: list[int]) -> str:
        """What a node of another layout makes, in its layout: rounded as it is made, then moved."""
        again = self._fresh(f"{output}_integers")
        self._requantized(made, again, *scale)
        return self.writer.emit("Transpose", [self._float(again, *scale)], perm=turn)

    def _scaled_product(self, position: int, node: onnx.NodeProto) -> _Product | None:
        """A product of integers whose scales the nodes behind it put back: Cast, then Mul."""
        scale = self.scales.get(node.input[0], ("", ""))[0]
        cast = self._only_reader(node.output[0], "Cast")
        first = self._only_reader(self._output(cast), "Mul")
        if not scale or cast is None or first is None:
            return None
        factor = self._other(first, self._output(cast))
        maker = self.index.producer.get(factor)
        if factor == scale:  # one scale after the other
            second = self._only_reader(self._output(first), "Mul")
            if second is None:
                return None
            other = self._other(second, self._output(first))
            return _Product(position, self._output(second), (scale, other), (cast, first, second))
        if maker is not None and operator(self.index.nodes[maker]) == "Mul":
            if scale not in self.index.nodes[maker].input:
                return None
            other = self._other(maker, scale)
        elif self.index.constant(factor) is not None and self.index.constant(scale) is not None:
            other = self.writer.emit("Div", [factor, scale], self._fresh(f"{factor}_scale"))
        else:
            return None
        return _Product(position, self._output(first), (scale, other), (cast, first))

    def _only_reader(self, name: str, op: str) -> int | None:
        readers = self.index.consumers.get(name, []) if name not in self.index.outputs else []
        return readers[0] if len(readers) == 1 and operator(self.index.nodes[readers[0]]) == op else None

    def _output(self, position: int | None) -> str:
        return "" if position is None else self.index.nodes[position].output[0]

    def _other(self, position: int, name: str) -> str:
        """The other input of a node of two."""
        return next((n for n in self.index.nodes[position].input if n != name), name)

    def _product(self, product: _Product) -> None:
        node = self.index.nodes[product.position]
        op = "Conv" if node.op_type == "ConvInteger" else "MatMul"
        axis = 0 if op == "Conv" else max((self.index.rank(node.input[1]) or 0) - 1, 0)
        left = self._float(node.input[0], product.scales[0], given(node, 2))
        right = self._float(node.input[1], product.scales[1], given(node, 3), axis)
        self._emit(op, [left, right], product.output, float_attributes(node, op))

    def _move_integers(self, node: onnx.NodeProto) -> None:
        """Data movement of integers, done with the floats that they stand for."""
        made = {name: self._fresh(name) for name in integers_made(self.index, node)}
        scale = self.scales[next(iter(made))]
        data = moved(node)
        inputs = [self._float(n, *self.scales.get(n, scale)) if n in data else n for n in node.input]
        self._repeat(node, inputs, [made.get(name, name) for name in node.output])
        for integers, raw in made.items():
            self._requantized(raw, integers, *scale)

    def _repeat(self, node: onnx.NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:], copy.output[:] = inputs, outputs
        assert not any(True for _ in subgraphs(node))
        self.writer.nodes.append(copy)

    # -- operators of ONNX Runtime ------------------------------------------------------------------------------

    def _pooled(self, node: onnx.NodeProto) -> bool:
        """NhwcMaxPool: of integers whose channels are last."""
        output, turns = node.output[0], channels_moved(self.index, node)
        scale = self.scales.get(output)
        if scale is None or turns is None:
            return False
        data = self._float(node.input[0], *self.scales.get(node.input[0], scale))
        turned = self.writer.emit("Transpose", [data], self._fresh(node.input[0]), perm=turns[0])
        made = self._emit("MaxPool", [turned], self._fresh(output), float_attributes(node, "MaxPool"))
        self._requantized(self._moved_back(made, output, scale, turns[1]), output, *scale)
        return True

    def _to_float(self, node: onnx.NodeProto) -> bool:
        """MatMulIntegerToFloat: a product of integers with its scales."""
        a, b, a_scale, b_scale, a_zero, b_zero, bias = (given(node, i) for i in range(7))
        left = self._float(a, a_scale, a_zero)
        right = self._float(b, b_scale, b_zero, max((self.index.rank(b) or 0) - 1, 0))
        return self._biased("MatMul", [left, right], bias, node.output[0])

    def _quantizes_operand(self, node: onnx.NodeProto) -> bool:
        """DynamicQuantizeMatMul: the same, which quantizes its first operand itself."""
        a, b, b_scale, b_zero, bias = (given(node, i) for i in range(5))
        right = self._float(b, b_scale, b_zero, max((self.index.rank(b) or 0) - 1, 0))
        return self._biased("MatMul", [self._quantized(a), right], bias, node.output[0])

    def _quantized(self, name: str) -> str:
        """A tensor behind a quantizer that measures its range, and its DequantizeLinear."""
        integers, scale, zero = (self._fresh(f"{name}_{part}") for part in ("integers", "scale", "zero"))
        self.writer.nodes.append(helper.make_node("DynamicQuantizeLinear", [name], [integers, scale, zero]))
        return self.writer.emit("DequantizeLinear", [integers, scale, zero], self._fresh(name))

    def _biased(self, op: str, inputs: Sequence[str], bias: str, output: str) -> bool:
        made = self.writer.emit(op, inputs, self._fresh(output) if bias else output)
        if bias:
            self.writer.emit("Add", [made, bias], output)
        return True

    def _lstm(self, node: onnx.NodeProto) -> bool:
        """DynamicQuantizeLSTM: weights are stored transposed, with a scale for each direction, or each row."""
        weights = []
        for i, scale in ((1, 8), (2, 10)):
            value = self.index.constant(given(node, scale))
            if value is None or value.ndim > 2:
                return False
            if value.ndim == 2:
                made = self._of_rows(node.input[i], value, self.index.constant(given(node, scale + 1)))
            else:
                made = self._float(node.input[i], node.input[scale], given(node, scale + 1))
            weights.append(self.writer.emit("Transpose", [made], self._fresh(node.input[i]), perm=[0, 2, 1]))
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.op_type, copy.domain = "LSTM", ""
        copy.input[:] = [self._quantized(node.input[0]), *weights, *node.input[3:8]]
        self.writer.nodes.append(copy)
        return True

    def _of_rows(self, integers: str, scale: np.ndarray, zero: np.ndarray | None) -> str:
        """The floats of integers that have a scale and a zero point for each entry of their first and last axis, which
        no DequantizeLinear has."""
        made = self.writer.emit("Cast", [integers], self._fresh(integers), to=TensorProto.FLOAT)
        if zero is not None:
            zeros = self.writer.constant(zero[:, None].astype(np.float32), self._fresh(f"{integers}_zero"))
            made = self.writer.emit("Sub", [made, zeros], self._fresh(integers))
        scales = self.writer.constant(scale[:, None], self._fresh(f"{integers}_scale"))
        return self.writer.emit("Mul", [made, scales], self._fresh(integers))

    def _blocks(self, node: onnx.NodeProto) -> bool:
        """MatMulNBits: weights of 4 or 8 bits, packed, with a scale for each block."""
        found = unpacked_blocks(node, [self.index.weight(given(node, i)) for i in range(1, 5)])
        if found is None:
            return False
        integers, scale, zero = (
            self.writer.constant(array, self._fresh(f"{node.input[1]}_{part}"))
            for array, part in zip(found, ("integers", "scale", "zero"), strict=True)
        )
        weight = self._float(integers, scale, zero, 1, attribute_int(node, "block_size", 32))
        turned = self.writer.emit("Transpose", [weight], self._fresh(node.input[1]), perm=[1, 0])
        return self._biased("MatMul", [node.input[0], turned], given(node, 5), node.output[0])

    def _gathered_blocks(self, node: onnx.NodeProto) -> bool:
        """GatherBlockQuantized: rows of a table that is stored in blocks."""
        data, indices, scales, zero = (given(node, i) for i in range(4))
        stored = self.index.initializers.get(data)
        if stored is None or stored.data_type not in (TensorProto.INT4, TensorProto.UINT4):
            return False
        axis, block = attribute_int(node, "quantize_axis", 1), attribute_int(node, "block_size", 128)
        table = self._float(data, scales, zero, axis, block)
        self.writer.emit("Gather", [table, indices], node.output[0], axis=attribute_int(node, "gather_axis", 0))
        return True


_CONTRIB = {
    "NhwcMaxPool": _Writing._pooled,
    "MatMulIntegerToFloat": _Writing._to_float,
    "DynamicQuantizeMatMul": _Writing._quantizes_operand,
    "DynamicQuantizeLSTM": _Writing._lstm,
    "MatMulNBits": _Writing._blocks,
    "GatherBlockQuantized": _Writing._gathered_blocks,
}
