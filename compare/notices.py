"""What the user should know beside the verdict: one function for each notice, which makes its text."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from ..graph.errors import LayerdiffError, OutputError, first_line, may_be_of_sizes, said
from ..graph.printable import counted
from .journal.journal import Journal
from .report.model import AccuracyResult, Fidelity, Notice, OutputResult, Report

NOT_WRITTEN = "not-written"
STAGE_FAILED = "stage-failed"
"""Code of the notice of a file that cannot be written: the verdict stands, and the command ends as for wrong usage."""
SIZE_REFUSED = "size-refused"
"""Code of the notice of a guessed size that a runner refused; its subject is what ``--shape`` takes."""
INPUT_NOT_FINITE = "input-not-finite"
"""Code of the notice of an input that holds NaN or infinities; its subject is the input."""
INPUT_CONSTANT = "input-constant"
"""Code of the notice of an input that holds one value throughout; its subject is the input."""
CHANCE = 0.5
"""Share of a candidate's error from which on what it does not repeat may be all there is."""


def input_ignored(model: str, inputs: Sequence[str]) -> Notice:
    """A second file does not take all inputs of the first."""
    return Notice("input-ignored", model, f"{model} does not take {_quoted(inputs)}.")


def shard(index: int, count: int) -> Notice:
    """A share of the samples was run."""
    text = f"This is share {index} of {count}. layerdiff merge makes the report on all samples of all shares."
    return Notice("shard", f"{index}/{count}", text)


def worker_died(what: str, deaths: int) -> Notice:
    """A worker of a cluster died, and its work was done again.

    Args:
        what: What it ran.
        deaths: How many workers it cost.
    """
    workers = "A worker" if deaths == 1 else f"{deaths} workers"
    return Notice("worker-died", what, f"{workers} of the cluster died on {what}, which was run again.")


def input_cast(model: str, name: str, given: str, taken: str) -> Notice:
    """An input of a second file has another floating type than the first file's."""
    return Notice("input-cast", model, f"{name!r} is {given} in the first file, and cast to {taken} for {model}.")


def cast_and_back(model: str, makers: Sequence[str], formats: Sequence[str]) -> Notice:
    """A second file casts tensors to a narrow format and back that the first has as they are."""
    more = f" and {counted(len(makers) - 1, 'more tensor')}" if len(makers) > 1 else ""
    text = f"{model} casts {makers[0]}{more} to {' and '.join(formats)} and back, which the first file does not: what"
    return Notice("cast-and-back", model, f"{text} that rounds is part of the expected error.")


def input_not_finite(name: str, nan: int, infinite: int, samples: Collection[int], first: Sequence[int]) -> Notice:
    """An input holds values that are NaN or infinite, and every side was fed them.

    Args:
        name: The input.
        nan: How many are NaN.
        infinite: How many are infinite.
        samples: The numbers of the samples that hold some.
        first: The index of the first of them.
    """
    kinds = [f"{nan:,} NaN"] * bool(nan) + [counted(infinite, "infinity", "infinities")] * bool(infinite)
    where = f"{'at' if nan + infinite == 1 else 'first at'} {list(first)} of sample {min(samples)}"
    over = f" in {len(samples):,} samples" if len(samples) > 1 else ""
    text = f"The input {name!r} itself holds {' and '.join(kinds)}{over}, {where}; every side was given that."
    return Notice(INPUT_NOT_FINITE, name, text)


def input_of_one_value(name: str, value: float) -> Notice:
    """An input of the user's data holds one value throughout, in all samples."""
    text = f"The input {name!r} is {value:.6g} throughout, in all samples: agreement on it proves little."
    return Notice(INPUT_CONSTANT, name, text)


def inputs_blank(names: Sequence[str], nan: bool) -> Notice:
    """All floating-point inputs of the user's data are zero throughout, or NaN."""
    what = f"The input {names[0]!r} is" if len(names) == 1 else f"The inputs {_quoted(names)} are"
    value = "zero or NaN" if nan else "zero"
    text = f"{what} {value} throughout, in all samples: agreement on that proves nothing."
    return Notice(INPUT_CONSTANT, names[0], text)


def outputs_unfolded(model: str, names: Sequence[str]) -> Notice:
    """Outputs of a file are sequences or maps."""
    what = "is a sequence or a map, and is" if len(names) == 1 else "are sequences or maps, and are"
    return Notice("outputs-unfolded", model, f"{model}: {_quoted(names)} {what} compared as tensors.")


def outputs_unmatched(model: str, missing: Sequence[str], extra: Sequence[str], options: str) -> Notice:
    """A second file has outputs of other names."""
    text = f"{model} has no output {_quoted(missing)} and gives {_quoted(extra)} instead."
    return Notice("outputs-unmatched", model, f"{text} If they are the same: {options}")


def layout_unlike(model: str, input: str, first: str, other: str, option: str) -> Notice:
    """An input of a second file has open dimensions, and the fixed ones where the first file has others."""
    text = f"{model} takes {input}, and {first} takes {other}. If that is another layout: {option}"
    return Notice("layout-unlike", model, text)


def outputs_exchanged(candidate: str, held: Mapping[str, str], options: str) -> Notice:
    """Outputs carry each other's names."""
    pairs = ", ".join(f"{name!r} here is {other!r} there within 10 %" for name, other in held.items())
    meant = f" If that is meant: {options}" if options else ""
    return Notice("outputs-exchanged", candidate, f"{candidate}: the outputs are exchanged, {pairs}.{meant}")


def engine_not_run(engine: str, reference: str, source: str) -> Notice:
    """The reference is the model that an engine was built from, and nobody runs the engine itself."""
    text = f"{engine} itself was not run: the reference is {reference} on {source}. --trt alone compares two engines."
    return Notice("engine-not-run", engine, text)


def reference_replaced(failed: str, by: str) -> Notice:
    """The most trusted runner failed before anything was compared."""
    return Notice("reference-replaced", failed, f"{failed} failed; {by} is the reference instead.")


def reference_not_run(runner: str, why: str, by: str | None) -> Notice:
    """The most trusted runner took the network and cannot run it.

    Args:
        runner: Its name.
        why: Why not.
        by: Who is the reference instead; None: there was nobody left to compare.
    """
    instead = "nothing was compared with it" if by is None else f"{by} is the reference instead"
    return Notice("reference-not-run", runner, f"{runner} was not run: {why}; {instead}.")


def size_refused(
    runner: str, guessed: Mapping[str, tuple[int, ...]], taken: Mapping[str, tuple[int, ...]]
) -> Iterator[Notice]:
    """A runner refuses sizes that were guessed, and others were run; of each input whose shape is another one."""
    for name, shape in guessed.items():
        other = taken[name]
        off = [str(size) for size, instead in zip(shape, other, strict=True) if size != instead]
        if off:
            option = f"{name}:{'x'.join(map(str, other))}"
            was = f"{' and '.join(off)} {'was a guess' if len(off) == 1 else 'were guesses'}"
            told = f"{runner} refuses {name!r} of {'x'.join(map(str, shape))}, where {was}"
            text = f"{told}; {'x'.join(map(str, other))} was run instead (--shape {option})."
            yield Notice(SIZE_REFUSED, option, text)


def sizes_unfit(runner: str, guessed: Mapping[str, tuple[int, ...]]) -> Notice:
    """A runner failed at sizes that were guessed, and at all others that were tried."""
    sizes = ", ".join(f"{name!r} of {'x'.join(map(str, shape))}" for name, shape in guessed.items())
    told = " ".join(f"--shape {name}:DIMS" for name in guessed)
    text = (
        f"{runner} failed at sizes that were guessed ({sizes}), and at others. Give its own, if these are why: {told}."
    )
    return Notice("sizes-unfit", runner, text)


def left_out(runner: str, error: LayerdiffError) -> Notice:
    """A runner cannot open the second file."""
    return Notice("left-out", runner, f"{runner} was left out: {_in_one_line(error)}")


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


def depends_on_feeding(candidate: str, fed: str, layer: str, difference: float) -> Notice:
    """The first layer whose result is not the same bit by bit where the network is fed otherwise."""
    text = f"{candidate}, fed {fed}: the first layer that does not give the same bits is {layer}, by {difference:.2g}."
    return Notice("depends-on-feeding", candidate, text)


def layers_stood_in_for(reference: str, model: str) -> Notice:
    """A reference that gives outputs alone was stood in for, layer by layer, by ONNX Runtime."""
    text = f"{reference} gives outputs alone: layers were held against ONNX Runtime on {model}."
    return Notice("layers-stood-in-for", reference, text)


def interrupted(during: str) -> Notice:
    """The run was interrupted, and the report holds what was found until then."""
    return Notice("interrupted", "", f"Interrupted while {during}: the report holds what was found until then.")


def stage_failed(during: str, error: Exception) -> Notice:
    """A fault of this program, after the verdict was found."""
    what = ": ".join(filter(None, (type(error).__name__, said(error).split("\n", 1)[0].rstrip("."))))
    return Notice(STAGE_FAILED, "", f"Unexpected error while {during}, {what}: the verdict stands.")


def not_written(error: OutputError) -> Notice:
    """A file that was asked for beside the reports cannot be written."""
    return Notice(NOT_WRITTEN, "", _in_one_line(error))


def journal(kept: Journal) -> Iterator[Notice]:
    """The folder in which results are kept holds some that are not believed, or takes none any more."""
    entries = f"{kept.damaged:,} damaged {'entry' if kept.damaged == 1 else 'entries'}" if kept.damaged else ""
    others = "results of other versions or of another machine" if kept.other else ""
    ignored = " and ".join(filter(None, (entries, others)))
    if ignored:
        text = f"--resume {kept.folder} holds {ignored}, which were not used."
        yield Notice("journal-ignored", str(kept.folder), text)
    if kept.lost:
        text = f"--resume {kept.folder} cannot be written: {kept.lost}. What was finished since then is not kept."
        yield Notice("journal-lost", str(kept.folder), text)


def not_timed(runner: str) -> Notice:
    """A latency was asked for of a model that is run in pieces."""
    return Notice("not-timed", runner, f"{runner} was not timed: its weights do not fit in memory.")


def not_computed(runner: str) -> Notice:
    """A latency was asked for of outputs that were recorded."""
    return Notice("not-timed", runner, f"{runner} was not timed: its outputs were recorded, nothing is computed.")


def nothing_applied(path: str) -> Notice:
    """A network with remedies was asked for, and there is nothing to mend or no remedy that is not a precision."""
    text = (
        f"{path} was not written: no layer could be rescaled and no constant replaced so that the outputs are better."
    )
    return Notice("nothing-applied", path, text)


def fix_interrupted(path: str, resume: str | None, on_cluster: bool = False) -> Notice:
    """The search for a plan was interrupted."""
    kept = "with --resume DIR its runs would be kept" if resume is None else f"the same command goes on from {resume}"
    if on_cluster:
        kept = "without --ray, --resume DIR would keep its runs"
    return Notice("fix-interrupted", path, f"The search for a plan was interrupted; {kept}.")


def other_dtype(
    candidate: str, tensor: str, dtype: str, expected: str, undeclared: tuple[str, str, str] | None = None
) -> Notice:
    """An output has another width than the reference's.

    Args:
        candidate: The candidate.
        tensor: The output.
        dtype, expected: Its type on both sides.
        undeclared: A runner that gives a format which it does not declare, the format, and what it counts as.
    """
    text = f"{candidate} gives {tensor!r} as {dtype}, the reference as {expected}; values were compared."
    if undeclared is not None:
        runner, fmt, counts = undeclared
        text += f" {runner} counts as {counts}: if it computes in {fmt}, declare `arithmetic` in its Runner."
    return Notice("other-dtype", candidate, text)


def judged_by_formula(candidate: str, tensor: str, why: str) -> Notice:
    """The error that rounding is expected to make could not be measured at an output."""
    return Notice("judged-by-formula", candidate, f"{candidate} {tensor} was judged by a formula, since {why}.")


def not_measured(runner: str, failure: str) -> Notice:
    """A metric cannot be measured on a candidate's outputs."""
    return Notice("not-measured", runner, f"{runner} was not measured: {_in_one_line(failure)}")


def logits_shifted(runner: str, shift: float, size: float) -> Notice:
    """Much was added to all logits of a position.

    Args:
        runner: Its name.
        shift: How much, as a root mean square.
        size: That of the reference's logits.
    """
    text = f"{runner}: {shift:.2g} is added to all logits of a position, which have a size of {size:.2g}"
    return Notice(
        "logits-shifted", runner, f"{text}; a Softmax does not see that, nor does --metric logits: --tolerance does."
    )


def metric_fell(
    accuracy: Sequence[AccuracyResult], allowed: float, outputs: Sequence[OutputResult]
) -> Iterator[Notice]:
    """Candidates that pass by tolerance and lost more of the metric than is allowed."""
    for result in accuracy:
        lost = None if result.difference is None else -result.difference
        passes = all(output.verdict == "pass" for output in outputs if output.candidate == result.runner)
        if lost is not None and lost > allowed * (1 + 1e-9) and passes:
            text = (
                f"{result.runner}: {result.metric} fell by {lost:.3g}, more than --metric-drop {allowed:g}, "
                "within what its arithmetic is allowed."
            )
            yield Notice("metric-fell", result.runner, text)


def not_deterministic(report: Report) -> Iterator[Notice]:
    """Runners that gave other outputs for the same inputs."""
    for runner in report.runners:
        seen = runner.repeat
        if seen is None or seen["bit_identical"]:
            continue
        by = f"{seen['tensor']!r} differs by {seen['max_abs']:.2g} (relative L2 {seen['rel_l2']:.2g})"
        text = f"{runner.name} is not deterministic: run twice on the same inputs, {by}"
        errors = [(o.metrics or {}).get("rel_l2") for o in report.of(runner.name) if o.tensor == seen["tensor"]]
        if runner.name == report.reference:
            text += "; it is the reference, so this much of every error may be its own"
        elif errors and errors[0]:
            share = seen["rel_l2"] / errors[0]
            text += f", {share:.0%} of its error" if math.isfinite(share) else ""
            if share >= CHANCE:
                text += "; what is blamed for it may be chance"
        yield Notice("not-deterministic", runner.name, f"{text}.")


def misoptimized(side: str, text: str) -> Notice:
    """A runtime's own graph optimizer makes the error at an output."""
    return Notice("misoptimized", side, text)


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
        "walk-stopped", candidate, f"{candidate} stopped at piece {piece} on its own values: {_in_one_line(error)}"
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
    """Both sides give NaN for inputs that were guessed.

    Args:
        candidate: Who was walked beside the reference.
        layer: Where NaN begins.
        what: How many there are.
    """
    text = f"{what}, first at {layer}: look at the inputs, of which some were guessed; no culprit is reported for that."
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


def no_counterpart(candidate: str, names: Sequence[str]) -> Notice:
    """Tensors of the reference that the candidate's graph does not have; the first of them are named."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    count = counted(len(names), "tensor of the reference", "tensors of the reference")
    tensors = f"{count} ({_quoted(names[:3])}{more}) {'has' if len(names) == 1 else 'have'}"
    them = "it was" if len(names) == 1 else "they were"
    text = f"{tensors} no counterpart in the candidate: {them} not compared, the tensors before and behind were."
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
        f"{recording} contradicts itself: from what it holds as {_quoted(given[:3])}, {by} makes another "
        f"{_quoted(made[:3])} than it holds, and run by itself the same: record all tensors in one run."
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


def random_values(candidate: str, layer: str, others: int) -> Notice:
    """Layers that draw random values."""
    who = f"{layer} and {others} other layers draw" if others else f"{layer} draws"
    given = f"{candidate}: {who} random values; behind it the candidate was given the reference's."
    return Notice("random-values", candidate, given)


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


def plan_stopped(candidate: str, pieces: bool) -> Notice:
    """There is nothing to make a plan for, or the models are run in pieces."""
    failed = f"{candidate} or the reference failed, or was not run"
    why = "models that are run in pieces (--memory) have none" if pieces else failed
    return Notice("no-plan", candidate, f"No plan was made: {why}.")


def runs_differ(found: Fidelity) -> Notice:
    """The run in pieces and the deployed one err differently, of a runtime that does not repeat itself."""
    observed, deployed = (_size(e) for e in (found.observed_error, found.deployed_error))
    errors = f"the error at {found.tensor!r} is {observed} in pieces and {deployed} as deployed"
    text = f"{found.candidate}: {errors}; since not every run gives the same bits, that may be chance."
    return Notice("fidelity", found.candidate, text)


def unlike_deployed(found: Fidelity, share: float, much: bool) -> Notice:
    """The run in pieces shows much less of the deployed error than there is, or much more."""
    why = "layers show errors that it does not make" if much else "layers explain it in part only"
    if share < 0.005:  # written as 0 %
        why = "layers explain nothing of it"
    text = f"{found.candidate}: run in pieces, the error at {found.tensor!r} is {share:.0%} of the deployed one: {why}."
    return Notice("fidelity", found.candidate, text)


def _size(error: float | None) -> str:
    return "not finite" if error is None else f"{error:.2g}"


def _in_one_line(error: object) -> str:
    """What an error says, with its second line behind the first."""
    return " ".join(line.strip() for line in str(error).split("\n"))


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
