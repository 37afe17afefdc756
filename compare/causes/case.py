"""What a cause is looked for in: one layer on one sample, with all that is known of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...graph.formats import NumberFormat
from ...graph.specs import is_float

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.model import Model
    from ...graph.pairing.differences import Difference
    from ...graph.quantized.quantizers import Grid
    from ...graph.specs import Arrays
    from ..lockstep.plan import LayerPair
    from .diagnosis import Diagnosis
    from .expected_noise import Expected
    from .judgement import Judgement
    from .quantized_layer import QuantizedLayer
    from .stored_scale import StoredScale


DOMINANT = 0.7
"""Share of the final error from which a layer of mere rounding is named all the same: half of its power."""

MOST = 0.6
"""The same for a layer that makes more of the error than all others together."""


@dataclass(frozen=True)
class CaseFormats:
    """The number formats in play in a layer.

    Attributes:
        candidate: What the candidate's runner computes in.
        narrow: The format that can lose what the reference holds: a type in the candidate's graph, or else the
            candidate's arithmetic. None where the reference computes in a format as narrow: what it holds, that holds.
        coarse: Whether one side rounds coarser than FP32 in this layer.
        quantized: Whether the candidate's graph quantizes what the layer is given, and the reference's does not.
        result_step: Standard deviation of the rounding of the result to a scaled integer.
    """

    candidate: NumberFormat
    narrow: NumberFormat | None
    coarse: bool
    quantized: bool
    result_step: float


@dataclass(frozen=True)
class LayerCase:
    """A layer that is beyond its expected noise on one sample.

    Attributes:
        pair: The layer.
        judgement: In what it exceeds its noise.
        values: The reference's tensors: the layer's inputs and outputs.
        made: The candidate's outputs from the same inputs, by the candidate's names.
        expected: What rounding is expected to do to them.
        formats: The number formats in play.
        graphs: The reference's graph and the candidate's; one object where both run one file.
        differences: What differs in the graphs at the layer's nodes: position in the reference's graph, difference.
        look_inside: Gives the numbers inside the layer, as the reference computes them; of those that cannot be
            computed, none.
        operands: Gives what the layer's main product reads on both sides, or what a layer makes that scales, shifts or
            only moves what it reads; None of other layers, and where that cannot be computed.
        entry: Which entry of the batch the arrays are the only one of.
        grids: Of the tensors that the layer is given and gives, and of those inside, what the candidate rounds them to,
            where it holds them as scaled integers.
        stored: Of these, what the candidate's file says of what rounds them, where it has one scale.
        reweighted: Gives the output that is off as the reference computes it with other values of some of its weights,
            of what it reads, or of what nodes inside make; None where that cannot be computed, or is no floats.
        ends_finite: Whether the candidate, deployed, is known to have no output that is not finite.
        altered: Gives what the candidate makes of the layer, by its names, with another piece of a graph in place of
            its own, and with other values of what it is given; None where that cannot be computed, or there is nothing
            to alter.
        reference_altered: Gives the output that is off as the reference computes it with another piece of a graph in
            place of its own; None where that cannot be computed, there is nothing to alter, or it is no floats.
        judged: Gives the judgement on the layer where the candidate makes something else of it.
        look_inside_candidate: Gives the floating tensors inside the layer as the candidate computes them from the
            reference's values; none where that cannot be computed.
        whole: The layer that this one was taken out of, where both sides compute that with other operators.
        origins: Tensors of the candidate -> those of the reference that they are.
    """

    pair: LayerPair
    judgement: Judgement
    values: Arrays
    made: Arrays
    expected: Expected
    formats: CaseFormats
    graphs: tuple[GraphIndex, GraphIndex]
    differences: tuple[tuple[int, Difference], ...]
    look_inside: Callable[[], Arrays]
    operands: Callable[[], tuple[np.ndarray, np.ndarray] | None]
    entry: int = 0
    grids: Mapping[str, Grid] = field(default_factory=dict)
    reweighted: Callable[[Arrays], np.ndarray | None] = lambda _: None
    ends_finite: bool = False
    altered: Callable[[Callable[[Model], Model | None], Arrays], Arrays | None] = lambda _, given: None
    reference_altered: Callable[[Callable[[Model], Model | None]], np.ndarray | None] = lambda _: None
    judged: Callable[[Arrays], Judgement | None] = lambda _: None
    look_inside_candidate: Callable[[], Arrays] = dict
    whole: LayerPair | None = None
    origins: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, StoredScale] = field(default_factory=dict)

    @property
    def tensor(self) -> str:
        """The output that is off."""
        return self.judgement.tensor or self.pair.reference.outputs[0]

    @property
    def y(self) -> np.ndarray:
        """What the reference has there."""
        return self.values[self.tensor]

    @property
    def c(self) -> np.ndarray:
        """What the candidate has there."""
        return self.made[self.twin]

    @property
    def twin(self) -> str:
        """What the candidate calls the output that is off."""
        return self.pair.candidate.outputs[self.pair.reference.outputs.index(self.tensor)]

    @functools.cached_property
    def inner(self) -> Arrays:
        """The floating tensors inside the layer, as the reference computes them."""
        return {name: value for name, value in self._inside.items() if is_float(value.dtype)}

    @functools.cached_property
    def _inside(self) -> Arrays:
        return self.look_inside()

    @functools.cached_property
    def candidate_inner(self) -> Arrays:
        """The floating tensors inside the layer, as the candidate computes them from the reference's values."""
        return self.look_inside_candidate()

    def judged_with(self, alter: Callable[[Model], Model | None], given: Arrays | None = None) -> Judgement | None:
        """The judgement where the candidate's piece is altered, and given other values; None where it cannot be run."""
        made = self.altered(alter, given or {})
        return None if made is None else self.judged(made)

    def right_with(self, alter: Callable[[Model], Model | None], given: Arrays | None = None) -> bool:
        """Whether the layer gives what it should then."""
        left = self.judged_with(alter, given)
        return left is not None and not left.exceeds_noise

    def known(self, name: str) -> np.ndarray | None:
        """What the reference has in a tensor of the layer: one that it is given or gives, or else one inside."""
        return self.values[name] if name in self.values else self._inside.get(name)


ENLARGES = 8.0
"""Times the rounding of a result that a layer's error has to be for the layer to enlarge the rounding of its inputs. A
product's is 2."""


@dataclass(frozen=True)
class LoudLayer:
    """The layer that contributes most to outputs that disagree, where no layer is beyond its expected noise.

    Attributes:
        judgement: Its local error.
        contribution: Share of the candidate's whole error at the outputs.
        plain_rounding: The relative error of a result that is rounded and nothing else.
        shares: Name and contribution of the layers that contribute most, itself first.
        name, op: The node that does its arithmetic, and its operator.
        readers: The nodes that read its outputs: name and operator.
        coordinates: Whether one of them reads these as coordinates.
        growth: How many times its local error the error is that it makes at the outputs.
        stated: What the graphs say of it, rounding to a format aside, where an output fails; None where they say the
            same.
        quantized: What of it is rounded to scaled integers to most effect; None where nothing is.
        source: The one tensor that it computes from; empty where there are several, or where no layer makes it.
        beside: Other layers that compute from that tensor alone, and enlarge its rounding too: name and operator.
        same: Names of layers that show the same weakness: those, makers of what it computes from, readers that enlarge
            its rounding.
        joins: Name of the Concat that puts its result together, where that is what is rounded.
    """

    judgement: Judgement
    contribution: float
    plain_rounding: float
    shares: tuple[tuple[str, float], ...]
    name: str = ""
    op: str = ""
    readers: tuple[str, ...] = ()
    coordinates: bool = False
    quantized: QuantizedLayer | None = None
    growth: float = 1.0
    stated: Diagnosis | None = None
    source: str = ""
    beside: tuple[tuple[str, str], ...] = ()
    same: frozenset[str] = frozenset()
    joins: str = ""

    @property
    def holds_most(self) -> bool:
        """Whether it makes more of the final error than all others together, as far as they were measured, but for
        those that show the same weakness."""
        power = sum(share**2 for name, share in self.shares if name not in self.same)
        return self.contribution >= MOST and self.contribution**2 > 0.5 * power

    @property
    def enlarges(self) -> bool:
        """Whether it enlarges the rounding of what it is given."""
        return self.judgement.relative > ENLARGES * self.plain_rounding
