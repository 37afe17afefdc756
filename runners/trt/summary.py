"""What is told of an engine: its layers, the formats that they run in, and how they add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...graph.printable import counted
from ..contract.session import SessionInfo
from .inspector import EngineLayer, accumulators, by_profile, computing, formats, fp16_accumulation


def as_engine(info: SessionInfo, layers: Sequence[EngineLayer]) -> SessionInfo:
    """``info`` with what the engine turned out to be: a mode that was allowed need not have been used."""
    each = [(computing(p), formats(p), accumulators(p)) for p in by_profile(layers)] or [(0, {}, {})]
    count, used, adders = each[0]
    options = {**info.options, "layers_engine": count, "formats": used, "accumulators": adders}
    if len(each) > 1:
        options["by_profile"] = [{"layers_engine": c, "formats": f, "accumulators": a} for c, f, a in each]
    notes = tuple(
        f"No layer of the engine runs in {m.upper()}: TensorRT found other formats faster." for m in unused(options)
    )
    if narrow := sum(a.get("FP16", 0) for _, _, a in each):
        products = sum(sum(a.values()) for _, _, a in each)
        if all(a == adders for _, _, a in each):
            narrow, products = adders["FP16"], sum(adders.values())
        notes += (
            f"{narrow} of {products} matrix products add in FP16, as TensorRT chose their kernels: "
            "that makes more noise than rounding to FP16 does.",
        )
    fused = fused_note(info.options, [(c, f) for c, f, _ in each])
    return replace(
        info, options=options, notes=(*info.notes, *fused, *notes), fp16_accumulation=fp16_accumulation(layers)
    )


def unused(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The modes that were asked for and that no layer of an engine runs in, in any of its profiles.

    Args:
        options: Those of its `SessionInfo`, as `as_engine` leaves them.
    """
    used = [options.get("formats") or {}, *(profile["formats"] for profile in options.get("by_profile", ()))]
    asked = [mode for mode in map(str, options.get("modes", ())) if mode in ("fp16", "bf16", "int8", "fp8")]
    return tuple(mode for mode in asked if any(used) and not any(mode.upper() in formats for formats in used))


def fused_note(options: Mapping[str, Any], each: Sequence[tuple[int, Mapping[str, int]]]) -> tuple[str, ...]:
    """How many layers there are before and after fusion (`inspector` says what counts as one), in each profile."""
    nodes, parsed = options.get("nodes"), options.get("layers_computing")
    if not nodes:
        return ()
    before = f"{counted(nodes, 'ONNX node')}, " + (f"{counted(parsed, 'layer')} when parsed" if parsed else "")
    texts = []
    for count, used in each:
        run = ", ".join(f"{n} in {name}" for name, n in sorted(used.items(), key=lambda item: -item[1]))
        texts.append(f"{count}{{}}{f' ({run})' if run else ''}")
    what = f" {'layer' if each[0][0] == 1 else 'layers'} of the engine"
    if len(set(texts)) == 1:
        after = texts[0].format(what) + (f" in each of its {len(texts)} profiles" if texts[1:] else "")
    else:
        after = "; ".join(f"{text.format('' if i else what)} in profile {i}" for i, text in enumerate(texts))
    return (f"{before.rstrip(', ')}; fused into {after}.",)
