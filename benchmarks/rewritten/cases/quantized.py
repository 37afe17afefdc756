"""Quantized files."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx

from ..expectation import Pair, fault, healthy
from ..writing import CONTRIB, File, beside, file, known, made, pair, set_attribute
from .attention import LAYERS

COARSE = "quantization spread amplified"
"""Causes that say which layers cost most, and accuse nobody."""
SCALES = "quantization scale weights attribute saturation bias"
"""Causes that describe a scale or a zero point that is not the right one."""


@lru_cache(maxsize=4)
def _static(name: str, activations: str, reduced: bool, per_channel: bool) -> onnx.ModelProto:
    """The network as onnxruntime's quantize_static writes it, with QuantizeLinear and DequantizeLinear."""
    from onnxruntime import quantization

    net = known(name)

    class Feeds(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(net.feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = str(Path(folder) / "source.onnx"), str(Path(folder) / "target.onnx")
            onnx.save(net.reference, source)
            quantization.quantize_static(
                source,
                target,
                Feeds(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=per_channel,
                reduce_range=reduced,
                activation_type=getattr(quantization.QuantType, activations),
                weight_type=quantization.QuantType.QInt8,
            )
            return onnx.load(target)
    finally:
        logging.disable(logging.NOTSET)


def _blazeface() -> File:
    """Weights of 7 bits with a scale for each channel, which every processor computes right."""
    return file(_static("blazeface", "QUInt8", True, True))


def _classifier() -> File:
    return file(_static("ppocr-cls", "QUInt8", False, False))


def _convolution(changed: File, wanted: Callable[[onnx.NodeProto], bool]) -> onnx.NodeProto:
    return next(node for node in changed.nodes(("Conv",)) if wanted(node))


def _activations(changed: File) -> list[onnx.NodeProto]:
    """The DequantizeLinear nodes behind activations, in the order of the file."""
    made_ones = {output for node in changed.nodes() for output in node.output}
    return [node for node in changed.nodes(("DequantizeLinear",)) if node.input[0] in made_ones]


def _around(changed: File, dequantize: onnx.NodeProto) -> tuple[str, ...]:
    """Names that a culprit at a quantized activation may have: the two nodes, what is quantized, and who reads it."""
    quantize = changed.node(dequantize.input[0])
    readers = changed.readers(dequantize.output[0])
    names = [quantize.name, quantize.input[0], *quantize.output, dequantize.name, *dequantize.output]
    return (*names, *(reader.name for reader in readers))


def _weight_at(changed: File, convolution: onnx.NodeProto, slot: int = 1) -> tuple[str, ...]:
    """Names that a culprit at a quantized weight or bias may have, and its DequantizeLinear."""
    dequantize = changed.node(convolution.input[slot])
    return (convolution.name, *convolution.output, dequantize.name, *dequantize.output)


def _beside_float(changed: File, at: tuple[str, ...] = (), name: str = "blazeface") -> Pair:
    """A quantized file beside the float one, computed as it is written."""
    return beside(known(name), changed, at=at, optimize=False)


@healthy("undecided", tolerated=COARSE)
def quantized_static() -> Pair:
    """A file of 8-bit numbers, computed as it is written"""
    return _beside_float(_blazeface())


@healthy("undecided pass", tolerated=COARSE)
def quantized_static_and_optimized() -> Pair:
    """A file of 8-bit numbers, computed with kernels for them"""
    return beside(known("blazeface"), _blazeface())


def _axis(changed: File) -> tuple[str, ...]:
    """Scales along the second axis of a square weight."""

    def square(node: onnx.NodeProto) -> bool:
        return changed.value(changed.node(node.input[1]).input[0]).shape[:2] == (96, 96)

    convolution = _convolution(changed, square)
    set_attribute(changed.node(convolution.input[1]), "axis", 1)
    return _weight_at(changed, convolution)


@fault(causes=SCALES, verdicts="fail undecided", tolerated=COARSE)
def scales_along_another_axis() -> Pair:
    """Scales of a square weight along its inputs for its outputs, beside the float file"""
    changed = _blazeface()
    return _beside_float(changed, _axis(changed))


def _doubled_bias(changed: File) -> tuple[str, ...]:
    """The scale of the greatest bias of a convolution in the middle twice too large."""

    def greatest(node: onnx.NodeProto) -> float:
        dequantize = changed.node(node.input[2])
        return float(np.abs(changed.value(dequantize.input[0]) * changed.value(dequantize.input[1])).max())

    convolution = max(changed.nodes(("Conv",))[2:14], key=greatest)
    dequantize = changed.node(convolution.input[2])
    scale = changed.value(dequantize.input[1])
    dequantize.input[1] = changed.add("scale_doubled", (scale * 2).astype(np.float32))
    return _weight_at(changed, convolution, 2)


@fault(causes=SCALES, verdicts="fail undecided", tolerated=COARSE)
def scale_of_a_bias_doubled() -> Pair:
    """The scale of a bias twice too large, beside the float file"""
    changed = _blazeface()
    return _beside_float(changed, _doubled_bias(changed))


@fault(causes=SCALES)
def scale_of_a_bias_doubled_in_one_of_two() -> Pair:
    """The scale of a bias twice too large; both files are quantized"""
    changed = _blazeface()
    at = _doubled_bias(changed)
    return pair(_blazeface().proto, changed, list(known("blazeface").feeds), at=at, optimize=False)


def _zero_point(changed: File, index: int) -> tuple[str, ...]:
    dequantize = _activations(changed)[index]
    zero = changed.value(dequantize.input[2])
    dequantize.input[2] = changed.add("zero_point_off", np.array(zero + 1, zero.dtype))
    return _around(changed, dequantize)


@fault(causes=SCALES, verdicts="fail undecided", tolerated=COARSE)
def zero_point_off_by_one() -> Pair:
    """The zero point of a DequantizeLinear off by one, beside the float file"""
    changed = _blazeface()
    return _beside_float(changed, _zero_point(changed, 10))


@fault(causes=SCALES)
def zero_point_off_by_one_in_one_of_two() -> Pair:
    """The zero point of a DequantizeLinear off by one; both files are quantized"""
    changed = _blazeface()
    at = _zero_point(changed, 10)
    return pair(_blazeface().proto, changed, list(known("blazeface").feeds), at=at, optimize=False)


@fault(causes=SCALES, verdicts="fail undecided", tolerated=COARSE)
def zero_point_off_by_one_in_a_classifier() -> Pair:
    """The zero point of a DequantizeLinear off by one in another network, computed with kernels for 8 bits"""
    changed = _classifier()
    return beside(known("ppocr-cls"), changed, at=_zero_point(changed, 12))


@fault("*QuantizeLinear", causes="quantization weights", also=("*",))
def scales_rounded_to_fp16() -> Pair:
    """All scales rounded to FP16; both files are quantized"""
    changed = _blazeface()
    for tensor in list(changed.proto.graph.initializer):
        if tensor.name.endswith("_scale"):
            scale = changed.value(tensor.name)
            changed.set_weight(tensor.name, scale.astype(np.float16).astype(np.float32))
    return pair(_blazeface().proto, changed, list(known("blazeface").feeds), optimize=False)


@fault(causes=SCALES, verdicts="fail undecided", tolerated=COARSE)
def negatives_cut_off() -> Pair:
    """The zero point 0 for 133 of an activation, where it is quantized and where it is read"""
    changed = _classifier()
    dequantize = next(n for n in _activations(changed)[8:] if changed.value(n.input[2]) > 60)
    zero = changed.value(dequantize.input[2])
    name = changed.add("zero_point_0", np.array(0, zero.dtype))
    dequantize.input[2] = changed.node(dequantize.input[0]).input[2] = name
    return beside(known("ppocr-cls"), changed, at=_around(changed, dequantize))


@fault(causes=SCALES, verdicts="fail undecided", tolerated=COARSE)
def range_cut_to_an_eighth() -> Pair:
    """The scale of an activation an eighth of what its range needs, where it is quantized and where it is read"""
    changed = _blazeface()
    dequantize = _activations(changed)[6]
    scale = changed.value(dequantize.input[1])
    name = changed.add("scale_of_an_eighth", (scale / 8).astype(np.float32))
    dequantize.input[1] = changed.node(dequantize.input[0]).input[1] = name
    # The sum that reads it runs as one kernel with the convolution before it and the Relu behind.
    return _beside_float(changed, (*_around(changed, dequantize), "activation_2"))


@fault(causes=SCALES, verdicts="fail undecided", tolerated=COARSE)
def scale_of_another_tensor() -> Pair:
    """A DequantizeLinear with the scale of another activation"""
    changed = _blazeface()
    behind = _activations(changed)[8:]
    own = changed.value(behind[0].input[1])
    behind[0].input[1] = next(n.input[1] for n in behind[1:] if changed.value(n.input[1]) > 1.5 * own)
    return _beside_float(changed, _around(changed, behind[0]))


@fault(causes=SCALES, verdicts="fail undecided", tolerated=COARSE)
def scale_of_a_channel_tripled() -> Pair:
    """The scale of one channel of a weight three times too large"""
    changed = _blazeface()
    convolution = changed.node("conv2d_10")
    dequantize = changed.node(convolution.input[1])
    scale = changed.value(dequantize.input[1])
    scale[3] *= 3
    dequantize.input[1] = changed.add("scale_of_a_channel", scale)
    return _beside_float(changed, _weight_at(changed, convolution))


@fault(causes="weights bias", verdicts="fail undecided", tolerated=COARSE)
def bias_dropped_by_the_quantizer() -> Pair:
    """The bias of a quantized convolution is zero"""
    changed = _blazeface()
    convolution = changed.node("conv2d")
    dequantize = changed.node(convolution.input[2])
    dequantize.input[0] = changed.add("no_bias", changed.value(dequantize.input[0]) * 0)
    return _beside_float(changed, _weight_at(changed, convolution, 2))


def _nibbles(exchanged: int = -1) -> File:
    """Weights of minilm's first products of each layer in 4 bits; the halves of each byte exchanged in one layer."""
    changed = file(known("minilm").reference)
    changed.domain()
    block = 32
    for layer in range(LAYERS):
        node = changed.node(f"l{layer}_up_product_MatMul")
        weight = changed.value(node.input[1])
        rows, columns = weight.shape
        blocks = weight.T.reshape(columns, rows // block, block)
        scales = np.abs(blocks).max(-1) / 7
        digits = (np.clip(np.round(blocks / scales[..., None]), -8, 7) + 8).astype(np.uint8)
        low, high = digits[..., 0::2], digits[..., 1::2]
        if layer == exchanged:
            low, high = high, low
        digits_name = changed.add(f"digits{layer}", (low | (high << 4)).astype(np.uint8))
        scales_name = changed.add(f"scales{layer}", scales.astype(np.float32))
        sizes = {"K": rows, "N": columns, "bits": 4, "block_size": block}
        one = made("MatMulNBits", node.input[0], digits_name, scales_name, name=node.name, domain=CONTRIB, **sizes)
        one.output[0] = node.output[0]
        changed.replace(node, one)
    return changed


@healthy("undecided", tolerated=COARSE)
def weights_of_4_bits() -> Pair:
    """Weights of 4 bits in blocks of 32"""
    return beside(known("minilm", 2), _nibbles())


@fault("l2_up_product_MatMul", causes="weights quantization layout", tolerated=COARSE)
def halves_of_bytes_exchanged() -> Pair:
    """Weights of 4 bits, with the halves of each byte exchanged in one layer"""
    return beside(known("minilm", 2), _nibbles(2))


@fault("l2_up_product_MatMul", causes="weights layout")
def halves_of_bytes_exchanged_in_one_of_two() -> Pair:
    """The halves of each byte exchanged in one layer; both files have weights of 4 bits"""
    return pair(_nibbles().proto, _nibbles(2), list(known("minilm", 2).feeds))


def _stored(bits: int, count: int | None = None) -> Pair:
    """Weights of face-landmarks as integers that a Cast and a factor for each channel make numbers of."""
    net = known("face-landmarks", 2)
    changed = file(net.reference)
    greatest = 2 ** (bits - 1) - 1
    done: set[str] = set()
    for node in changed.nodes(("Conv",))[:count]:
        name = node.input[1]
        weight = changed.value(name)
        scale = (np.abs(weight).max((1, 2, 3), keepdims=True) / greatest).astype(np.float32)
        if name not in done:
            done.add(name)
            whole = np.clip(np.round(weight / scale), -greatest - 1, greatest).astype(
                np.int8 if bits == 8 else np.int16
            )
            changed.before(
                node,
                made("Cast", changed.add(f"{name}_whole", whole), name=f"{name}_number", to=onnx.TensorProto.FLOAT),
                made("Mul", f"{name}_number", changed.add(f"{name}_scale", scale), name=f"{name}_scaled"),
            )
        changed.node(node.name).input[1] = f"{name}_scaled"
    return beside(net, changed)


@healthy("undecided", tolerated=COARSE)
def weights_of_8_bits_cast() -> Pair:
    """Weights of 8 bits, made numbers by a Cast and a factor"""
    return _stored(8)


@healthy("undecided pass", tolerated=COARSE)
def weights_of_16_bits_cast() -> Pair:
    """Weights of 16 bits, made numbers by a Cast and a factor"""
    return _stored(16)


@healthy("undecided pass", tolerated=COARSE)
def weight_of_16_bits_cast() -> Pair:
    """One weight of 16 bits, made numbers by a Cast and a factor"""
    return _stored(16, 6)


@healthy("undecided pass", tolerated=COARSE)
def weights_of_16_bits() -> Pair:
    """Weights of 16 bits behind DequantizeLinear"""
    net = known("face-landmarks")
    changed = file(net.reference)
    for imported in changed.proto.opset_import:
        if imported.domain == "":
            imported.version = 21
    for node in changed.nodes(("Conv",)):
        name = node.input[1]
        weight = changed.value(name)
        scale = (np.abs(weight).max((1, 2, 3)) / 32767).astype(np.float32)
        whole = np.clip(np.round(weight / scale[:, None, None, None]), -32768, 32767).astype(np.int16)
        names = (changed.add(f"{node.name}_whole", whole), changed.add(f"{node.name}_scale", scale))
        changed.before(node, made("DequantizeLinear", *names, name=f"{node.name}_weight", axis=0))
        changed.node(node.name).input[1] = f"{node.name}_weight"
    return beside(net, changed)
