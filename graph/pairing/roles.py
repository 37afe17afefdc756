"""Which tensor of the candidate stands for which of the reference, once nodes are matched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..operators import RESHAPES
from ..quantized.layouts import with_channels_last
from ..specs import TensorSpec, is_float
from .pairs import Pairing, compatible
from .read_twice import read_twice

Slots = list[tuple[str, str]]


def roles(pairing: Pairing) -> dict[str, str]:
    """Reference root -> candidate root, where every matched reader of the one reads the other in the same place."""
    votes: dict[str, set[str]] = {}
    for name in pairing.outputs:
        a, b = pairing.r.alias.get(name, name), pairing.c.alias.get(name, name)
        votes.setdefault(a, set()).add(b)
    for n, m in pairing.nodes.items():
        if n in pairing.changed or scaled_otherwise(pairing, n, m):
            continue
        left, right = pairing.r.fine.nodes[n].inputs, pairing.c.fine.nodes[m].inputs
        if pairing.r.forms[n].commutative and pairing.c.forms[m].commutative:
            found = _in_any_order(pairing, left, right)
        else:  # MatMul and Gemm name their slots alike (a, b); other families have one schema
            slots = dict(right)
            found = [(name, slots[slot]) for slot, name in left if slot in slots]
        twice = read_twice(pairing, n, m)
        for name, other in found:
            if twice is not None and name == twice.reference:  # it is another tensor there
                continue
            votes.setdefault(name, set()).add(other)
    agreed = {name: next(iter(others)) for name, others in votes.items() if len(others) == 1}
    return {
        a: b
        for a, b in agreed.items()
        if compatible(pairing.r.shape(a), pairing.c.shape(b)) and pairing.same_factor(a, b)
    }


def scaled_otherwise(pairing: Pairing, n: int, m: int) -> bool:
    """Whether a factor was multiplied into one of two products: what it reads is another tensor then."""
    steps = pairing.r.forms[n], pairing.c.forms[m]
    scales = [step.settings.get("alpha", 1.0) for step in steps]
    return any("FusedMatMul" in step.op for step in steps) and scales[0] != scales[1]


def _in_any_order(pairing: Pairing, left: Slots, right: Slots) -> list[tuple[str, str]]:
    """What two commutative nodes read, as pairs: first what is matched, then what comes from the same node of the
    skeleton, then what is left over."""
    found: list[tuple[str, str]] = []
    left, right = list(left), list(right)
    for same in (pairing.paired, pairing.same_source):
        for item in list(left):
            twins = [other for other in right if same(item[1], other[1])]
            if len(twins) == 1 or (twins and same == pairing.paired):
                found.append((item[1], twins[0][1]))
                left.remove(item)
                right.remove(twins[0])
    if len(left) == 1 and len(right) == 1:
        found.append((left[0][1], right[0][1]))
    return found


def as_read(pairing: Pairing, a: str, b: str, n: int, m: int, roles: Mapping[str, str]) -> str:
    """What of the candidate stands for ``a``, if node ``m``, which makes ``b``, does what makes ``a``.

    Whoever reads ``a`` may read what nodes that only the candidate has make of ``b``: these belong to it then. Of
    two operators, or where outputs of ``m`` have each other's names, that may be another output of ``m``. What may have
    another layout does not stand for it.

    Args:
        pairing: Which nodes are matched.
        a, b: Outputs of the two nodes, in the same place.
        n, m: The nodes.
        roles: See `roles`.
    """
    other = roles.get(a, b)
    if other in pairing.c.index.nodes[m].output:
        return other if other == a or pairing.r.forms[n].op != pairing.c.forms[m].op else b
    waiting, seen = [other], set()
    while waiting:
        name = waiting.pop()
        position = pairing.c.index.producer.get(name)
        if name == b or name in seen:
            continue
        seen.add(name)
        if position is None or position in pairing.taken or position not in pairing.c.forms:
            return b
        op, shape = pairing.c.index.nodes[position].op_type, pairing.r.shape(a) or (None,)
        if op in ("Transpose", *RESHAPES) and (None in shape or shape != pairing.c.shape(other)):
            return b
        if op == "Transpose" and shape == pairing.c.shape(b):  # it exchanges axes of one size
            return b
        waiting.extend(read for _, read in pairing.c.fine.nodes[position].inputs)
    return other


def made_of(pairing: Pairing, before: str, name: str) -> bool:
    """Whether the reference makes a tensor of another one."""
    first = pairing.r.index.producer.get(before, -1)
    waiting, seen = [name], {name}
    while waiting:
        here = waiting.pop()
        if here == before:
            return True
        position = pairing.r.index.producer.get(here, -1)
        if position > first and position in pairing.r.fine.nodes:
            new = {read for _, read in pairing.r.fine.nodes[position].inputs} - seen
            seen |= new
            waiting.extend(new)
    return False


def tensor_names(pairing: Pairing, pairs: Mapping[str, str]) -> dict[str, str]:
    """Pairs of roots as pairs of names: the same name where an alias carries it, else the same dtype, unless that is
    what a Cast makes of a narrower type, which rounds whatever the name."""
    tensors: dict[str, str] = {}
    specs, others = pairing.r.index.specs, pairing.c.index.specs
    wanted = set(pairing.r.index.outputs)
    shared = Counter(pairs.values())
    last, others_last = (with_channels_last(view.index) for view in (pairing.r, pairing.c))
    for a, b in pairs.items():
        every = pairing.c.classes.get(b, [b])
        for name in pairing.r.classes.get(a, [a]):
            if name in wanted and name not in pairing.outputs:
                continue
            # what the candidate leaves out, its quantizer may do instead: a Relu whose range begins at zero
            left_out = pairing.c.skips and shared[b] > 1 and pairing.r.index.producer.get(a) not in pairing.nodes
            if b in pairing.c.invented and shared[b] > 1 and not left_out:
                continue  # the kernel writes what is behind its quantizer, which is the later tensor
            rank = pairing.r.index.rank(name)
            names = [o for o in every if None in (rank, other := pairing.c.index.rank(o)) or rank == other]
            names = [o for o in names if (name in last) == (o in others_last)]  # one shape may be that of both layouts
            same_kind = _comparable(specs.get(name), others.get(name))
            if name in names and same_kind and (name in wanted or not left_out):
                tensors[name] = name
                continue
            if name in wanted:
                continue  # an output of both graphs that is another tensor there: see below
            spec = specs.get(name)
            widened = b in names and _narrower(others.get(b), spec)
            same = [o for o in names if spec and (s := others.get(o)) is not None and s.dtype == spec.dtype]
            alike = [] if widened else same
            found = alike[-1 if left_out else 0] if alike else next((o for o in (b, *names) if o in names), None)
            if found is not None and _comparable(spec, others.get(found)):
                tensors[name] = found
    tensors.update(pairing.outputs)
    return tensors


def _narrower(one: TensorSpec | None, other: TensorSpec | None) -> bool:
    """Whether one tensor holds floats of fewer bytes than the other."""
    if one is None or other is None or not is_float(one.dtype) or not is_float(other.dtype):
        return False
    return one.dtype.itemsize < other.dtype.itemsize


def _comparable(one: TensorSpec | None, other: TensorSpec | None) -> bool:
    """Whether two tensors may hold the same values, as far as their types are known: floats, or none of both. Signed
    and unsigned integers of one size are levels of other zero points, of which what they stand for is compared."""
    if one is None or other is None or is_float(one.dtype) != is_float(other.dtype):
        return one is None or other is None
    return {one.dtype.kind, other.dtype.kind} != {"i", "u"} or one.dtype.itemsize != other.dtype.itemsize
