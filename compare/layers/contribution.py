"""How much of the final error a layer explains: copies of the reference in which it alone is the candidate's."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.slices import backward, slice_model
from ...graph.errors import LayerdiffError
from ...graph.specs import Arrays, TensorSpec, cast, specs_of
from ..lockstep.plan import LayerPair, PiecePair
from ..runs.repeatability import same_bits
from ..runs.spill import Store
from .portion import Portion, Squares, ratio, squares
from .rescaled import Rescaled

if TYPE_CHECKING:
    from ...runners.contract.session import Session
    from ..sides import Side

log = logging.getLogger(__name__)

SUSPECTS = 8
"""Most layers whose contribution is measured while they are judged: each costs one more pass to the outputs."""


@dataclass
class _Stream:
    """A run of the reference with one layer taken from the candidate.

    Attributes:
        number: The layer.
        sample: The sample it runs on.
        values: Tensors in which it differs from the reference, as far as they are still needed.
        stopped: The reference cannot go on with them, so nothing is known of the outputs.
    """

    number: int
    sample: int
    values: dict[str, np.ndarray]
    stopped: bool = False


class Contributions:
    """The streams of one walk.

    Args:
        reference: The runner that is believed, and its model.
        candidate: Who is judged.
        tensors: Tensors of the reference -> tensors of the candidate.
        last: The last step that reads each tensor; outputs of the model are read after all steps.
        most: How many there may be.
        portion: The entries of the batch that they are carried on; None: all.

    Attributes:
        streams: Those that were begun.
    """

    def __init__(
        self,
        reference: Side,
        candidate: Side,
        tensors: Mapping[str, str],
        last: Mapping[str, int],
        most: int = SUSPECTS,
        portion: Portion | None = None,
    ) -> None:
        self.reference = reference
        self.rescaled = Rescaled(reference.model.index, candidate.model.index, tensors)
        self.last = last
        self.most = most
        self.portion = portion
        self.streams: list[_Stream] = []
        self._ground: Arrays | None = None

    def begin(self, step: PiecePair, values: Arrays, session: Callable[[], Session]) -> None:
        """Begins a piece: the reference is run on the entries that streams are carried on.

        Args:
            step: The piece.
            values: The reference's tensors of it.
            session: Gives the reference's session on it.

        Raises:
            Mixed: The entries of the batch are not computed each by itself.
        """
        self._ground = None if self.portion is None else self.portion.run(step, values, session(), self.last)

    def start(self, step: PiecePair, pair: LayerPair, sample: int, made: Arrays, values: Arrays, whole: bool) -> None:
        """Begins a stream in which a layer's output is the candidate's, and takes it to the end of the piece.

        Args:
            step: The piece.
            pair: The layer.
            sample: Number of the sample.
            made: The candidate's outputs of the layer, by the candidate's names. Integers with another scale go on from
                behind the DequantizeLinear that reads them, which has that scale too.
            values: The reference's tensors of the piece.
            whole: Whether the reference runs whole models only: the stream then waits for `finish`.

        Raises:
            Mixed: See `begin`.
        """
        if len(self.streams) >= self.most or any(s.number == pair.number for s in self.streams):
            return
        given = None if self.rescaled.read_by(pair) else self.rescaled.handed_on(pair, made, values)
        if given is None:
            return
        taken = {name: cast(array, TensorSpec(name, values[name].dtype, None)) for name, array in given.items()}
        if self.portion is not None and self._ground is not None:
            own = self._ground
            taken = {name: self.portion.taken(own[name], values[name], array) for name, array in taken.items()}
            values = own
        stream = _Stream(pair.number, sample, dict(taken))
        self.streams.append(stream)
        if whole:
            return
        after = _downstream(taken, step)
        if not after:
            return
        available = {*step.reference.inputs, *(n for p in step.layers for n in p.reference.outputs)}
        part = backward(self.reference.model.index, after, (available - set(after)) | set(taken))
        source = {**values, **taken}
        if any(n not in source for n in part.inputs):
            return
        feed = {n: source[n] for n in part.inputs}
        try:
            with self.reference.runner.session(slice_model(self.reference.model, part, specs_of(feed))) as session:
                stream.values.update(session.infer(feed, after))
        except LayerdiffError as error:
            stream.stopped = True
            log.debug("no contribution of layer %d: %s", pair.number, error)

    def carry(
        self,
        step: PiecePair,
        sample: int,
        values: Arrays,
        session: Callable[[], Session],
        theirs: Arrays | None = None,
    ) -> None:
        """Takes the streams of earlier pieces through this one, on the reference's session.

        Args:
            step, sample, values, session: As of `start` and `begin`.
            theirs: The candidate's own values of a piece in which both sides are one program, what it reads and what it
                makes of it: a stream of the same values goes on with the latter.
        """
        mine = {p.number for p in step.layers}
        values = values if self._ground is None else self._ground
        drawn = {n for p in step.layers if p.random for n in p.reference.outputs}  # these stay the reference's
        wanted = [n for n in step.reference.outputs if self.last.get(n, -1) > step.index and n not in drawn]
        for stream in self.streams:
            if stream.sample != sample or stream.stopped:
                continue
            moved = stream.number not in mine and any(n in stream.values for n in step.reference.inputs)
            if moved and wanted:
                self._advance(step, stream, values, wanted, session, theirs)
            for name in [n for n in stream.values if self.last.get(n, -1) <= step.index]:
                del stream.values[name]

    def _advance(
        self,
        step: PiecePair,
        stream: _Stream,
        values: Arrays,
        wanted: list[str],
        session: Callable[[], Session],
        theirs: Arrays | None,
    ) -> None:
        source = {**values, **stream.values}
        own = theirs if theirs is not None and self.portion is None else {}
        try:
            if own and all(n in own and same_bits(own[n], source[n]) for n in step.reference.inputs):
                made = {name: own[name] for name in wanted}
            else:
                made = session().infer({n: source[n] for n in step.reference.inputs}, wanted)
        except LayerdiffError as error:
            stream.stopped = True
            log.debug("contribution of layer %d stops: %s", stream.number, error)
            return
        for name, array in made.items():
            if array.shape != values[name].shape or not np.array_equal(array, values[name]):
                stream.values[name] = array

    def finish(
        self,
        store: Store,
        errors: Squares,
        outputs: Collection[str],
        feed_of: Callable[[int], Arrays],
        whole: Session | None,
    ) -> dict[int, float]:
        """Share of the candidate's whole error at the outputs, by layer: sums of squares relative to each output's
        power, and the root of their ratio. Shares do not add up to one.

        Args:
            store: Holds the reference's outputs.
            errors: The candidate's.
            outputs: Names of outputs that are compared.
            feed_of: Gives a sample.
            whole: The session of a reference that runs whole models only.

        Raises:
            Mixed: See `begin`.
        """
        result = {}
        for stream in self.streams:
            if stream.stopped:
                continue
            if whole is not None and not self._feed_whole(stream, feed_of(stream.sample), outputs, whole):
                continue
            alone, all_of_it = 0.0, 0.0
            for name in outputs:
                error = errors.get((stream.sample, name))
                if error is None or not store.has("reference", stream.sample, name):
                    continue
                expected = store.get("reference", stream.sample, name)
                if self.portion is not None:
                    expected, error = self.portion.output(name, expected, error), error[self.portion.entries]
                alone += ratio(squares(expected, stream.values.get(name, expected)))
                all_of_it += ratio(error)
            share = share_of_error(alone, all_of_it)
            if share is not None:
                result[stream.number] = share
        return result

    def _feed_whole(self, stream: _Stream, feed: Arrays, outputs: Collection[str], whole: Session) -> bool:
        """Lets a reference that runs whole models take the layer's output as an input."""
        if not self.reference.runner.capabilities.feeds_inner_tensors:
            return False
        try:
            stream.values.update(whole.infer({**feed, **stream.values}, list(outputs)))
        except LayerdiffError as error:
            log.debug("no contribution of layer %d: %s", stream.number, error)
            return False
        return True


def share_of_error(alone: float, all_of_it: float) -> float | None:
    """What one layer contributes to the squared error of all; None where that cannot be told: beside an error that is
    not finite, a finite one may be what others made infinite."""
    if not all_of_it or (math.isfinite(alone) and not math.isfinite(all_of_it) and alone):
        return None
    if not math.isfinite(all_of_it):
        return float(not math.isfinite(alone))
    share = math.sqrt(alone / all_of_it)
    return share if math.isfinite(share) else None


def _downstream(taken: Collection[str], step: PiecePair) -> list[str]:
    """The observed tensors of a step that depend on the tensors that were taken. Random values do not."""
    reached = set(taken)
    result: list[str] = []
    for pair in step.layers:
        if not pair.random and any(n in reached for n in pair.reference.inputs):
            reached.update(pair.reference.outputs)
            result.extend(n for n in pair.reference.outputs if n not in taken)
    return result
