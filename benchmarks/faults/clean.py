"""Clean pairs: two forms of one network, or two settings of one runtime, in which nothing is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from benchmarks.kit.networks import NETWORKS, network

from .case import Case
from .edit import Edit
from .rewrites import (
    Rewrite,
    constants_folded,
    constants_rounded,
    folded,
    opset_upgraded,
    quantized_file,
    renamed,
    saved_extended,
    saved_layout,
    typed_fp16,
    typed_proto,
)  # fmt: skip

REWRITES: dict[str, Rewrite] = {
    "bn_folded": folded,
    "renamed": renamed,
    "constants_folded": constants_folded,
    "opset_upgraded": opset_upgraded,
    "typed_fp16": typed_fp16,
    "constants_rounded": constants_rounded,
    "saved_extended": saved_extended,
    "saved_layout": saved_layout,
    "quantized_file": quantized_file,
}
UNCHECKED = frozenset({"saved_extended", "saved_layout"})
"""Files with operators that ONNX's checker does not know."""
LOUD = {"quantized_file": frozenset({"quantization", "narrow-accumulator"})}
"""Causes that are no accusation. Where INT8 is too coarse for a network, the layer that makes most of the error is
named (what to leave in float), though nothing is wrong with it; on a CPU without VNNI, a layer that saturates there."""
SETTINGS: dict[str, tuple[str | None, dict[str, str]]] = {
    "emulated_fp16": ("fp16", {}),
    "emulated_bf16": ("bf16", {}),
    "optimization": (None, {"optimization": "disable"}),
}
TYPED: dict[str, str] = {
    "typed_bn_folded": "bn_folded",
    "typed_renamed": "renamed",
    "typed_opset_upgraded": "opset_upgraded",
    "typed_emulated_fp16": "emulated_fp16",
    "typed_optimization": "optimization",
}
"""Pairs of which both are typed FP16, by what is done to one of them."""
KINDS = (*REWRITES, *SETTINGS, *TYPED)
TITLES = {name: (f.__doc__ or "").strip().rstrip(".") for name, f in REWRITES.items()} | {
    "emulated_fp16": "The whole network in FP16, emulated",
    "emulated_bf16": "The whole network in BF16, emulated",
    "optimization": "ONNX Runtime with all optimizations against none",
}
TITLES |= {name: f"Both typed FP16. {TITLES[done]}" for name, done in TYPED.items()}


def generate(kinds: list[str] | None = None, networks: list[str] | None = None) -> Iterator[Case]:
    """Every clean pair."""
    for name in networks or list(NETWORKS):
        for kind in kinds or KINDS:
            case = _pair(name, kind)
            if case is not None:
                yield case


def _pair(name: str, kind: str) -> Case | None:
    """A network beside another form of itself; None where it has none."""
    original = network(name).proto
    common: dict[str, Any] = {"id": f"{name}/{kind}/0", "network": name, "kind": kind, "what": TITLES[kind]}
    done = TYPED.get(kind, kind)
    reference = typed_proto(original) if kind in TYPED else original
    if reference is None:
        return None
    if done in SETTINGS:
        emulate, runner = SETTINGS[done]
        return Case(reference=reference, candidate=None, emulate=emulate, runner=runner, **common)
    edit = REWRITES[done](Edit(original), np.random.default_rng(len(name)))
    if edit is None:
        return None
    common["causes"] = LOUD.get(kind, frozenset())
    candidate = typed_proto(edit.proto) if kind in TYPED else edit.proto
    assert candidate is not None
    if kind not in UNCHECKED:
        onnx.checker.check_model(candidate, full_check=True)
    return Case(reference=reference, candidate=candidate, **common)
