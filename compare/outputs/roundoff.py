"""The network whose roundings are drawn to measure the expected error, and where it rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...graph.formats import BY_DTYPE
from ...graph.pairing.cast_pairs import cast_pairs, narrowing_casts
from ...graph.rounding.rounding_sides import Roundoff
from ...graph.rounding.roundings import computes_in_fp64
from ...graph.rounding.stored_weights import stored_weights
from ...graph.specs import dtype_name
from .formats_in_play import on_the_way

if TYPE_CHECKING:
    from ...graph.formats import NumberFormat
    from ...graph.model import Model
    from ..sides import Side


def roundoff(reference: Side, candidate: Side, fp16_sums: frozenset[str] = frozenset()) -> tuple[Side, Roundoff]:
    """The network whose roundings are to be drawn, and where they are.

    It is the reference's, unless the candidate's graph is another one that itself holds narrow types, or weights in
    them: those are where its roundings are.
    """
    mine, theirs = reference.runner.arithmetic, candidate.runner.arithmetic
    another = candidate.model is not reference.model
    stored = stored_weights(candidate.model) if another and not stored_weights(reference.model) else {}
    own = stored or (another and narrow_types(candidate.model) - narrow_types(reference.model))
    mine64, theirs64 = (computes_in_fp64(s.model.index, s.model.index.nodes) for s in (reference, candidate))
    inputs = cast_inputs(candidate.model) if another else {}
    pairs = cast_pairs(reference.model.index, candidate.model.index) if own else ()
    islands = narrowing_casts(candidate.model.index) if own else frozenset()
    found = Roundoff(
        mine,
        theirs,
        candidate.runner.accumulator,
        fp16_sums,
        every_node=candidate.runner.rounds_every_node,
        rounded_weights=bool(own),
        inputs=tuple(inputs.items()),
        doubles=not own and mine64 and not theirs64,
        casts=islands.union(pair.narrow for pair in pairs if pair.source not in inputs),
        stored=tuple(stored.items()),
    )
    return (candidate if own else reference), found


def cast_inputs(model: Model) -> dict[str, NumberFormat]:
    """Inputs of a model that it reads through casts to a coarser floating type alone, and that type."""
    index, found = model.index, {}
    for spec in model.inputs:
        readers = [index.nodes[position] for position in index.consumers.get(spec.name, ())]
        types = {dtype_name(s.dtype) for node in readers for n in node.output if (s := index.specs.get(n)) is not None}
        given = BY_DTYPE.get(dtype_name(spec.dtype))
        taken = BY_DTYPE.get(types.pop()) if len(types) == 1 else None
        if given is None or taken is None or any(node.op_type != "Cast" for node in readers):
            continue
        if taken.u > given.u:
            found[spec.name] = taken
    return found


def narrow_types(model: Model) -> frozenset[str]:
    """FP16 and BF16 where the graph's own tensors have them on the way to an output."""
    index = model.index
    nodes = on_the_way(index, index.outputs)
    names = {n for p in nodes for n in (*index.reads[p], *index.nodes[p].output)}
    found = {dtype_name(spec.dtype) for name in names if (spec := index.specs.get(name)) is not None}
    return frozenset(found & {"float16", "bfloat16"})
