"""The format in which the candidate can lose what the reference holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...graph.formats import BY_DTYPE, FP32, NumberFormat
from ...graph.rounding.widening import is_narrow

if TYPE_CHECKING:
    from ..lockstep.plan import LayerPair
    from ..sides import Side


def narrow_format(reference: Side, candidate: Side, pair: LayerPair) -> NumberFormat | None:
    """See `CaseFormats.narrow`.

    Args:
        reference, candidate: Who is compared.
        pair: The layer.
    """
    found = _narrowest(candidate, pair)
    return found if found is not None and found.u > reference.runner.arithmetic.u else None


def _narrowest(candidate: Side, pair: LayerPair) -> NumberFormat | None:
    index = candidate.model.index
    for position in pair.candidate.nodes:  # what the graph's types say is law, whatever the runner computes in
        for name in (*index.nodes[position].input, *index.nodes[position].output):
            spec = index.specs.get(name)
            if spec is not None and is_narrow(spec.dtype):
                return BY_DTYPE[spec.dtype.name]
    fmt = candidate.runner.arithmetic
    return fmt if not fmt.is_integer and fmt.u > FP32.u else None
