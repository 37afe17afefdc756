"""What lies behind a fault is judged without it.

That a rewriting is healthy (heads in another order, a scale moved from one layer to the next) shows where both sides
come to the same values again, and behind a fault they never do. So the candidate is run again, given what the reference
makes of the first faults, and so on from the front to the back.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ...graph.errors import LayerdiffError
from ...graph.pairing.differences import op_names
from ..causes import exchanged_layers
from ..causes.diagnosis import Diagnosis
from ..causes.rewritten_weights import AsRewritten, LacksTheSame
from ..progress import SILENT, Progress
from ..report.model import Cause
from ..runs.memory import budget
from ..statistics.statistics import Statistics
from .healing import Healing
from .rewritten import rewritten
from .taken_back import TakenBack, shared, taken_back
from .undoing import Undoing, undoing_layer
from .walk import Walk
from .walked import Forced

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from ...graph.index import GraphIndex
    from ..report.model import LayerVerdict
    from .observation import LayerObservation
    from .prepare import Prepared
    from .verdicts import Verdicts
    from .weight_terms import Differing

log = logging.getLogger(__name__)

REWRITTEN = (Cause.WEIGHTS, Cause.SCALE, Cause.LAYOUT)
"""Causes of an error that a rewriting of weights may have."""
ROUNDS = 8
"""How many times a candidate is run again at most: a chain of so many faults, one behind the other."""


@dataclass(frozen=True)
class Decided:
    """What was decided on layers that exceed their noise.

    Attributes:
        verdicts: Which are culprits and which have healed, by number.
        undoing: Of culprits: the layer that would take back what they change, were its weights changed, too.
        lacking: Of culprits: what other layers take back and they do not.
        changes: Of culprits: how few of their weights differ from the reference's, rewritten as the layers beside are.
    """

    verdicts: Mapping[int, LayerVerdict] = field(default_factory=dict)
    undoing: Mapping[int, Undoing] = field(default_factory=dict)
    lacking: Mapping[int, TakenBack] = field(default_factory=dict)
    changes: Mapping[int, Differing] = field(default_factory=dict)

    def joined(self, given: Verdicts, index: GraphIndex, theirs: GraphIndex) -> Verdicts:
        """The verdicts with culprits whose changes one layer would take back as one fault, at the first of them.

        Args:
            given: The verdicts.
            index: The reference's graph.
            theirs: The candidate's.
        """
        layers = {s.number: s for s in given.layers}
        mains = {number: s.pair.main for number, s in layers.items()}
        lacking = [(s, self.lacking[s.number]) for s in given.culprits() if s.number in self.lacking]
        told = [(s, taken.told(s, layers, index, theirs)) for s, taken in lacking]
        for s in given.culprits():
            if s.number in self.changes:
                one, read = self.changes[s.number], shared(s.pair.candidate.nodes, theirs)
                fact = AsRewritten(op_names(index, (one.node,))[0][1], one.change, one.name, read)
                told.append((s, Diagnosis(Cause.WEIGHTS, (fact,), one.node)))
        given = given.knowing([replace(s, diagnosis=diagnosis, contribution=None) for s, diagnosis in told])
        groups: dict[Undoing, list[LayerObservation]] = {}
        for s in given.culprits():
            if s.number in self.undoing and s.diagnosis is not None:
                groups.setdefault(self.undoing[s.number], []).append(s)
        for undoing, (first, *others) in groups.items():
            assert first.diagnosis is not None
            lacks, *more = op_names(index, (mains[undoing.layer], *(s.pair.main for s in others)))
            joined = first.diagnosis.adding(LacksTheSame(lacks, undoing.how, undoing.what, tuple(more)))
            given = given.knowing([replace(first, diagnosis=joined)]).inherited(s.number for s in others)
        return given


def decided(
    prepared: Prepared,
    layers: Sequence[LayerObservation],
    healing: Healing,
    again: Callable[[Sequence[LayerObservation]], Healing],
    progress: Progress = SILENT,
) -> Decided:
    """Which of the layers that exceed their noise are culprits and which have healed, without the faults before each.

    Args:
        prepared: Who was walked.
        layers: What was seen of them, in the order of the graph.
        healing: Tells what has healed in the candidate's own run.
        again: Makes the same of another run.
        progress: Told what is going on.

    Returns:
        Nothing where the candidate's own run has to do: of one file, where a name is always the same value, and of
        runtimes that take long to build a network.
    """
    can = prepared.candidate.runner.capabilities
    index, theirs = prepared.comparison.reference.model.index, prepared.candidate.model.index
    found: dict[int, LayerVerdict] = {}
    undoing: dict[int, Undoing] = {}
    lacking: dict[int, TakenBack] = {}
    pending = [s.number for s in layers if healing.verdict(s) is not None]
    if prepared.same or not can.pieces or can.builds_for_shapes:
        return Decided(found, undoing)
    runs, spoilt, fitted, first = 0, set[int](), set[int](), healing
    while off := healing.culprits(pending):
        waiting = _may_have_healed(off, healing, index)
        faults, meant = _unfinished(_first(off, healing, waiting), healing, (index, theirs), {*lacking, *spoilt})
        for taken in meant:
            lacking.update((n, taken) for n in taken.lacking if n in faults and n not in lacking)
            fitted.update(taken.takers if taken.change in taken.lacking else ())
        product = None if meant else undoing_layer(faults, healing, index)
        if product is not None:  # what lies between has changed with them
            faults |= {s.number for s in off if product.layer in healing.behind((s.number,))}
            undoing.update(dict.fromkeys(faults, product))
        changes = {n for taken in meant for n in (taken.change, *taken.takers)} - faults
        later = healing.behind(faults | changes) - faults - changes
        # beside a fault, what is left of another one looks like its own: that is seen without it
        leaning = {n for n in pending if n not in faults and healing.leans(healing.layers[n])} - changes
        later |= leaning | (waiting - faults)
        found.update((n, "culprit" if n in faults else "healed") for n in (set(pending) - later) | faults)
        # of what is added to changed values, nobody can make what should be there
        spoilt |= healing.behind(n for taken in meant for n in taken.beside if n in faults) & later
        found.update(dict.fromkeys(spoilt.intersection(pending), "inherited"))
        pending = [number for number in pending if number in later - spoilt]
        if not faults or not (leaning or healing.culprits(pending)):
            continue
        runs += 1
        given = {number for number, verdict in found.items() if verdict == "culprit"} | fitted
        without = _without(prepared, layers, given, progress) if runs <= ROUNDS else None
        if without is None:
            break
        healing = again(without)
    else:
        found.update(dict.fromkeys(pending, "healed"))
    return _in_own_terms(prepared, first, Decided(found, undoing, lacking), progress)


def _in_own_terms(prepared: Prepared, healing: Healing, known: Decided, progress: Progress) -> Decided:
    """What was decided, of several culprits in the candidate's own terms."""
    given = {n: known.verdicts.get(n) or healing.verdict(s) for n, s in healing.layers.items()}
    culprits = {n for n, verdict in given.items() if verdict == "culprit"}
    index = prepared.comparison.reference.model.index
    suspects = {n for n in culprits if _may_be_rewritten(healing.layers[n], healing, index)}
    told = {(n in known.undoing, known.undoing.get(n, n)) for n in suspects}
    together = {n for n, s in healing.layers.items() if s.exceeds_noise and _may_be_rewritten(s, healing, index)}
    if not suspects or len(together) < 2 or healing.quantized:
        return known
    progress.stage(f"{prepared.candidate.name}: {len(together)} layers that may be rewritten together")
    try:
        found = rewritten(prepared, healing, together, culprits - suspects)
    except Exception:  # what was decided stands
        log.debug("layers that may be rewritten together", exc_info=True)
        return known
    if found is None or (found.wrong != suspects and not (found.right and 0 < len(found.wrong) < len(told))):
        return known
    verdicts: dict[int, LayerVerdict] = {**known.verdicts}
    verdicts.update(dict.fromkeys(found.right, "healed"))
    verdicts.update(dict.fromkeys(found.unknown, "inherited"))
    verdicts.update(dict.fromkeys(found.wrong, "culprit"))
    lacking = {**found.lacking, **known.lacking}
    lacking = {n: taken for n, taken in lacking.items() if n in found.wrong and n not in found.changes}
    undoing = known.undoing if found.wrong == suspects else {}
    return Decided(verdicts, undoing, lacking, found.changes)


def _may_be_rewritten(s: LayerObservation, healing: Healing, index: GraphIndex) -> bool:
    """Whether a layer's error may be a rewriting's; of one that has the weights of another one, it is not. Nor can it
    be told of one whose error is hidden by far larger values (a mask): it fits in any terms."""
    if s.judgement is not None and s.judgement.relative <= healing.tolerance(s.pair.reference.outputs[0]):
        return False
    if s.diagnosis is None:
        return True
    return s.diagnosis.cause in REWRITTEN and not exchanged_layers.holders(index, s.diagnosis)


def _unfinished(
    faults: set[int], healing: Healing, graphs: tuple[GraphIndex, GraphIndex], known: Collection[int]
) -> tuple[set[int], list[TakenBack]]:
    """The faults, in place of changes that are meant with the layers that do not take these back; and the changes.

    ``known``: layers that do not take others back.
    """
    traced = {n: taken_back(healing.layers[n], healing, graphs, known) for n in sorted(faults)}
    lacking = {number for taken in traced.values() if taken is not None for number in taken.lacking}
    more = {*known, *lacking}  # what does not take back what another one changes need not take back this, either
    left = [n for n, taken in traced.items() if taken is None and n not in lacking] if lacking else []
    traced.update((n, taken_back(healing.layers[n], healing, graphs, more)) for n in left)
    meant = [taken for taken in traced.values() if taken is not None]
    if not meant:
        return faults, meant
    faults = (faults - {taken.change for taken in meant}) | {n for taken in meant for n in taken.lacking}
    return _first([healing.layers[n] for n in sorted(faults)], healing).difference(known), meant


def _may_have_healed(off: Sequence[LayerObservation], healing: Healing, index: GraphIndex) -> set[int]:
    """Of some layers without weights (what these change, others may take back), those of whose error nothing is left in
    the layers behind them but where another one, which reads nothing that is off, may have made it anew. Without that
    one, it shows."""
    first = {s.number for s in off if all(map(healing.near, healing.makers(s)))}
    plain = {
        s.number
        for s in off
        if not any(index.weight(n) is not None for p in s.pair.reference.nodes for n in index.reads[p])
    }
    found = {n for n in plain if _ends(healing.layers[n], healing, first - {n})}
    return set() if found.issuperset(s.number for s in off) else found


def _ends(s: LayerObservation, healing: Healing, others: Collection[int]) -> bool:
    """Whether a layer's error ends on each way from it, at least once before what others may have brought."""
    theirs, outputs = healing.behind(others), set(healing.outputs)
    waiting, seen, ended = [s], {s.number}, False
    while waiting:
        readers = healing.reading(here := waiting.pop())
        if not readers or not outputs.isdisjoint(here.pair.reference.outputs):
            return False
        for layer in (r for r in readers if r.number not in seen):
            seen.add(layer.number)
            if layer.number in theirs:
                continue
            if healing.near(layer) and not healing.hides(layer, s):
                ended = True
            else:
                waiting.append(layer)
    return ended


def _first(off: Sequence[LayerObservation], healing: Healing, without: Collection[int] = ()) -> set[int]:
    """Of some layers, those that are behind none of the others; some are left out."""
    found: set[int] = set()
    behind: set[int] = set()
    for s in off:
        if s.number not in behind and s.number not in without:
            found.add(s.number)
            behind |= healing.behind((s.number,))
    return found


def _without(
    prepared: Prepared, layers: Sequence[LayerObservation], faults: set[int], progress: Progress
) -> list[LayerObservation] | None:
    """What is seen of all layers where the candidate is given what the reference makes of some; None where it does not
    get to the end."""
    progress.stage(f"{prepared.candidate.name}: without {len(faults)} of its layers")
    plan = prepared.plan.giving(faults, prepared.candidate.model.index)
    memory = budget(prepared.comparison.rules.memory)
    forced = Forced((), None)
    walk = Walk(prepared.comparison, prepared.candidate, plan, forced=forced, budget=memory, progress=progress)
    try:
        walked = walk.run()
    except LayerdiffError:
        log.debug("the candidate was not run without its first faults", exc_info=True)
        return None
    if walked.notices:
        return None
    seen = {s.number: s for s in walked.layers}
    drawn = {pair.number for pair in prepared.plan.layers if pair.random}
    without = []
    for s in layers:
        taken = seen[s.number].pair.random and s.number not in drawn
        given = {name: Statistics() for name in s.pair.reference.outputs} if taken else None
        one = seen[s.number]
        cumulative = one.cumulative if given is None else given
        without.append(replace(s, cumulative=cumulative, turning=one.turning, scaling=one.scaling))
    return without
