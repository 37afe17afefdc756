"""What the facts of a culprit call for, whatever its cause: most know it themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...graph.printable import listed
from ..causes import misread
from ..causes.batch_statistics import OfTheBatch
from ..causes.bias import AtTheEnd
from ..causes.disregarded import Disregarded
from ..causes.exchanged_layers import ExchangedWith
from ..causes.feeding import RangeOfAll
from ..causes.folded_padding import PaddedBefore, ShiftInBias
from ..causes.input_stage import Reversed, Scaled, Shifted
from ..causes.integer_pairs import PairsSaturate
from ..causes.limits import OtherLimits
from ..causes.narrow_casts import CastThereAndBack
from ..causes.out_of_range import CarriedPast
from ..causes.quantization import OneScaleForAll
from ..causes.refused import Refused
from ..causes.saturation import BeyondCalibration
from ..causes.scale import Fit
from ..causes.shared_scale import SharedScale
from ..causes.wide_range import Crowded, WiderThanData
from .typed import MOST_TYPED

if TYPE_CHECKING:
    from ..report.model import Culprit, Fact
    from ..sides import Side

SATURATING = (
    "run it with --ort-exact-int8 (session.x64quantprecision of ONNX Runtime), quantize weights to 7 bits "
    "(reduce_range=True), or take a CPU with VNNI or a GPU"
)
"""Where 8-bit kernels of a CPU saturate."""

OF_FACTS: Mapping[type[object], str] = {
    AtTheEnd: (
        "quantize the weights of these channels with a larger scale, since that of the bias follows from it, or leave "
        "the layer in float"
    ),
    ShiftInBias: "shift the input in the second file, too, and take that out of the bias again",
    PaddedBefore: (
        "do not fold into a convolution that pads with zeros, or pad with what the folded nodes make zeros of"
    ),
    CastThereAndBack: (
        "leave out the Casts there and back in the second file, or allow for what they round (--tolerance)"
    ),
    Refused: "look at what the second file has up to the node that is named: it does not take the first file's values",
    OtherLimits: "limit the values in the second file as in the first one, or export the model again",
    PairsSaturate: SATURATING,
    OneScaleForAll: "leave the Concat in floating point, or give each of the tensors as an output of its own",
    RangeOfAll: "quantize with ranges that are calibrated once (static quantization), or feed each entry alone",
    Reversed: "reverse the channels once: in the second file, or in what feeds it",
    Scaled: "normalize the input once: in the second file, or in what feeds it",
    Shifted: "normalize the input once: in the second file, or in what feeds it",
}
"""What a fact calls for, whatever the cause."""

BY_CHANNEL = "quantize the weights with a scale for each output channel (per_channel=True)"
LEVEL = "level the input channels of the weights against the layer before (cross-layer equalization) before quantizing"
"""Where one scale for all channels of weights leaves some of them without values."""

OF_FILES = (Fit, BeyondCalibration)
"""Facts that tell what to do to a second file, which not every candidate has."""


def of_facts(culprit: Culprit, side: Side) -> str:
    """What the first of a culprit's facts that calls for something calls for; empty where none does.

    Args:
        culprit: The culprit.
        side: The candidate.
    """
    read = side.runner.capabilities.any_model  # a program of its own reads no file
    facts = [fact for fact in culprit.facts if read or not isinstance(fact, Disregarded)]
    shown = next(filter(None, map(_of_fact, facts)), "") or misread.remedy(facts)
    if not side.runner.narrows and any(isinstance(f, SharedScale) and f.kind == "weights" for f in facts):
        outputs = any(isinstance(fact, SharedScale) and fact.outputs for fact in facts)
        shown = shown or (BY_CHANNEL if outputs else LEVEL)
    return shown


def _of_fact(fact: Fact) -> str:
    """What one fact calls for by itself; empty where it calls for nothing."""
    if isinstance(fact, OfTheBatch):
        return f"set the {fact.side}'s program to evaluation (model.eval()), and export it again if it is a file"
    if isinstance(told := getattr(fact, "remedy", None), str) and not isinstance(fact, OF_FILES):
        return told
    if isinstance(fact, WiderThanData):
        calibrated = "calibrate on data that are preprocessed as those that are fed: in the same range"
        return calibrated if fact.given else f"quantize '{fact.tensor}' with the range that the data take of it"
    if isinstance(fact, Crowded):
        return (
            f"leave '{fact.tensor}' a float: no scale serves these values and the few that lie far off, as a mask does"
        )
    if isinstance(fact, ExchangedWith):
        them, all_of_them = ("the two", "both") if len(fact.layers) == 2 else ("them", "them all")
        return f"exchange {them} in the second file, or the order in which it splits what makes {all_of_them}"
    if isinstance(fact, CarriedPast) and len(fact.found.heals) > 1:
        told = f"write {listed(fact.found.heals, MOST_TYPED)} in FP32 in the file, with Casts around them"
        return f"{told}: measured, no output is then lost to the range of FP16"
    return OF_FACTS.get(type(fact), "")
