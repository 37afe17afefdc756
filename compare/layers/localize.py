"""From a comparison that ran to its layers and culprits: every candidate is walked beside the reference and judged.

Whatever goes wrong on the way costs layers and culprits, never the verdict on the outputs: it becomes a notice.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from ...graph.formats import FP32
from ..cluster import Held, Task, cluster, gpus_of
from ..journal.sessions import remembered
from ..notices import not_deterministic, worker_died
from ..outputs.formats_in_play import formats_in_play, quantized
from ..progress import SILENT, Progress
from ..report.model import Culprit, OutputResult, Report, RunnerResult
from ..runs.again import run_again
from ..runs.memory import budget, reused, weight_bytes
from ..runs.workers.isolation import isolated, portable
from ..sides import Side, Sides
from . import (
    disregarded_together,
    lost_before,
    moved_together,
    random_layers,
    refused_together,
    shared_constants,
    typed_losses,
)
from .behind import Decided, decided
from .exchange import undone
from .fidelity import as_deployed, fidelities, in_pieces_only, made_by_pieces
from .findings import Localized
from .healing import Healing
from .loudest import is_off, name_loudest, not_finite
from .notices import walk_notices
from .observable import observable
from .opened import opened
from .prepare import Prepared, begin_engines, prepare
from .pruned import blaming_readers
from .results import Names, culprits, layer_results, ranked
from .resuming import Checkpoint, walked
from .texts import layers_not_compared
from .together import explains_whole, wrong_together
from .verdicts import Verdicts, coarsest, verdicts
from .walk import Walk
from .walked import Walked

if TYPE_CHECKING:
    from ...graph.formats import NumberFormat
    from ...graph.index import GraphIndex
    from ..comparison import Comparison
    from ..journal.sessions import RunJournal
    from ..runs.run import RunLog
    from .observation import LayerObservation

logger = logging.getLogger(__name__)


Watch: TypeAlias = "Callable[[Prepared], None]"
"""Told of every graph that is about to be walked: the whole one, then the bodies that are entered."""


def localize(
    comparison: Comparison, log: RunLog, report: Report, progress: Progress = SILENT, watch: Watch | None = None
) -> Report:
    """Walks every candidate beside the reference and adds layers, culprits and notices to the report.

    Args:
        comparison: What was compared: the sides that ran.
        log: How the run of the whole models went.
        report: What the outputs showed. Its verdict stays: culprits alone do not fail a run whose outputs agree, and
            no error in here is raised.
        progress: Told what is going on.
        watch: Told what is walked.
    """
    found: list[Localized] = []
    try:
        pairs, told = observable(comparison.sides)
        found.append(Localized(notices=tuple(told)))
        if comparison.rules.ray is not None and watch is None and len(pairs) > 1:
            found += _on_cluster(comparison.rules.ray, comparison, pairs, log, report, progress)
            for one in found:
                log = _knowing(log, one)
        else:
            with reused(weight_bytes(comparison.sides.all), budget(comparison.rules.memory)):
                for pair in pairs:
                    found.append(_attempted(replace(comparison, sides=pair), log, report, progress, watch))
                    log = _knowing(log, found[-1])
    except Exception as error:
        logger.debug("the layers could not be compared", exc_info=True)
        who = ", ".join(side.name for side in comparison.candidates)
        found = [*found[:1], Localized(notices=(layers_not_compared(who, error, comparison.samples.guessed),))]
    off = report.verdict != "pass" or any(one.culprits for one in found)
    log = run_again(comparison, log, {}, blamed=off)  # of sides that were not walked
    runners = tuple(_repeating(runner, log) for runner in report.runners)
    report = replace(report, runners=runners)
    notices = (*report.notices, *not_deterministic(report), *(notice for one in found for notice in one.notices))
    return replace(
        report,
        layers=(*report.layers, *(layer for one in found for layer in one.layers)),
        culprits=(*report.culprits, *(culprit for one in found for culprit in one.culprits)),
        fidelity=(*report.fidelity, *(output for one in found for output in one.fidelity)),
        notices=tuple(dict.fromkeys(notices)),
    )


def begin(comparison: Comparison, log: RunLog) -> None:
    """Begins in the background what walks will need, as soon as it is known how the whole models ran.

    Args:
        comparison: What is compared: the sides that ran.
        log: How the run of the whole models went.
    """
    if comparison.builders is None or comparison.journal is not None:  # a journal may hold what would be built
        return
    try:
        for pair in observable(comparison.sides)[0]:
            reference, candidate = (_for_pieces(side, log) for side in pair.all)
            ahead = replace(comparison, sides=Sides(reference, (candidate,)))
            begin_engines(ahead, candidate, log.of(candidate.name).info)
    except Exception:
        logger.debug("no engine is built ahead", exc_info=True)


def _on_cluster(
    address: str, comparison: Comparison, pairs: Sequence[Sides], log: RunLog, report: Report, progress: Progress
) -> list[Localized]:
    """What is found of several candidates, each walked by a worker of a cluster."""
    progress.stage(f"walking the layers of {len(pairs)} candidates on a cluster")
    with cluster(address) as connected:
        held = connected.put((portable(comparison), log, report))
        gpus = [gpus_of(side.runner for side in pair.all) for pair in pairs]
        tasks = [Task(_walked_there, (held, number), needed) for number, needed in enumerate(gpus)]
        done = list(connected.run(tasks))
    found: list[Localized] = []
    for pair, each in zip(pairs, done, strict=True):
        name = pair.candidates[0].name
        told = [worker_died(f"the layers of {name}", each.deaths)] if each.deaths else []
        found.append(replace(each.result, notices=(*each.result.notices, *told)))
    return found


def _walked_there(held: Held, number: int) -> Localized:
    """What is found of one of several candidates. Runs in a worker."""
    comparison, log, report = held.value()
    with isolated(comparison) as apart, reused(weight_bytes(apart.sides.all), budget(apart.rules.memory)):
        pair = observable(apart.sides)[0][number]
        return _attempted(replace(apart, sides=pair), log, report, SILENT, None)


def _knowing(log: RunLog, found: Localized) -> RunLog:
    """The log with what a candidate's layers show of second runs."""
    return log.repeating({n: r for n, r in found.repeats.items() if log.of(n).repeat is None}).settled(found.settled)


def _repeating(runner: RunnerResult, log: RunLog) -> RunnerResult:
    """A runner with what its second run gave."""
    second = log.of(runner.name).repeat
    return runner if second is None else replace(runner, repeat=second.json())


def _attempted(
    comparison: Comparison, log: RunLog, report: Report, progress: Progress, watch: Watch | None
) -> Localized:
    """The one candidate of a comparison; what goes wrong is a notice, and no other candidate pays for it."""
    (candidate,) = comparison.candidates
    try:
        reference, candidate = opened(*(_for_pieces(side, log) for side in comparison.sides.all))
        candidate, report, exchange = undone(reference, candidate, report)
        comparison = replace(comparison, sides=Sides(reference, (candidate,)))
        formats = formats_in_play(reference, candidate)
        found = remembered(
            comparison.journal if watch is None else None,
            lambda journal: _depends(journal, comparison, log, report),
            lambda: localize_candidate(comparison, candidate, report, formats, log=log, progress=progress, watch=watch),
        )
        return replace(found, culprits=(*exchange, *found.culprits))
    except Exception as error:
        logger.debug("the layers of %s could not be compared", candidate.name, exc_info=True)
        return Localized(notices=(layers_not_compared(candidate.name, error, comparison.samples.guessed),))


def _depends(journal: RunJournal, comparison: Comparison, log: RunLog, report: Report) -> tuple[Any, ...] | None:
    """All that makes the layers of the one candidate what they are; None where nothing tells."""
    known = walked(journal, comparison)
    if known is None:
        return None
    (candidate,) = comparison.candidates
    ran = [replace(log.of(side.name), open_seconds=None, infer_seconds=None) for side in comparison.sides.all]
    return "layers", known, ran, log.deployed, report.of(candidate.name)


def _for_pieces(side: Side, log: RunLog) -> Side:
    return replace(side, runner=side.runner.for_pieces(log.of(side.name).info), deployed=side.runner)


def localize_candidate(
    comparison: Comparison,
    candidate: Side,
    report: Report,
    formats: Sequence[NumberFormat],
    *,
    log: RunLog | None = None,
    progress: Progress = SILENT,
    carried: Mapping[str, str] | None = None,
    watch: Watch | None = None,
) -> Localized:
    """Walks one candidate beside the reference.

    Args:
        comparison: The comparison.
        candidate: Who is judged.
        report: What the outputs showed.
        formats: Number formats in play between both, on the whole model.
        log: How the run of the whole models went; None in a body, which the deployed program says nothing of.
        progress: Told what is going on.
        carried: In the body of a loop: the state that an iteration reads -> what the one before it made it.
        watch: Told what is walked.

    Raises:
        LayerdiffError: The layers cannot be compared.
    """
    reference, outputs = comparison.reference, report.of(candidate.name)
    progress.stage(f"{candidate.name}: layer by layer")
    without = replace(report, outputs=())  # of the outputs of a body nothing is known
    prepared = prepare(
        comparison,
        candidate,
        lambda inner, side, states: localize_candidate(inner, side, without, formats, carried=states, watch=watch),
        None if log is None else log.of(candidate.name).info,
        ends_finite=bool(outputs) and all(o.compared and not not_finite(o.metrics) for o in outputs),
    )
    index, seen = prepared.comparison.reference.model.index, _walk(prepared, log, progress, watch)
    fmt = coarsest(reference.runner.arithmetic, candidate.runner.arithmetic, formats)
    heals, given = _judged(prepared, seen, outputs, fmt, carried, None if log is None else progress)
    given = typed_losses.blaming(prepared, _excusing(given, seen, outputs, index), outputs)
    given, blamed = _blamed(prepared, seen, given, outputs, log, progress)
    unshown = frozenset(s.number for s in blamed if in_pieces_only(s, seen, outputs, index))
    if heals.agreed.issuperset(seen.outputs) and all(map(heals.rounding, seen.outputs, seen.outputs.values())):
        given, blamed = given.unshared(), [replace(s, contribution=None) for s in blamed]
    names = Names(prepared)
    found = culprits(ranked(blamed, unshown), unshown, names)
    settled = () if log is None else _settled(comparison, log, seen, outputs)
    if log is not None:
        log = _run_again(comparison, log.settled(settled), seen, outputs, found)
    loud = {given.by_layer.get(s.number) for s in seen.layers if s.exceeds_noise}
    plain = not found and loud <= {"healed"} and not fmt.is_integer and fmt.u <= FP32.u
    shown, doubts = fidelities(candidate.name, seen, outputs, _comes_and_goes(seen, comparison, log), plain, bool(loud))
    return Localized(
        layers=layer_results(given, prepared.plan.unmatched, names),
        culprits=found,
        fidelity=tuple(shown),
        notices=(*walk_notices(prepared, seen, given, found, outputs), *(() if explains_whole(found) else doubts)),
        repeats={} if log is None else {r.name: r.repeat for r in log.runners if r.repeat is not None},
        settled=settled,
    )


def _timings(log: RunLog, candidate: Side) -> bytes:
    """What the deployed engine tells of the times of kernels; empty where it tells nothing."""
    info = log.of(candidate.name).info
    return b"" if info is None else info.timing_cache


def _blamed(
    prepared: Prepared,
    walked: Walked,
    given: Verdicts,
    outputs: Sequence[OutputResult],
    log: RunLog | None,
    progress: Progress,
) -> tuple[Verdicts, list[LayerObservation]]:
    """The verdicts with what random values, the loudest layer and layers that are wrong only together add to them; the
    culprits with all that is told."""
    given, blamed = name_loudest(prepared, walked, random_layers.blaming(prepared, given), outputs, progress)
    timings = b"" if log is None else _timings(log, prepared.candidate)
    fused = None if log is None else wrong_together(prepared, walked, outputs, timings, progress)
    if fused is not None:
        given = given.knowing([fused]).blaming(fused.number)
        blamed = [fused, *(s for s in blamed if s.number != fused.number)]
    return given, lost_before.told(blamed, given.layers, prepared.comparison.reference.model.index)


def _judged(
    prepared: Prepared,
    walked: Walked,
    outputs: Sequence[OutputResult],
    fmt: NumberFormat,
    carried: Mapping[str, str] | None,
    progress: Progress | None,
) -> tuple[Healing, Verdicts]:
    """What has healed in the candidate's own run, and the verdicts, each layer judged without the faults before it.

    ``progress``: told of more runs; None: there are none, in a body, since a loop is judged as a whole.
    """
    index = prepared.comparison.reference.model.index
    theirs = prepared.candidate.model.index
    integers = any(quantized(theirs, output) for output in theirs.outputs)
    heals = functools.partial(Healing, index=index, fmt=fmt, same=prepared.same, quantized=integers)
    first = heals(walked.layers, failed=[o.tensor for o in outputs if o.verdict == "fail"], agreed=_explained(outputs))
    known = Decided() if progress is None else decided(prepared, walked.layers, first, heals, progress)
    given = verdicts(walked.layers, index, first, carried=carried or {}, decided=known.verdicts)
    given = blaming_readers(prepared, known.joined(given, index, theirs))
    if progress is not None:
        given = shared_constants.joined(prepared, given, walked)
    given = disregarded_together.joined(refused_together.joined(prepared, given))
    return first, moved_together.joined(given, index)


def _explained(outputs: Sequence[OutputResult]) -> list[str]:
    """The outputs whose error rounding explains."""
    explained = (o for o in outputs if o.tolerance is None and o.decided_by is None and o.compared)
    return [output.tensor for output in explained if output.verdict == "pass"]


def _run_again(
    comparison: Comparison,
    log: RunLog,
    walked: Walked,
    outputs: Sequence[OutputResult],
    found: Sequence[Culprit],
) -> RunLog:
    """The log of a pair with the second runs that were left to its walk."""
    (candidate,) = comparison.candidates
    blamed = bool(found) or any(output.verdict != "pass" for output in outputs)
    return run_again(comparison, log, {candidate.name: walked.identical}, blamed=blamed)


def _settled(comparison: Comparison, log: RunLog, walked: Walked, outputs: Sequence[OutputResult]) -> tuple[str, ...]:
    """The sides that need no second run, as the layers of both have been run twice: each gives the same bits on both
    sides, or its error was seen twice; and the outputs are as far off as those of the deployed runs."""
    names = [side.name for side in comparison.sides.all if not side.runner.narrows]
    waiting = [name for name in names if log.of(name).postponed is not None]
    steady = all(s.repeated or (s.exceeds_noise and not s.comes_and_goes) for s in walked.layers)
    return tuple(waiting) if waiting and steady and all(as_deployed(o, walked) for o in outputs) else ()


def _walk(prepared: Prepared, log: RunLog | None, progress: Progress, watch: Watch | None) -> Walked:
    if watch is not None:
        watch(prepared)
    return Walk(
        prepared.comparison,
        prepared.candidate,
        prepared.plan,
        judge=prepared.judge,
        deployed=None if log is None else log.deployed,
        budget=budget(prepared.comparison.rules.memory),
        progress=progress,
    ).run(None if log is None else Checkpoint.of(prepared.comparison, prepared.plan, log.deployed))


def _excusing(given: Verdicts, walked: Walked, outputs: Sequence[OutputResult], index: GraphIndex) -> Verdicts:
    """Without layers whose values stop at the ends of a range and change nothing, neither deployed nor in pieces, and
    without those that err in pieces alone."""
    given = given.without({s.number for s in given.culprits() if made_by_pieces(s, walked, outputs, index)})
    changing = {s.number for s in given.culprits() if in_pieces_only(s, walked, outputs, index)}
    off = [output for output in outputs if is_off(output)]
    finite = not any(not_finite(output.metrics) for output in off)
    given = given.excusing(agree=bool(outputs) and not off, finite=finite, unless=changing)
    return given.unhealed() if any(output.verdict == "fail" for output in off) else given


def _comes_and_goes(walked: Walked, comparison: Comparison, log: RunLog | None) -> bool:
    """Whether a side was seen to give other bits the second time, or need not give the same."""
    runs = [] if log is None else [log.of(side.name).repeat for side in comparison.sides.all]
    unrepeated = any(run is not None and not run.identical for run in runs)
    return unrepeated or bool(walked.collisions) or any(layer.comes_and_goes for layer in walked.layers)
