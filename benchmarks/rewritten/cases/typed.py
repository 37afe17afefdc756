"""Files typed FP16, as onnxconverter-common writes them."""

from __future__ import annotations

import warnings

import onnx

from benchmarks.trained import Unavailable

from ..expectation import Pair, fault, healthy
from ..writing import beside, known

ROUNDING = "spread"


def _typed(name: str, samples: int | None = 2, *, optimize: bool = True) -> Pair:
    try:
        from onnxconverter_common import float16
    except ImportError as error:
        raise Unavailable("onnxconverter-common writes these files: pip install onnxconverter-common.") from error
    net = known(name, samples)
    copy = onnx.ModelProto()
    copy.CopyFrom(net.reference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        typed = float16.convert_float_to_float16(copy, keep_io_types=True)
    return beside(net, typed, optimize=optimize)


@healthy("pass undecided", tolerated=ROUNDING)
def typed_voice_encoder() -> Pair:
    """voice-encoder: LSTMs, and a norm of rectified values that some are near zero of"""
    return _typed("voice-encoder", None)


@healthy("pass undecided", tolerated=ROUNDING)
def typed_voice_encoder_as_written() -> Pair:
    """The same, computed as it is written"""
    return _typed("voice-encoder", None, optimize=False)


@healthy("pass undecided", tolerated=ROUNDING)
def typed_wakeword_embedding() -> Pair:
    """wakeword-embedding: convolutions"""
    return _typed("wakeword-embedding")


@healthy("pass undecided", tolerated=ROUNDING)
def typed_blazeface() -> Pair:
    """blazeface: depthwise convolutions"""
    return _typed("blazeface")


@healthy("pass undecided", tolerated=ROUNDING)
def typed_face_landmarks() -> Pair:
    """face-landmarks: depthwise convolutions with PRelu"""
    return _typed("face-landmarks")


@healthy("pass undecided", tolerated=ROUNDING)
def typed_plcmos() -> Pair:
    """plcmos: convolutions and an LSTM"""
    return _typed("plcmos")


@healthy("pass undecided", tolerated=ROUNDING)
def typed_g2pm() -> Pair:
    """g2pm: a bidirectional LSTM"""
    return _typed("g2pm")


@fault("*_BatchNormalization", causes="weights")
def typed_deepcut() -> Pair:
    """deepcut: variances of 13,600, which the tool cuts off at 10,000"""
    return _typed("deepcut")
