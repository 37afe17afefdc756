"""What the user should know beside the verdict: one function for each notice, which makes its text."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from ..graph.errors import LayerdiffError, OutputError, said
from ..graph.printable import counted, in_one_line, quoted, share_of
from .journal.journal import Journal
from .report.model import AccuracyResult, Notice, OutputResult, Report

NOT_WRITTEN = "not-written"
STAGE_FAILED = "stage-failed"
"""Code of the notice of a file that cannot be written: the verdict stands, and the command ends as for wrong usage."""
SIZE_REFUSED = "size-refused"
"""Code of the notice of a guessed size that a runner refused; its subject is what ``--shape`` takes."""
INPUT_NOT_FINITE = "input-not-finite"
"""Code of the notice of an input that holds NaN or infinities; its subject is the input."""
INPUT_CONSTANT = "input-constant"
"""Code of the notice of an input that holds one value throughout; its subject is the input."""
BRANCH_NOT_RUN = "branch-not-run"
"""Code of the notice of a branch that no sample takes; its subject is the If."""
CHANCE = 0.5
"""Share of a candidate's error from which on what it does not repeat may be all there is."""


def input_ignored(model: str, inputs: Sequence[str]) -> Notice:
    """A second file does not take all inputs of the first."""
    return Notice("input-ignored", model, f"{model} does not take {quoted(inputs)}.")


def same_network(first: str, second: str) -> Notice:
    """Two models were named that are one network."""
    what = f"{first} was named twice" if first == second else f"{first} and {second} hold the same network"
    return Notice("same-network", second, f"{what}: no change of a network is compared, only how it is run.")


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


def shapes_not_run(left_out: Sequence[tuple[str, str]]) -> Iterator[Notice]:
    """Shapes that were asked for have no sample.

    Args:
        left_out: The shapes, and why; empty: there are too few samples.
    """
    few = [shapes for shapes, why in left_out if not why]
    if few:
        text = f"No sample has the shapes {' or '.join(few)}: give more --samples, or none, which makes enough of them."
        yield Notice("shapes-not-run", few[0], text)
    for shapes, why in left_out:
        if why:
            yield Notice("shapes-not-run", shapes, f"No sample has the shapes {shapes}: {why}")


def input_of_one_value(name: str, value: float) -> Notice:
    """An input of the user's data holds one value throughout, in all samples."""
    text = f"The input {name!r} is {value:.6g} throughout, in all samples: agreement on it proves little."
    return Notice(INPUT_CONSTANT, name, text)


def inputs_blank(names: Sequence[str], nan: bool) -> Notice:
    """All floating-point inputs of the user's data are zero throughout, or NaN."""
    what = f"The input {names[0]!r} is" if len(names) == 1 else f"The inputs {quoted(names)} are"
    value = "zero or NaN" if nan else "zero"
    text = f"{what} {value} throughout, in all samples: agreement on that proves nothing."
    return Notice(INPUT_CONSTANT, names[0], text)


def branch_not_run(node: str, branch: str, nodes: int, condition: bool, unlike: bool) -> Notice:
    """No sample takes one branch of an If.

    Args:
        node: The If.
        branch: ``then`` or ``else``.
        nodes: How many nodes it has.
        condition: What its condition was in all samples.
        unlike: Whether a second file has another one there.
    """
    why = f"the condition was {'true' if condition else 'false'} in all of them"
    text = f"The {branch} branch of {node} ({counted(nodes, 'node')}) ran in no sample: {why}, and nothing in it was"
    return Notice(BRANCH_NOT_RUN, node, f"{text} compared{', though the files differ there' if unlike else ''}.")


def output_constant(name: str, rows: int) -> Notice:
    """All rows of an output are the same, though those of the inputs differ."""
    text = f"The output {name!r} is the same in all {rows:,} rows, though the inputs differ"
    return Notice("output-constant", name, f"{text}: agreement on it says little of what depends on them.")


def output_not_finite(name: str, infinite: int, nan: int, count: int) -> Notice:
    """Elements of an output are infinite or NaN on both sides, and count as equal.

    Args:
        name: The output.
        infinite: How many are infinite.
        nan: How many are NaN.
        count: How many elements there are.
    """
    kinds = [f"{infinite:,} infinite"] * bool(infinite) + [f"{nan:,} NaN"] * bool(nan)
    most = ": little of it was compared" if 2 * (infinite + nan) > count else ""
    text = f"Of {count:,} elements of the output {name!r}, {' and '.join(kinds)} on both sides, which counts as equal"
    return Notice("output-not-finite", name, f"{text}{most}.")


def samples_empty(empty: int, count: int) -> Notice:
    """Samples of which all outputs are empty, beside others."""
    what = f"{empty:,} of {count:,} samples {'was' if empty == 1 else 'were'} empty"
    return Notice(
        "samples-empty", "", f"{what}: no output of the reference has an element there, and nothing was compared."
    )


def outputs_unfolded(model: str, names: Sequence[str]) -> Notice:
    """Outputs of a file are sequences or maps."""
    what = "is a sequence or a map, and is" if len(names) == 1 else "are sequences or maps, and are"
    return Notice("outputs-unfolded", model, f"{model}: {quoted(names)} {what} compared as tensors.")


def signatures_left_out(model: str, names: Sequence[str]) -> Notice:
    """A file holds other programs than the one that is compared."""
    one = len(names) == 1
    what = f"The signature {quoted(names)} of {model} was" if one else f"The signatures {quoted(names)} of {model} were"
    return Notice("signatures-not-compared", model, f"{what} not compared: it holds several.")


def outputs_unmatched(model: str, missing: Sequence[str], extra: Sequence[str], options: str) -> Notice:
    """A second file has outputs of other names."""
    text = f"{model} has no output {quoted(missing)} and gives {quoted(extra)} instead."
    return Notice("outputs-unmatched", model, f"{text} If they are the same: {options}")


def layout_unlike(model: str, input: str, first: str, other: str, option: str) -> Notice:
    """An input of a second file has open dimensions, and the fixed ones where the first file has others."""
    text = f"{model} takes {input}, and {first} takes {other}. If that is another layout: {option}"
    return Notice("layout-unlike", model, text)


def outputs_exchanged(candidate: str, held: Mapping[str, str], options: str) -> Notice:
    """Outputs carry each other's names."""
    pairs = ", ".join(f"{name!r} here is {other!r} there" for name, other in held.items())
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
    return Notice("left-out", runner, f"{runner} was left out: {in_one_line(error)}")


def interrupted(during: str) -> Notice:
    """The run was interrupted, and the report holds what was found until then."""
    return Notice("interrupted", "", f"Interrupted while {during}: the report holds what was found until then.")


def stage_failed(during: str, error: Exception) -> Notice:
    """A fault of this program, after the verdict was found."""
    what = ": ".join(filter(None, (type(error).__name__, said(error).split("\n", 1)[0].rstrip("."))))
    return Notice(STAGE_FAILED, "", f"Unexpected error while {during}, {what}: the verdict stands.")


def not_written(error: OutputError) -> Notice:
    """A file that was asked for beside the reports cannot be written."""
    return Notice(NOT_WRITTEN, "", in_one_line(error))


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
    return Notice("not-measured", runner, f"{runner} was not measured: {in_one_line(failure)}")


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
            text += f", {share_of(share)} of its error" if math.isfinite(share) else ""
            if share >= CHANCE:
                text += "; what is blamed for it may be chance"
        yield Notice("not-deterministic", runner.name, f"{text}.")


def misoptimized(side: str, text: str) -> Notice:
    """A runtime's own graph optimizer makes the error at an output."""
    return Notice("misoptimized", side, text)


def plan_stopped(candidate: str, pieces: bool) -> Notice:
    """There is nothing to make a plan for, or the models are run in pieces."""
    failed = f"{candidate} or the reference failed, or was not run"
    why = "models that are run in pieces (--memory) have none" if pieces else failed
    return Notice("no-plan", candidate, f"No plan was made: {why}.")
