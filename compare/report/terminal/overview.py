"""A network at a glance, on a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ....graph.formats import FP16
from .numbers import NARROW

if TYPE_CHECKING:
    from rich.console import Console

    from ...overview import Extent, Layer, Overview


def show_overview(found: Overview, to: Console) -> None:
    """Prints a network at a glance.

    Args:
        found: The network.
        to: Where it is printed.
    """
    sets = ", ".join(f"{domain or 'opset'} {version}" for domain, version in found.opset.items())
    values, size = found.weights
    by = f", written by {found.producer}" if found.producer else ""
    to.print(f"{found.source}: {found.nodes:,} nodes, {sets}, {values:,} weights in {_bytes(size)}{by}", markup=False)
    to.print()
    for what, specs in (("input", found.inputs), ("output", [(spec, "") for spec in found.outputs])):
        for spec, implied in specs:
            to.print(f"{what:<7}{spec}{f', values in {implied}' if implied else ''}", markup=False, soft_wrap=True)
    to.print()
    measured = any(layer.extent is not None for layer in found.layers)
    to.print(f"{len(found.layers):,} layers, as a runtime is expected to fuse them")
    if to.width < NARROW:
        for layer in found.layers:
            to.print(f"  {layer.name} ({layer.op})", markup=False, soft_wrap=True)
            to.print(f"    {'; '.join(filter(None, _told(layer, measured)))}", markup=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    head = ["layer", "kernel", "makes", "weights", "weights in"]
    for name in (*head, "values in") if measured else head:
        table.add_column(name, overflow="fold")
    for layer in found.layers:
        table.add_row(Text(layer.name), *map(Text, _told(layer, measured)))
    to.print(table)


def _told(layer: Layer, measured: bool) -> list[str]:
    # dimensions that shape inference cannot tell have names such as unk__0
    shape = "" if layer.spec is None else re.sub(r"unk__\d+", "?", str(layer.spec).rpartition(" (")[2].rstrip(")"))
    cells = [
        "+".join(layer.nodes),
        shape,
        f"{layer.weights:,}" if layer.weights else "",
        _range(layer.weight_extent),
    ]
    return [*cells, _range(layer.extent)] if measured else cells


def _range(extent: Extent | None) -> str:
    """An extent, with a word where FP16 cannot hold it."""
    if extent is None:
        return ""
    text = f"{extent.lo:.4g} to {extent.hi:.4g}"
    if extent.not_finite:
        text += f", {extent.not_finite:,} not finite"
    return f"{text} (beyond FP16)" if max(-extent.lo, extent.hi) > FP16.max else text


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size:.0f} bytes"
        size /= 1000
    return f"{size:.3g} GB"
