"""What the user should know of layers: one function for each notice, which makes its text."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...graph.errors import LayerdiffError, first_line, may_be_of_sizes
from ...graph.printable import counted, few, in_one_line, quoted, share_of
from ..report.model import Fidelity, Notice
from ..sides import Side

LAYERS_TURNED_ROUND = "layers-turned-round"
"""Code of the notice of a quantized reference that is held against a candidate in floating point."""


def layers_not_seen(candidate: str) -> Notice:
    """The layers of a candidate whose runtime opens no pieces of a model were not looked at."""
    return Notice(
        "layers-not-seen", candidate, f"{candidate} runs no pieces of a model: its layers were not looked at."
    )


def layers_swapped(candidate: str, reference: str) -> Notice:
    """The layers of the reference were run on tensors of the candidate, since the candidate runs no layer alone."""
    text = (
        f"{candidate} runs no layer alone: each layer of {reference} was fed what it had there and held against that."
    )
    return Notice("layers-swapped", candidate, text)


def layers_turned_round(candidate: Side, reference: Side) -> Notice:
    """The reference is quantized, and the candidate takes its place in what is said of layers."""
    first, second = candidate.model.label, reference.model.label
    text = (
        f"{second} is quantized where {first} computes in floating point: its layers are held against those of {first}."
        f" Errors and contributions of layers are those of {second} then; culprits are told of {first} all the same."
    )
    return Notice(LAYERS_TURNED_ROUND, candidate.name, text)


def depends_on_feeding(candidate: str, fed: str, layer: str, difference: float) -> Notice:
    """The first layer whose result is not the same bit by bit where the network is fed otherwise."""
    text = f"{candidate}, fed {fed}: the first layer that does not give the same bits is {layer}, by {difference:.2g}."
    return Notice("depends-on-feeding", candidate, text)


def layers_stood_in_for(reference: str, model: str) -> Notice:
    """A reference that gives outputs alone was stood in for, layer by layer, by ONNX Runtime."""
    text = f"{reference} gives outputs alone: layers were held against ONNX Runtime on {model}."
    return Notice("layers-stood-in-for", reference, text)


def updates_collide(candidate: str, layer: str, updates: int, places: int, adds: bool) -> Notice:
    """A scatter writes several updates to one place."""
    what = "order in which they are combined" if adds else "one of them that stays"
    where = f"{layer} writes {updates:,} updates to {places:,} places, and the {what} is not defined"
    text = f"{where}: a runtime need not give the same bits twice, and two runtimes may differ."
    return Notice("updates-collide", candidate, text)


def layers_not_compared(candidate: str, error: Exception, guessed: Collection[str] = ()) -> Notice:
    """Localizing failed; the verdict on the outputs stays. It may be for sizes of inputs, where some were guessed."""
    what = first_line(error)
    if not isinstance(error, LayerdiffError) and what != type(error).__name__:
        what = f"{type(error).__name__}: {what}"
    text = f"{candidate}: the layers could not be compared, the outputs were: {what}."
    if guessed and may_be_of_sizes(error):
        options = " ".join(f"--shape {name}:DIMS" for name in guessed)
        text += f" Sizes were guessed that it may not take: give others with {options}."
    return Notice("layers-not-compared", candidate, text)


def walk_stopped(candidate: str, piece: int, error: Exception) -> Notice:
    """A candidate cannot go on on its own values: from there on there are no cumulative errors."""
    return Notice(
        "walk-stopped", candidate, f"{candidate} stopped at piece {piece} on its own values: {in_one_line(error)}"
    )


def layer_too_large(candidate: str, allowed: str, needed: str, times: int, layer: str, others: str) -> Notice:
    """A layer needs more memory than is allowed."""
    text = f"{allowed} is less than the largest layer needs: {needed}, {times} times its tensors and weights ({layer})."
    return Notice("layer-too-large", candidate, text + others)


def outputs_agree(candidate: str, layers: Sequence[str], count: int) -> Notice:
    """Layers are guilty, and no output fails; the first of them are named."""
    more = ", ..." if count > len(layers) else ""
    text = f"the outputs agree, but {counted(count, 'layer does', 'layers do')} not: {', '.join(layers)}{more}."
    return Notice("outputs-agree", candidate, f"{candidate}: {text}")


def no_result(candidate: str, layer: str, what: str) -> Notice:
    """Both sides give NaN for inputs that were guessed, or hold NaN themselves.

    Args:
        candidate: Who was walked beside the reference.
        layer: Where NaN begins.
        what: How many there are.
    """
    text = f"{what}, first at {layer}: look at the inputs, guessed or NaN themselves; no culprit is reported for that."
    return Notice("no-result", candidate, f"{candidate}: {text}")


def read_otherwise(candidate: str, what: str, more: int) -> Notice:
    """Integers that are written with one scale and read with another, where no layer is to blame for it.

    Args:
        candidate: Whose file it is.
        what: What is written and what is read.
        more: How many others there are.
    """
    others = f" So {'is' if more == 1 else 'are'} {counted(more, 'more tensor')}." if more else ""
    text = f"{candidate}: {what}; in no layer that makes more than rounding explains.{others}"
    return Notice("read-otherwise", candidate, text)


def other_number(candidate: str, node: str, what: str, more: int) -> Notice:
    """A number that differs between the two files, where the error that it makes is none beyond rounding.

    Args:
        candidate: Whose file it is.
        node: Operator and name of the node.
        what: The two values.
        more: How many others there are.
    """
    others = f" So it is at {counted(more, 'more node')}." if more else ""
    text = (
        f"{node} differs in the candidate's file, {what}; the error that this makes here is within what rounding "
        f"explains, and other inputs may show more of it.{others}"
    )
    return Notice("other-number", candidate, f"{candidate}: {text}")


def layer_not_built(candidate: str, layer: str, others: int, what: str) -> Notice:
    """Layers that the candidate runs in the whole model, and cannot open by themselves.

    Args:
        candidate: Who.
        layer: The first of them.
        others: How many more there are.
        what: What it said of the first.
    """
    more = f", and neither were {counted(others, 'more layer', 'more layers')}" if others else ""
    text = f"{layer} was not compared{more}: {what.rstrip('.')}."
    return Notice("layer-not-built", candidate, f"{candidate}: {text}")


def no_counterpart(
    candidate: str, names: Sequence[str], owner: str = "the reference", other: str = "the candidate"
) -> Notice:
    """Tensors that one side alone has; the first of them are named.

    Args:
        candidate: Who is judged.
        names: The tensors.
        owner: What they are tensors of.
        other: What does not have them.
    """
    count = counted(len(names), "tensor", "tensors")
    tensors = f"{count} of {owner} ({few([*map(repr, names)], 3)}) {'has' if len(names) == 1 else 'have'}"
    them = "it was" if len(names) == 1 else "they were"
    text = f"{tensors} no counterpart in {other}: {them} not compared, the tensors before and behind were."
    return Notice("no-counterpart", candidate, f"{candidate}: {text}")


def healed(candidate: str, count: int) -> Notice:
    """Tensors that differ without consequence."""
    text = (
        f"{counted(count, 'tensor differs', 'tensors differ')}, but the next layers agree again (one name for two "
        "values, or a value that does not matter); no culprit is reported for that."
    )
    return Notice("healed", candidate, f"{candidate}: {text}")


def contradicts_itself(recording: str, given: Sequence[str], made: Sequence[str], by: str) -> Notice:
    """Tensors of a recording do not follow from others of it, which whoever runs the network makes otherwise."""
    text = (
        f"{recording} contradicts itself: from what it holds as {quoted(given[:3])}, {by} makes another "
        f"{quoted(made[:3])} than it holds, and run by itself the same: record all tensors in one run."
    )
    return Notice("contradicts-itself", recording, text)


def clamped(candidate: str, layer: str, what: str, others: int, agree: bool) -> Notice:
    """Values that the candidate's format does not reach and that nothing behind them depends on: a mask's, mostly."""
    why = "the outputs agree all the same" if agree else "nothing of that reaches the outputs"
    more = f" So it is at {counted(others, 'more layer', 'more layers')}." if others else ""
    return Notice("clamped", candidate, f"{candidate}: at {layer}, {what}; {why}, so the layer is no culprit.{more}")


def hold_as_one_kernel(candidate: str, layers: Sequence[str], what: str, shown_by: str) -> Notice:
    """Layers that are right only as long as each is one kernel, with a wider format inside.

    Args:
        candidate: Who runs them.
        layers: Their names.
        what: What the first of them would lose.
        shown_by: What ``--emulate`` takes to show that case; empty where nothing does.
    """
    others = f" (and of {len(layers) - 1} more: {', '.join(layers[1:4])})" if len(layers) > 1 else ""
    text = (
        f"that the layer of {layers[0]}{others} is right rests on its being one kernel, which computes in FP32 inside. "
        + (
            f"Node by node it is wrong: {what}. --emulate={shown_by} shows that case."
            if shown_by
            else f"With the narrow format inside it is wrong: {what}."
        )
    )
    return Notice("one-kernel", candidate, f"{candidate}: {text}")


def random_values(candidate: str, layer: str, others: int, removable: bool) -> Notice:
    """Layers that draw random values. ``removable``: whether that is a Dropout, which draws unless it is removed."""
    who = f"{layer} and {counted(others, 'other layer')} draw" if others else f"{layer} draws"
    what = f"{who} random values{' unless the runtime removes it' if removable else ''}"
    return Notice(
        "random-values", candidate, f"{candidate}: {what}; behind it the candidate was given the reference's."
    )


def noise_unknown(candidate: str, layer: str, count: int, why: str) -> Notice:
    """Layers that no expected noise can be found for."""
    unknown = f"the expected noise of {counted(count, 'layer')} is unknown (first {layer})"
    return Notice("noise-unknown", candidate, f"{candidate}: {unknown}: {why.rstrip('.')}.")


def other_branch(candidate: str, node: str, condition: str) -> Notice:
    """A condition that comes out otherwise when the candidate runs on its own values."""
    text = (
        f"{candidate}: {node} (If) does not always take the branch that it takes in the reference: on its own values "
        f"the candidate finds another {condition!r}."
    )
    return Notice("other-branch", candidate, text)


def other_program(found: Fidelity) -> Notice:
    """The run in pieces errs where the deployed one does not."""
    where = f"{found.candidate}: run in pieces, the error at {found.tensor!r} is {found.observed_error:.2g}"
    return Notice("fidelity", found.candidate, f"{where}, and the deployed one has none: this is another program.")


def runs_differ(found: Fidelity) -> Notice:
    """The run in pieces and the deployed one err differently, of a runtime that does not repeat itself."""
    observed, deployed = (_size(e) for e in (found.observed_error, found.deployed_error))
    errors = f"the error at {found.tensor!r} is {observed} in pieces and {deployed} as deployed"
    text = f"{found.candidate}: {errors}; since not every run gives the same bits, that may be chance."
    return Notice("fidelity", found.candidate, text)


def unlike_deployed(found: Fidelity, share: float, much: bool) -> Notice:
    """The run in pieces shows much less of the deployed error than there is, or much more."""
    why = "layers show errors that it does not make" if much else "layers explain it in part only"
    if share < 0.005:
        why = "layers explain nothing of it"
    size = f"{share:.3g} times" if much else f"{share_of(share)} of"
    text = f"{found.candidate}: run in pieces, the error at {found.tensor!r} is {size} the deployed one: {why}."
    return Notice("fidelity", found.candidate, text)


def _size(error: float | None) -> str:
    return "not finite" if error is None else f"{error:.2g}"
