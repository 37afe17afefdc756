"""A network at a glance, on a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.text import Text

from ....graph.formats import FP16
from ....graph.printable import counted
from .folding import say
from .tables import new_table, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from ...overview import Extent, Layer, Overview


OPEN = re.compile(r"unk__\d+")
"""The names that tf2onnx and shape inference give to dimensions of which nothing is known."""
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def show_overview(found: Overview, to: Console) -> None:
    """Prints a network at a glance.

    Args:
        found: The network.
        to: Where it is printed.
    """
    sets = ", ".join(f"{domain or 'opset'} {version}" for domain, version in found.opset.items())
    values, size = found.weights
    by = f", written by {found.producer}" if found.producer else ""
    nodes, weights = counted(found.nodes, "node"), counted(values, "weight")
    say(to, f"{found.source}: {nodes}, {sets}, {weights} in {_bytes(size)}{by}")
    if found.converted:
        runner = {"TFLite": "--tflite", "TensorFlow": "--tf"}[found.converted]
        text = (
            f"a {found.converted} file, shown as the ONNX graph that it is converted to; {runner} runs the file itself"
        )
        say(to, text)
        if any(layer.op in QUANTIZERS for layer in found.layers):
            text = "its scaled integers are those of QuantizeLinear and DequantizeLinear, between operators on floats"
            say(to, text)
    to.print()
    for what, specs in (("input", found.inputs), ("output", [(spec, "") for spec in found.outputs])):
        for spec, implied in specs:
            shown = OPEN.sub("?", str(spec))
            say(to, f"{what:<7}{shown}{f', values in {implied}' if implied else ''}")
    to.print()
    measured = any(layer.extent is not None for layer in found.layers)
    say(to, f"{counted(len(found.layers), 'layer')}, as a runtime is expected to fuse them")
    head = ["layer", "kernel", "makes", "weights", "weights in"]
    table = new_table(*head, *(["values in"] if measured else []))
    for layer in found.layers:
        table.add_row(Text(layer.name), *map(Text, _told(layer, measured)))
    print_table(table, to)


def _told(layer: Layer, measured: bool) -> list[str]:
    shape = "" if layer.spec is None else OPEN.sub("?", str(layer.spec).rpartition(" (")[2].rstrip(")"))
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
