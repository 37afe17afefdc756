"""Who is to blame: a verdict on every layer, from what a walk saw of all of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...graph.formats import NumberFormat, coarser
from ...graph.operators import STRETCHES, operator
from ...graph.specs import Dim, is_float
from ..causes import baked_constant, differences, exchanged_layers, other_operand
from ..causes.diagnosis import Diagnosis
from ..causes.differences import GraphsDiffer
from ..causes.feeding import RangeOfAll, SeenAt
from ..causes.judgement import RMS_LIMIT
from ..causes.operators import OperatorsAlone
from ..causes.other_grid import is_held_otherwise, range_change
from ..causes.saturation import BeyondCalibration, CalibratedBehind
from ..causes.wide_range import BehindToo, WiderThanData
from ..report.model import Cause
from .findings import NOTHING_INSIDE
from .healing import GROWN

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.pairing.differences import Difference
    from ..report.model import Fact, LayerVerdict
    from .healing import Healing
    from .observation import LayerObservation

JOINING = baked_constant.joined, other_operand.joined, differences.joined
"""What makes one fault of layers that show the same one."""
SPOILT = 0.1
"""Relative error from which on values are others, for which other ranges are calibrated."""
FOLLOWS = 3.0
"""Times what values have changed by up to which a range that was calibrated of others like them may differ."""
LITTLE, NEARLY_ALL = 0.2, 0.9
"""Shares of the error at the outputs: less of culprits is not why outputs are off, more of a layer is."""
HARMLESS = 0.01
"""Share of the error at the outputs up to which it does not matter that values stop at the ends of a range."""


@dataclass(frozen=True)
class Verdicts:
    """The verdicts on the layers of one candidate.

    Attributes:
        layers: What was seen of them; producers have the diagnosis of what could not be given what they make.
        by_layer: The verdict on each, by number.
        beside: Of a guilty layer with several outputs: the verdict on those that are not off, by its number.
        spent: Numbers of layers whose values stop at the ends of a range, and behind which all is right again before an
            output.
    """

    layers: tuple[LayerObservation, ...]
    by_layer: Mapping[int, LayerVerdict]
    beside: Mapping[int, LayerVerdict]
    spent: frozenset[int] = frozenset()

    def culprits(self) -> list[LayerObservation]:
        """The layers that are to blame, themselves or for a node inside."""
        return [s for s in self.layers if self.by_layer[s.number] == "culprit" or s.inside.culprits]

    def excusing(self, agree: bool, finite: bool, unless: Collection[int] = ()) -> Verdicts:
        """The same without layers whose values stop at the ends of the candidate's range, and change nothing by that.

        Args:
            agree: Whether all outputs agree; else, what such a layer contributes decides.
            finite: Whether no output has values that are finite on one side only: of these, nobody can tell what
                contributes how much, and what counts is whether all is right again behind a layer.
            unless: Numbers of layers that change the outputs of a run in pieces.
        """

        def harmless(s: LayerObservation) -> bool:
            return agree or ((s.contribution or 0.0) < HARMLESS if finite else s.number in self.spent)

        excused: dict[int, LayerVerdict] = {
            s.number: "healed"
            for s in self.culprits()
            if s.diagnosis is not None and s.diagnosis.clamped and s.number not in unless and harmless(s)
        }
        return replace(self, by_layer={**self.by_layer, **excused})

    def unhealed(self) -> Verdicts:
        """The same where outputs are off, and not for the culprits: with the first layer that was taken to have healed
        and of which nearly all of their error comes."""
        shares = [s.contribution for s in self.culprits()]
        if None in shares or sum(filter(None, shares)) > LITTLE:
            return self
        healed = (s for s in self.layers if self.by_layer[s.number] == "healed" and s.exceeds_noise)
        found = next((s for s in healed if (s.contribution or 0.0) >= NEARLY_ALL and s.diagnosis is not None), None)
        return self if found is None else self.blaming(found.number)

    def without(self, numbers: Collection[int]) -> Verdicts:
        """The same without layers whose error the outputs do not show at all."""
        innocent = tuple(replace(s, inside=NOTHING_INSIDE) if s.number in numbers else s for s in self.layers)
        return replace(self, layers=innocent, by_layer={**self.by_layer, **dict.fromkeys(numbers, "healed")})

    def knowing(self, more: Sequence[LayerObservation]) -> Verdicts:
        """The same with layers of which more is known now."""
        newer = {s.number: s for s in more}
        return replace(self, layers=tuple(newer.get(s.number, s) for s in self.layers))

    def inherited(self, numbers: Iterable[int]) -> Verdicts:
        """The same without culprits that another one tells, too."""
        return replace(self, by_layer={**self.by_layer, **dict.fromkeys(numbers, "inherited")})

    def unshared(self) -> Verdicts:
        """The same without shares of the error at the outputs: of one that rounding explains, they say nothing."""
        return replace(self, layers=tuple(replace(s, contribution=None) for s in self.layers))

    def blaming(self, number: int) -> Verdicts:
        """The same with one more culprit."""
        return replace(self, by_layer={**self.by_layer, number: "culprit"})


def coarsest(reference: NumberFormat, candidate: NumberFormat, in_play: Sequence[NumberFormat]) -> NumberFormat:
    """The coarsest format that rounding is expected in. Quantizers in a graph round the same way on both sides."""
    result = coarser(candidate, reference)
    for fmt in in_play:
        if not fmt.is_integer:
            result = coarser(result, fmt)
    return result


def verdicts(
    layers: Sequence[LayerObservation],
    index: GraphIndex,
    healing: Healing,
    *,
    carried: Mapping[str, str],
    decided: Mapping[int, LayerVerdict] | None = None,
) -> Verdicts:
    """A verdict on every layer.

    Args:
        layers: What was seen of them, in the order of the graph.
        index: The reference's graph.
        healing: Tells which of them have healed.
        carried: In the body of a loop: the state that an iteration reads -> what the one before it made it.
        decided: Which of those that exceed their noise are culprits, and which have healed, where that is known better.
    """
    return _Jury(layers, index, healing, carried, decided or {}).verdicts()


class _Jury:
    """Gives the verdicts; the arguments are those of `verdicts`."""

    def __init__(
        self,
        layers: Sequence[LayerObservation],
        index: GraphIndex,
        healing: Healing,
        carried: Mapping[str, str],
        decided: Mapping[int, LayerVerdict],
    ) -> None:
        self.layers = {s.number: s for s in layers}
        self.index = index
        self.healing = healing
        self.carried = carried
        self.maker = healing.maker
        self.found: dict[int, LayerVerdict] = dict(decided)

    def verdicts(self) -> Verdicts:
        for s in self.layers.values():
            verdict = None if s.number in self.found else self.healing.verdict(s)
            if verdict is not None:
                self.found[s.number] = verdict
        self._fed_once()
        self._blame_producers()
        self._join_shared()
        self._computed_with()
        self._pair_quantizers()
        self._saturated_before()
        self._wide_before()
        self._declared_once()
        beside = self._inherit()
        clamped = (s for s in self.layers.values() if s.diagnosis is not None and s.diagnosis.clamped)
        spent = frozenset(s.number for s in clamped if self._spent(s))
        return Verdicts(tuple(self.layers.values()), self.found, beside, spent)

    def _spent(self, s: LayerObservation) -> bool:
        """Whether all is right again on every way from a layer to an output, in the candidate's own run: on one way at
        least, and on others but for what is off for another thing that it reads."""
        outputs = set(self.index.outputs)
        if not outputs.isdisjoint(s.pair.reference.outputs):
            return False
        off, right = {s.number}, False
        for layer in (self.layers[number] for number in sorted(self.layers) if number > s.number):
            makers = {self.maker.get(name) for name in layer.pair.reference.inputs}
            if makers.isdisjoint(off):
                continue
            if layer.cumulative and self.healing.quiet(layer):
                right = True
                continue
            if any(m is not None and m not in off and not self.healing.quiet(self.layers[m]) for m in makers):
                continue
            if not outputs.isdisjoint(layer.pair.reference.outputs):
                return False
            off.add(layer.number)
        return right

    # -- how it was fed --

    def _fed_once(self) -> None:
        """Layers that read what is one for all that was fed together, where each entry had its own: of the reference,
        no layer can be given all of these. What several compute of that for themselves, a mask or positions, is one
        fault, too, at the first of them."""
        fed: list[int] = []
        for number, s in self.layers.items():
            if s.diagnosis is None or s.diagnosis.cause is not Cause.FEEDING or self.found.get(number) != "culprit":
                continue
            makers = (self._origin(name) for name in self._one_for_all(s))
            if self._reads_a_step(s) or any(m is not None and m.number in fed for m in makers):
                self.found[number] = "inherited"
            else:
                fed.append(number)
        while fed:
            first, *others = fed
            shared = {n: self._last_shared(first, n) for n in others}
            same = [n for n, node in shared.items() if node is not None]
            s = self.layers[first]
            if same and s.diagnosis is not None:  # its share is not that of all of them
                seen = SeenAt(tuple(self.index.names[self.layers[n].pair.main] for n in (first, *same)))
                told = replace(s.diagnosis.adding(seen), node=max(n for n in shared.values() if n is not None))
                self.layers[first] = replace(s, diagnosis=told, contribution=None)
                self.found.update(dict.fromkeys(same, "inherited"))
            fed = [n for n in others if n not in same]

    def _one_for_all(self, s: LayerObservation) -> list[str]:
        """What a layer reads that has one entry, where what it makes has as many as it is given."""
        first = {n: self._entries(n) for n in (*s.pair.reference.inputs, *s.pair.reference.outputs)}
        if all(first[n] == 1 for n in s.pair.reference.outputs):
            return []
        return [n for n in s.pair.reference.inputs if first[n] == 1]

    def _entries(self, name: str) -> Dim:
        spec = self.index.specs.get(name)
        return spec.shape[0] if spec is not None and spec.shape else None

    def _last_shared(self, number: int, other: int) -> int | None:
        """The last of the nodes that make floats in two layers, each for itself."""
        nodes = set(self.layers[number].pair.reference.nodes) & set(self.layers[other].pair.reference.nodes)
        specs = ((p, self.index.specs.get(self.index.nodes[p].output[0])) for p in nodes)
        return max((p for p, spec in specs if spec is not None and is_float(spec.dtype)), default=None)

    def _reads_a_step(self, s: LayerObservation) -> bool:
        """Whether a number that a layer reads comes from a quantizer that measures the range of all that comes."""
        numbers = (n for n in s.pair.reference.inputs if (spec := self.index.specs.get(n)) and spec.shape == ())
        makers = (self.layers[self.maker[n]] for n in numbers if n in self.maker)
        return any(_measures(m) or self._reads_a_step(m) for m in makers)

    # -- who made it --------------------------------------------------------------------------------------------

    def _blame_producers(self) -> None:
        """Layers that are given what the candidate's format cannot hold: their producer is guilty instead."""
        excused: set[int] = set()
        for number in self.layers:
            diagnosis = self.layers[number].diagnosis
            if self.found.get(number) != "culprit" or diagnosis is None or diagnosis.producer is None:
                continue
            producer = self._origin(diagnosis.producer)
            if producer is None:  # an input of the model: there is nobody behind it
                continue
            self.found[number] = "inherited"
            excused.add(number)
            producer = self._begun(producer)
            if self.found.get(producer.number) != "culprit" and producer.number not in excused:
                self.found[producer.number] = "culprit"
                if producer.exceeds_noise and producer.diagnosis is not None and is_held_otherwise(diagnosis):
                    continue  # what else is wrong of it tells more than the range that was calibrated with that
                node = diagnosis.node if diagnosis.node in producer.pair.reference.nodes else None
                blamed = Diagnosis(diagnosis.cause, diagnosis.facts, node)
                self.layers[producer.number] = replace(producer, diagnosis=blamed, unholdable=diagnosis.producer)

    def _begun(self, s: LayerObservation) -> LayerObservation:
        """Where a loss began that a producer only hands on: it was itself given values among the subnormals, and what
        it does to them is excused by the step of these."""
        while _excused_by_step(s) and self.found.get(s.number) != "culprit":
            makers = [m for n in s.pair.reference.inputs if (m := self._origin(n)) is not None]
            lossy = [m for m in makers if self.found.get(m.number) == "culprit" or _excused_by_step(m)]
            if not lossy:
                break
            s = lossy[0]
        return s

    def _origin(self, tensor: str) -> LayerObservation | None:
        """Who made the values of a tensor: the layer before those that only move them."""
        found = self._made_by(tensor) or self._made_by(self.carried.get(tensor, ""))
        while found is not None and self._moves_alone(found):
            moved = {self.index.nodes[p].input[0] for p in found.pair.reference.nodes if self._stretches(p)}
            inputs = (n for n in found.pair.reference.inputs if n in moved)
            before = next((m for n in inputs if (m := self._made_by(n)) is not None), None)
            if before is None:
                break
            found = before
        return found

    def _moves_alone(self, s: LayerObservation) -> bool:
        """Whether a layer only moves values; what makes the shape that it gives them is no arithmetic."""
        nodes = s.pair.reference.nodes
        return all(self._stretches(p) or not any(map(self.healing.rounds, self.index.nodes[p].output)) for p in nodes)

    def _stretches(self, position: int) -> bool:
        return operator(self.index.nodes[position]) in STRETCHES

    def _made_by(self, tensor: str) -> LayerObservation | None:
        number = self.maker.get(tensor)
        return None if number is None else self.layers[number]

    def _join_shared(self) -> None:
        """Layers that have each other's weights, read one constant that should be computed, what one node too many
        makes, or one tensor in place of another: one fault, at the first of them."""
        guilty = (s for s in self.layers.values() if self.found.get(s.number) == "culprit")
        diagnoses = {s.number: s.diagnosis for s in guilty if s.diagnosis is not None}
        for number, told in exchanged_layers.of_weights(self.index, diagnoses).items():
            if told is None:
                self.found[number] = "inherited"
            else:
                self.layers[number] = replace(self.layers[number], diagnosis=told)
        joined = {j: o for one in JOINING for j, o in one(diagnoses).items()}
        self.found.update(dict.fromkeys((n for others in joined.values() for n in others), "inherited"))
        copied = (n for n, s in self.layers.items() if exchanged_layers.is_copied(s.diagnosis))
        for number in (*joined, *copied):  # the share of the first is not that of all of them
            self.layers[number] = replace(self.layers[number], contribution=None)

    def _computed_with(self) -> None:
        """Layers that the candidate computes with a node which differs, and which the reference has in another layer:
        one fault, at the node."""
        guilty = [s for n, s in self.layers.items() if self.found.get(n) == "culprit" and s.diagnosis is not None]
        differ = {d.candidate_node: s.number for s in guilty for d in _stated(s)}
        for s in guilty:
            others = {differ[q] for q in s.pair.candidate.nodes if q in differ}
            if not _stated(s) and others and s.number not in others:
                self.found[s.number] = "inherited"

    def _pair_quantizers(self) -> None:
        """A wrong scale stands in QuantizeLinear and again in the DequantizeLinear behind it: one fault."""
        nodes = self.index.nodes
        for s in self.layers.values():
            if self.found.get(s.number) == "culprit" and nodes[s.pair.main].op_type == "DequantizeLinear":
                before = self._made_by(nodes[s.pair.main].input[0])
                if before is not None and self.found.get(before.number) == "culprit":
                    self.found[s.number] = "inherited"

    def _saturated_before(self) -> None:
        """Inputs beyond their calibrated range take other tensors beyond theirs: one fault."""
        beyond = {n: fact.given for n, fact in self._first_facts() if isinstance(fact, BeyondCalibration)}
        if any(beyond.values()):
            self.found.update({number: "inherited" for number, given in beyond.items() if not given})
        else:
            self._calibrated_behind(beyond)

    def _calibrated_behind(self, beyond: Collection[int]) -> None:
        """Ranges that were calibrated behind a fault hold what the network makes with it, and not the reference's
        values: no faults of their own, where they differ by no more than what they are of. ``beyond``: numbers of the
        layers whose range is exceeded."""
        source: dict[int, int] = {}
        spoilt: dict[int, tuple[str, ...]] = {}
        for number, s in self.layers.items():
            makers = [self.maker[n] for n in s.pair.reference.inputs if n in self.maker]
            above = next((source[m] for m in makers if m in source), None)
            spoils = above is not None and number in beyond and self._are_others(makers, number, above, beyond)
            if above is not None and (spoils or self._follows(s, makers)):
                if not self._by_one_scale(number, above):
                    spoilt[above] = (*spoilt.get(above, ()), self.index.names[s.pair.main])
                self.found[number] = "inherited"
            elif self.found.get(number) == "culprit":
                above = number
            if above is not None:
                source[number] = above
        for number, layers in spoilt.items():
            diagnosis = self.layers[number].diagnosis
            if diagnosis is not None:
                told = diagnosis.adding(CalibratedBehind(layers))
                self.layers[number] = replace(self.layers[number], diagnosis=told)

    def _by_one_scale(self, *numbers: int) -> bool:
        """Whether layers have one scale for values that lie beyond it: it is wrong once."""
        first = dict(self._first_facts())
        facts = (first.get(number) for number in numbers)
        said = [fact.stored for fact in facts if isinstance(fact, BeyondCalibration)]
        return None not in said and len(said) == len(numbers) and len({(s.scale, s.zero) for s in said if s}) == 1

    def _follows(self, s: LayerObservation, makers: Sequence[int]) -> bool:
        """Whether all that is wrong of a culprit is a range that differs by what the values do that it is of, on the
        candidate's own: those that are rounded to it, which a layer makes or is given."""
        if self.found.get(s.number) != "culprit" or s.diagnosis is None:
            return False
        node = s.diagnosis.node
        if node is not None and operator(self.index.nodes[node]) == "DequantizeLinear":
            return False  # what reads integers has no range of its own
        change = range_change(s.diagnosis.facts)
        if change is None:
            return False
        around = [*(self.layers[m] for m in makers), s, *self.healing.reading(s)]
        floats = [layer for layer in around if all(map(self.healing.rounds, layer.pair.reference.outputs))]
        seen = (layer.cumulative_error for layer in floats if layer.cumulative_error < math.inf)
        return change <= FOLLOWS * max(seen, default=0.0)

    def _are_others(self, makers: Collection[int], number: int, above: int, beyond: Collection[int]) -> bool:
        """Whether layers make other values on the candidate's own: no rounding of the reference's.

        Args:
            makers: The layers, whose values another one reads.
            number: That one, whose range is exceeded.
            above: A culprit before it.
            beyond: All layers whose range is exceeded.
        """
        off = max((e for m in makers if (e := self.layers[m].cumulative_error) < math.inf), default=0.0)
        # what is cut off is no more than that by which the fault has moved what was calibrated
        lost, made = self.layers[number].local_error, self.layers[above].local_error
        return off > SPOILT or (above not in beyond and min(off, made) > lost)

    def _wide_before(self) -> None:
        """An input whose range is far wider than the data leaves those behind it so, too: one fault, at its reader."""
        wide = {n: fact.given for n, fact in self._first_facts() if isinstance(fact, WiderThanData)}
        if not any(wide.values()):
            return
        first = next(number for number, given in wide.items() if given)
        others = [number for number, given in wide.items() if not given]
        self.found.update(dict.fromkeys(others, "inherited"))
        diagnosis = self.layers[first].diagnosis
        if others and diagnosis is not None:  # its share is not that of all of them
            more = diagnosis.adding(BehindToo(len(others)))
            self.layers[first] = replace(self.layers[first], diagnosis=more, contribution=None)

    def _first_facts(self) -> Iterator[tuple[int, Fact]]:
        """What is told first of each culprit, by its number."""
        for number, s in self.layers.items():
            if self.found.get(number) == "culprit" and s.diagnosis is not None and s.diagnosis.facts:
                yield number, s.diagnosis.facts[0]

    def _declared_once(self) -> None:
        """A format that the runner does not declare is in all of its layers: one fault, at the first of them."""
        guilty = [n for n, s in self.layers.items() if s.undeclared and self.found.get(n) == "culprit"]
        self.found.update(dict.fromkeys(guilty[1:], "inherited"))

    # -- the rest -----------------------------------------------------------------------------------------------

    def _inherit(self) -> dict[int, LayerVerdict]:
        """Verdicts on the layers that have none yet. Returns those on the outputs beside guilty ones."""
        beside: dict[int, LayerVerdict] = {}
        tainted: set[int] = set()
        for s in self.layers.values():
            above = any(self.maker[n] in tainted for n in s.pair.reference.inputs if n in self.maker)
            inherits = above and not self.healing.quiet(s)
            if s.number not in self.found:
                self.found[s.number] = _of_innocent(s, inherits)
            if self.found[s.number] == "culprit" or above:
                tainted.add(s.number)
            if s.blamed_outputs != s.pair.reference.outputs:
                beside[s.number] = "inherited" if inherits else "ok"
        return beside


def _stated(s: LayerObservation) -> list[Difference]:
    """What the graphs, matched, say of a layer, as far as it is told."""
    facts = () if s.diagnosis is None else s.diagnosis.facts
    return [f.difference for f in facts if isinstance(f, GraphsDiffer) and not isinstance(f, OperatorsAlone)]


def _measures(s: LayerObservation) -> bool:
    """Whether a layer was found to depend on what it is given at once, by the range that it measures."""
    return s.diagnosis is not None and any(isinstance(fact, RangeOfAll) for fact in s.diagnosis.facts)


def _of_innocent(s: LayerObservation, inherits: bool) -> LayerVerdict:
    if s.pair.random or (not s.local and not s.cumulative):
        return "unknown"
    if inherits and s.cumulative_error > GROWN * s.local_error:
        return "inherited"
    if not s.local or s.not_built is not None or (s.judgement is not None and not s.judgement.known):
        return "unknown"
    return "ok"


def _excused_by_step(s: LayerObservation) -> bool:
    """Whether a layer's error would exceed its noise, were it not smaller than the step among the subnormals."""
    j = s.judgement
    return j is not None and not s.exceeds_noise and j.rms_z is not None and j.rms_z > RMS_LIMIT[True]
