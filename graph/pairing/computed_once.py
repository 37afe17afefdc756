"""Nodes that the candidate has once, for two of the reference that read different tensors: a simplifier made them one
since an export let both read the same."""

from __future__ import annotations

from collections.abc import Mapping

from .changes import ComputedOnce
from .differences import Difference, op_names
from .pairs import Pairing
from .read_twice import computed_alike
from .regions import Region


def computed_once(pairing: Pairing, pairs: Mapping[str, str], region: Region) -> Difference | None:
    """What the candidate computes of another tensor than the reference does, where it lacks nodes of which it has the
    like; None where it lacks them for another reason.

    Args:
        pairing: The matched nodes.
        pairs: Tensors that stand for each other.
        region: Nodes that the candidate lacks.
    """
    if region.candidate_nodes or len(region.outputs) != 1:
        return None
    ((made, other),) = region.outputs
    for twin in (a for a, b in pairs.items() if b == other and a != made):
        reads, seen = dict[tuple[str, str], None](), dict[int, int]()
        if not computed_alike(pairing, made, twin, reads, seen) or set(seen) != set(region.nodes) or len(reads) != 1:
            continue
        ((name, instead),) = reads
        meant = pairs.get(name) or pairing.counterpart(name)
        if meant is None or instead not in pairs or pairs[instead] == meant:
            continue
        ops = op_names(pairing.r.index, sorted(seen))
        twins = op_names(pairing.r.index, sorted(seen.values()))
        place = region.nodes[-1], pairing.c.index.producer.get(other, -1)
        return Difference(*place, ComputedOnce(ops, twins, name, pairs[instead], meant))
    return None
