"""Layers and culprits on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from ....graph.printable import counted, share_of
from .folding import say
from .numbers import number
from .plan import show_remedy
from .tables import new_table, print_table

if TYPE_CHECKING:
    from ..model import LayerResult, Report


WORTH_LEAVING_OUT = 0.05
"""Contribution from which on a layer is listed among those that a quantizer should leave out."""


_COLUMNS = (
    "local: fed the reference's values; cumulative: fed the candidate's own; z: the local error over the expected one, "
    "root mean square; of bound: the greatest share of the most that rounding can do to an element; contribution: "
    "the error at the outputs with this layer alone on the candidate, as a share of the candidate's"
)
"""What the columns of the layers say."""


def show_layers(report: Report, to: Console, verbose: bool) -> None:
    """The culprits, most guilty first; the layers themselves on request."""
    if not report.layers and not report.culprits:
        return
    to.print()
    if not report.culprits:
        layers = {(tuple(e.node for e in layer.inside), layer.node) for layer in report.layers}
        candidates = len({layer.candidate for layer in report.layers})
        on = f" ({candidates} candidates)" if candidates > 1 else ""
        if any(output.verdict == "undecided" for output in report.outputs):
            say(to, f"{counted(len(layers), 'layer')}{on}: none errs by more than its number format explains")
        else:
            say(to, f"no culprit among {counted(len(layers), 'layer')}{on}")
    for rank, culprit in enumerate(report.culprits[:5], 1):
        share = (
            "" if culprit.contribution is None else f", {share_of(culprit.contribution)} of the error at the outputs"
        )
        where = "".join(f" {enclosing}" for enclosing in reversed(culprit.inside))
        found = f"{culprit.node} ({culprit.op}){where} on {culprit.candidate}: {culprit.cause}{share}"
        if culprit.cause == "spread":
            say(to, Text.assemble(("no culprit: ", "bold"), f"the error of {culprit.candidate} is spread"))
        elif culprit.deployed is False:
            found = f"{culprit.node} ({culprit.op}){where} on {culprit.candidate}: {culprit.cause}, in pieces only"
            say(to, Text.assemble((f"culprit {rank}: ", "bold yellow"), found))
        else:
            say(to, Text.assemble((f"culprit {rank}: ", "bold red"), found))
        if culprit.origin:
            say(to, f"  from {culprit.origin}")
        say(to, f"  {culprit.evidence}")
        show_remedy(culprit, to)
    if len(report.culprits) > 5:
        say(to, f"and {len(report.culprits) - 5} more culprits (--json has all)")
    undecided = [o.candidate for o in report.outputs if o.verdict == "undecided"]
    if undecided and report.layers and report.layers[0].candidate == report.runners[0].name:
        undecided.append(report.runners[0].name)  # a reference that is held against the candidates
    for candidate in dict.fromkeys(undecided):
        _show_costliest(report, candidate, to)
    if verbose and report.layers:
        numbers = ("local rel L2", "cumulative rel L2", "z", "of bound", "contribution")
        many = len({layer.candidate for layer in report.layers}) > 1
        table = new_table(*(["candidate"] if many else []), "layer", "op", "verdict", *numbers)
        for layer in report.layers:
            table.add_row(
                *([Text(layer.candidate)] if many else []),
                Text(layer.path),
                layer.op,
                layer.verdict,
                number((layer.local or {}).get("rel_l2")),
                number((layer.cumulative or {}).get("rel_l2")),
                number((layer.expected or {}).get("rms_z")),
                number((layer.expected or {}).get("bound_use")),
                number(layer.contribution),
            )
        print_table(table, to, names=1 + many)
        say(to, _COLUMNS, "dim")


def _show_costliest(report: Report, candidate: str, to: Console) -> None:
    """The layers that cost undecided outputs most, and the quantizer's option that leaves them out."""
    layers = report.costliest(candidate)
    if not layers:
        return
    measure = "what each alone makes there, as a share of the whole error; these do not add up"
    say(to, f"the layers that cost the outputs of {candidate} most ({measure})")
    table = new_table("  layer", "op", "contribution", "SNR of the layer")
    for layer in layers:
        snr = (layer.local or {}).get("snr_db")
        share = share_of(layer.contribution or 0.0)
        table.add_row(Text(f"  {layer.node}"), layer.op, share, "-" if snr is None else f"{snr:.1f} dB")
    print_table(table, to)
    costly = [layer for layer in layers if (layer.contribution or 0) >= WORTH_LEAVING_OUT and layer.quantized]
    if costly:
        say(to, f"to leave them in floating point: {_leaving_out(report, costly)}")


def _leaving_out(report: Report, layers: Sequence[LayerResult]) -> str:
    """The option that leaves layers in floating point: of TFLite's converter for its files, else of ONNX Runtime's."""
    runner = next((r for r in report.runners if r.name == layers[0].candidate), None)
    if runner is None or not (runner.source or "").endswith(".tflite"):
        return f"nodes_to_exclude={[name for layer in layers for name in layer.quantized]!r}"
    names = [layer.candidate_tensor or layer.tensor for layer in layers]
    return f"tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes={names!r})"


def show_fidelity(report: Report, to: Console) -> None:
    """How much of the deployed candidates the layers above show, one line for each: that of its worst output."""
    for candidate in dict.fromkeys(f.candidate for f in report.fidelity):
        found = [f for f in report.fidelity if f.candidate == candidate]
        worst = max(found, key=lambda f: (not f.bit_identical, abs((f.share or 0.0) - 1.0)))
        runner = next((r for r in report.runners if r.name == candidate), None)
        twice = runner.repeat if runner is not None else None
        if worst.bit_identical:
            text = f"the layer-by-layer run of {candidate} gives the outputs of the deployed run, bit for bit"
        elif worst.share is None:
            text = (
                f"how much of the real error at {worst.tensor} the layer-by-layer run of {candidate} shows is unknown"
            )
        elif not worst.deployed_error:
            text = f"the layer-by-layer run of {candidate} has no error, as the deployed one"
        else:
            layered, whole = number(worst.observed_error), number(worst.deployed_error)
            error = f"a relative L2 error of {layered} at {worst.tensor}, and of {whole} as deployed"
            text = f"run layer by layer, {candidate} has {error} (not bit-identical)"
        if twice is not None and not twice["bit_identical"]:
            text += f"; run twice, {candidate} gives other bits"
        say(to, text, "dim")
