"""A layer run once more on what it was given: what it has inside, what it makes when altered, and its nodes apart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ...graph.cutting.slices import backward, explode, slice_model, with_weights
from ...graph.errors import LayerdiffError
from ...graph.rounding.widening import to_fp32, widened
from ...graph.specs import Arrays, held, is_float, specs_of
from ..lockstep.parts import opened_part

if TYPE_CHECKING:
    import numpy as np

    from ...graph.cutting.slices import Slice
    from ...graph.index import GraphIndex
    from ...graph.model import Model
    from ...runners.contract.runner import Runner
    from ..lockstep.plan import LayerPair
    from ..sides import Side

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reruns:
    """Runs layers once more.

    Attributes:
        reference, candidate: Who is compared.
        runner: Who computes what the reference has inside.
        matched: Tensors of the reference -> tensors of the candidate, inner ones included.
        observed: The same of the tensors at the borders of layers.
    """

    reference: Side
    candidate: Side
    runner: Runner
    matched: Mapping[str, str]
    observed: Mapping[str, str]

    def inner(self, pair: LayerPair, values: Arrays) -> Arrays:
        """The numbers inside a layer, as the reference computes them."""
        names = list(_inside(self.reference.model.index, pair.reference, integers=True))
        return self.computed(pair, names, values) if names else {}

    def candidate_inner(self, pair: LayerPair, values: Arrays) -> Arrays:
        """The floating tensors inside a layer as the candidate computes them from the reference's values; none where
        that cannot be computed."""
        index, outer = self.candidate.model.index, pair.candidate
        names = list(_inside(index, outer))
        feed = self.fed(outer.inputs, values)
        if not names or feed is None:
            return {}
        try:
            whole = backward(index, [*names, *outer.outputs], set(outer.inputs))
            given = {n: feed[n] for n in whole.inputs}
            part = slice_model(self.candidate.model, whole, specs_of(given))
            with opened_part(self.candidate, part, given) as session:
                made = session.infer(given)
        except (LayerdiffError, KeyError) as error:
            log.debug("cannot look inside the candidate's %s: %s", outer.outputs, error)
            return {}
        return {n: made[n] for n in names}

    def computed(self, pair: LayerPair, names: Sequence[str], values: Arrays) -> dict[str, np.ndarray]:
        """Tensors inside a layer from what it is given; none where they cannot be computed."""
        if not self.reference.runner.capabilities.any_model:  # it has another network: what it gave is all there is
            return {n: values[n] for n in names if n in values}
        model = self.reference.model
        part = backward(model.index, [*names, *pair.reference.outputs], set(pair.reference.inputs))
        feed = {n: values[n] for n in part.inputs if n in values}
        if len(feed) < len(part.inputs):
            return {}
        try:
            with self.runner.session(widened(slice_model(model, part, specs_of(feed)))) as session:
                made = session.infer(to_fp32(feed))
        except LayerdiffError as error:
            log.debug("cannot look inside: %s", error)
            return {}
        return {n: made[n] for n in names}

    def reweighted(self, pair: LayerPair, tensor: str, values: Arrays, others: Arrays) -> np.ndarray | None:
        """See `LayerCase.reweighted`."""
        weights = {n: value for n, value in others.items() if n not in pair.reference.inputs}
        return self.reference_altered(pair, tensor, {**values, **others}, partial(with_weights, weights=weights))

    def reference_altered(
        self, pair: LayerPair, tensor: str, values: Arrays, alter: Callable[[Model], Model | None]
    ) -> np.ndarray | None:
        """See `LayerCase.reference_altered`."""
        if not self.reference.runner.capabilities.any_model or not is_float(values[tensor].dtype):
            return None
        feed = {n: values[n] for n in pair.reference.inputs}
        try:
            part = alter(slice_model(self.reference.model, pair.reference, specs_of(feed)))
            if part is None:
                return None
            with self.runner.session(widened(part)) as session:
                return session.infer(to_fp32(feed))[tensor]
        except LayerdiffError as error:
            log.debug("cannot compute the reference's %s altered: %s", pair.reference.outputs, error)
            return None

    def altered(
        self, pair: LayerPair, values: Arrays, alter: Callable[[Model], Model | None], given: Arrays
    ) -> Arrays | None:
        """See `LayerCase.altered`."""
        feed, can = self.fed(pair.candidate.inputs, values), self.candidate.runner.capabilities
        if feed is None or not (can.any_model and can.pieces):
            return None
        feed |= {n: held(value, self.candidate.model.index.specs.get(n)) for n, value in given.items()}
        try:
            model = alter(slice_model(self.candidate.model, pair.candidate, specs_of(feed)))
            if model is None:
                return None
            with opened_part(self.candidate, model, feed) as session:
                return session.infer(feed)
        except LayerdiffError as error:
            log.debug("cannot compute %s altered: %s", pair.reference.outputs, error)
            return None

    def fed(self, names: Iterable[str], values: Arrays) -> dict[str, np.ndarray] | None:
        """The reference's values by the candidate's names; None where some of them are not known."""
        back = {self.matched.get(n, n): n for n in values} | {v: k for k, v in self.observed.items()}
        sources = {n: back.get(n, n) for n in names}
        if any(source not in values for source in sources.values()):
            return None
        specs = self.candidate.model.index.specs
        return {n: held(values[source], specs.get(n)) for n, source in sources.items()}

    def apart(
        self, parts: Sequence[LayerPair], values: Arrays, side: Side | None = None
    ) -> Mapping[str, np.ndarray] | None:
        """What the candidate, or ``side`` in its place, makes of single nodes, each fed the reference's values; None
        where it cannot."""
        side = side or self.candidate
        feed = self.fed([n for p in parts for n in p.candidate.inputs], values)
        if not parts or feed is None:
            return None
        try:
            model = explode(self.candidate.model, [(p.number, p.candidate) for p in parts], specs_of(feed))
            with opened_part(side, model, feed) as session:
                return session.infer(feed)
        except LayerdiffError as error:
            log.debug("cannot take %s apart: %s", parts[-1].reference.outputs, error)
            return None


def _inside(index: GraphIndex, part: Slice, *, integers: bool = False) -> Iterable[str]:
    """The floating tensors that a layer makes inside, and maybe those of integers."""
    made = (n for p in part.nodes for n in index.nodes[p].output if n and n not in part.outputs)
    known = ((n, s.dtype) for n in made if (s := index.specs.get(n)) is not None)
    return (n for n, dtype in known if is_float(dtype) or (integers and dtype.kind in "iu"))
