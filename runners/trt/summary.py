"""What is told of an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def fused_note(options: Mapping[str, Any], told: Sequence[tuple[int, Mapping[str, int]]]) -> tuple[str, ...]:
    """How many layers there are before and after fusion (`inspector` says what counts as one), in each profile."""
    nodes, parsed = options.get("nodes"), options.get("layers_computing")
    if not nodes:
        return ()
    before = f"{nodes} ONNX nodes, " + (f"{parsed} layers when parsed" if parsed else "")
    texts = []
    for count, formats in told:
        run = ", ".join(f"{n} in {name}" for name, n in sorted(formats.items(), key=lambda item: -item[1]))
        texts.append(f"{count}{{}}{f' ({run})' if run else ''}")
    what = " layers of the engine"
    if len(set(texts)) == 1:
        after = texts[0].format(what) + (f" in each of its {len(texts)} profiles" if texts[1:] else "")
    else:
        after = "; ".join(f"{text.format('' if i else what)} in profile {i}" for i, text in enumerate(texts))
    return (f"{before.rstrip(', ')}; fused into {after}.",)
