"""Cuts and pieces: the places of a graph where few bytes are live, and what lies between two of them.

What may cross a border is decided by how a tensor came about (`Dataflow`). Constants, shape arithmetic and integer
paths that start at integer inputs never do: each piece computes them anew. Sequences and optionals never do either.
All other tensors may, and a cut costs their bytes.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..index import GraphIndex
from ..specs import TensorSpec
from .dataflow import Dataflow, Kind, dataflow

if TYPE_CHECKING:
    from .fusion import Group


@dataclass(frozen=True)
class Piece:
    """The part of a graph between two cuts.

    Attributes:
        index: Place in the order of running, from 0.
        nodes: Positions in ``graph.node``, ascending. Every node of a graph is in exactly one piece of a plan; what a
            piece computes a second time (shape arithmetic, constants) is not listed, `extract` adds it.
        inputs: Tensors that are read from outside, graph inputs among them.
        outputs: Tensors that later pieces read, and graph outputs.
        activations: Bytes of all tensors that the nodes write, each once, plus the inputs.
        weights: Bytes of the weights that are read.
        random: The piece is one random operator: what it drew in the reference is to be fed to the candidate.
        note: What the user should know, e.g. that nothing smaller could be cut. Empty otherwise.
    """

    index: int
    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    activations: int = 0
    weights: int = 0
    random: bool = False
    note: str = ""


@dataclass(frozen=True)
class _Unit:
    """What is never cut: a fused group with the recomputed nodes that belong to it."""

    nodes: tuple[int, ...]
    random: bool = False


def plan_pieces(
    index: GraphIndex,
    groups: Sequence[Group],
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    memory: int,
    specs: Mapping[str, TensorSpec] | None = None,
    most: int | None = None,
) -> list[Piece]:
    """Packs whole fused groups into pieces, cut where few bytes are live.

    Of all ways to cut between groups, takes the one with the fewest bytes at its borders plus a sixteenth of the budget
    for every piece, among those whose pieces fit the budget (dynamic programming over the order of the groups). A piece
    that does not fit is as small as can be, a single group where its borders are tensors, and says so in its note.

    Args:
        index: The graph.
        groups: Every node in exactly one group.
        shapes: Shapes of tensors where the graph leaves them open.
        memory: Budget in bytes for the weights of a piece and all the tensors it reads and writes, each once.
        specs: Types of tensors that ONNX shape inference cannot tell.
        most: Most groups that a piece may hold; None for no limit.

    Returns:
        Pieces in the order of running. Together they hold every node once.
    """
    flow = dataflow(index, specs)
    units = _units(flow, [g.nodes for g in groups])
    pieces = [_piece(flow, u, shapes) for u in _pack(flow, units, shapes, memory, most)]
    return [_noted(replace(piece, index=i), index, memory) for i, piece in enumerate(pieces)]


def _units(flow: Dataflow, groups: Iterable[Sequence[int]]) -> list[_Unit]:
    """The groups in an order in which they can run, recomputed nodes assigned to one of them each."""
    index = flow.index
    cores: list[tuple[int, ...]] = []
    loose: list[int] = []
    for group in groups:
        data = [p for p in group if any(flow.kind[n] == Kind.DATA for n in index.nodes[p].output if n)]
        if flow.random.intersection(group):
            cores.extend((p,) for p in data)
            loose.extend(p for p in group if p not in data)
        elif data:
            cores.append(tuple(sorted(group)))
        else:
            loose.extend(group)
    cores = _topological(index, flow, cores)
    if not cores:
        return [_Unit(tuple(sorted(loose)))]
    owner = {p: u for u, core in enumerate(cores) for p in core}
    extra: list[list[int]] = [[] for _ in cores]
    pending = []
    for position in sorted(loose):
        made = [index.producer[n] for n in index.reads[position] if n in index.producer]
        early = max((owner[p] for p in made if p in owner), default=-1)
        if early >= 0:  # as early as what it needs is there, so that nothing is kept for it
            owner[position] = early
            extra[early].append(position)
        else:
            pending.append(position)
    for position in reversed(pending):  # from inputs and constants alone: where it is read first
        readers = [p for n in index.nodes[position].output for p in index.consumers.get(n, ())]
        unit = min((owner[p] for p in readers if p in owner), default=len(cores) - 1)
        owner[position] = unit
        extra[unit].append(position)
    return [
        _Unit(tuple(sorted((*core, *more))), bool(flow.random.intersection(core)))
        for core, more in zip(cores, extra, strict=True)
    ]


def _topological(index: GraphIndex, flow: Dataflow, cores: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Groups in an order in which they can run, as near to the file's as possible.

    A group that waits for itself through another one cannot run as one, and is taken apart.
    """
    import heapq

    # Random operators that read no data come first: nothing else is then live around them.
    def rank(core: tuple[int, ...]) -> tuple[int, int]:
        first = len(core) == 1 and core[0] in flow.random and not flow.needs(core[0])
        return (0 if first else 1, core[-1])

    while True:
        owner = {p: u for u, core in enumerate(cores) for p in core}
        waits: list[set[int]] = []
        unlocks: dict[int, list[int]] = {}
        for u, core in enumerate(cores):
            before = {owner[index.producer[n]] for p in core for n in flow.needs(p) if index.producer.get(n) in owner}
            waits.append(before - {u})
            for b in waits[-1]:
                unlocks.setdefault(b, []).append(u)
        ready = [(rank(core), u) for u, core in enumerate(cores) if not waits[u]]
        heapq.heapify(ready)
        order = []
        while ready:
            _, u = heapq.heappop(ready)
            order.append(u)
            for v in unlocks.get(u, ()):
                waits[v].discard(u)
                if not waits[v]:
                    heapq.heappush(ready, (rank(cores[v]), v))
        if len(order) == len(cores):
            return [cores[u] for u in order]
        stuck = set(range(len(cores))) - set(order)
        cores = [c for u, core in enumerate(cores) for c in ([(p,) for p in core] if u in stuck else [core])]


def _pack(
    flow: Dataflow, units: list[_Unit], shapes: Mapping[str, tuple[int, ...]] | None, memory: int, most: int | None
) -> list[list[_Unit]]:
    """The units, packed. Every unit enters and leaves the piece that is looked at once, and so does every border."""
    n = len(units)
    owner = {p: u for u, unit in enumerate(units) for p in unit.nodes}
    border, forbidden = _borders(flow, units, owner, shapes)
    forced = {p for u, unit in enumerate(units) if unit.random for p in (u, u + 1)}
    legal = [p in (0, n) or p in forced or p not in forbidden for p in range(n + 1)]
    overhead = memory // 16 if memory < 1 << 60 else 1 << 16
    most = most or n
    held = _Held([_tensors(flow, unit, shapes) for unit in units])
    least = [0] * (n + 1)
    """Least cost of all pieces before a border, and of the bytes at it."""
    back = [0] * (n + 1)
    last = [0] * (n + 1)
    """The last border up to here that is legal."""
    first = 0
    """Where the largest piece begins that fits the budget and ends here: that never moves back, since pieces grow."""
    starts: deque[int] = deque()
    """Borders in the order of their cost, each later than those before it: the first is the best start."""
    for end in range(1, n + 1):
        start = end - 1
        last[start] = start if legal[start] else last[start - 1]
        if legal[start]:
            while starts and least[starts[-1]] >= least[start]:
                starts.pop()
            starts.append(start)
        held.add(start)
        while held.size > memory or (start in forced and first < start):
            held.remove(first)
            first += 1
        if not legal[end]:
            continue
        best = last[start]  # a piece that does not fit is as small as it can be
        if best >= max(first, end - most):
            while starts[0] < max(first, end - most):
                starts.popleft()
            best = starts[0]
            crowded = last[end - most - 1] if end > most else -1
            if crowded >= first and least[crowded] + _crowd(end - crowded, most) < least[best]:
                best = crowded
        back[end] = best
        least[end] = least[best] + overhead + _crowd(end - best, most) + border[end]
    result = []
    end = n
    while end > 0:
        result.append(units[back[end] : end])
        end = back[end]
    return result[::-1]


def _crowd(size: int, most: int) -> int:
    """What it costs that a piece holds more groups than it may."""
    return 10**15 * max(0, size - most)


def _tensors(flow: Dataflow, unit: _Unit, shapes: Mapping[str, tuple[int, ...]] | None) -> dict[tuple[bool, str], int]:
    """Bytes of the tensors and weights of a unit: whether it is a weight, and its name."""
    made = (name for p in unit.nodes for name in flow.index.nodes[p].output if name)
    read = (name for p in unit.nodes for name in flow.needs(p))
    found = {(False, name): flow.nbytes(name, shapes) for name in (*made, *read)}
    return {**found, **{(True, name): size for name, size in flow.weights(unit.nodes).items()}}


class _Held:
    """Bytes that some units hold, each tensor counted once."""

    def __init__(self, units: list[dict[tuple[bool, str], int]]) -> None:
        self._units = units
        self._holders: Counter[tuple[bool, str]] = Counter()
        self.size = 0

    def add(self, unit: int) -> None:
        """One unit more."""
        for key, size in self._units[unit].items():
            self.size += size if not self._holders[key] else 0
            self._holders[key] += 1

    def remove(self, unit: int) -> None:
        """One unit less."""
        for key, size in self._units[unit].items():
            self._holders[key] -= 1
            self.size -= size if not self._holders[key] else 0


def _borders(
    flow: Dataflow, units: list[_Unit], owner: Mapping[int, int], shapes: Mapping[str, tuple[int, ...]] | None
) -> tuple[list[int], set[int]]:
    """Live bytes between unit p - 1 and unit p, for every p; and the p where something live cannot be a border."""
    n = len(units)
    steps = [0] * (n + 2)
    forbidden: set[int] = set()
    for u, unit in enumerate(units):
        for name in (o for p in unit.nodes for o in flow.index.nodes[p].output if o):
            if flow.recomputed(name):
                continue
            last = max((owner[r] for r in flow.readers(name) if r in owner), default=u)
            if last <= u:
                continue
            if flow.crossable(name):
                size = flow.nbytes(name, shapes)
                steps[u + 1] += size
                steps[last + 1] -= size
            else:
                forbidden.update(range(u + 1, last + 1))
    live = 0
    border = []
    for step in steps[: n + 1]:
        live += step
        border.append(live)
    return border, forbidden


def _piece(flow: Dataflow, units: Sequence[_Unit], shapes: Mapping[str, tuple[int, ...]] | None) -> Piece:
    index = flow.index
    nodes = tuple(sorted(p for unit in units for p in unit.nodes))
    inside = set(nodes)
    _, _, outside = flow.closure(inside)
    made = [name for p in nodes for name in index.nodes[p].output if name]
    outputs = set(index.outputs)
    given = tuple(
        name
        for name in made
        if name in outputs or (not flow.recomputed(name) and any(reader not in inside for reader in flow.readers(name)))
    )
    return Piece(
        0,
        nodes,
        tuple(outside),
        given,
        activations=sum(flow.nbytes(name, shapes) for name in (*outside, *made)),
        weights=sum(flow.weights(nodes).values()),
        random=any(unit.random for unit in units),
    )


def _noted(piece: Piece, index: GraphIndex, memory: int) -> Piece:
    needed = piece.activations + piece.weights
    if needed <= memory:
        return piece
    names = index.names
    where = f"{names[piece.nodes[0]]} to {names[piece.nodes[-1]]}" if len(piece.nodes) > 1 else names[piece.nodes[0]]
    note = (
        f"Piece {piece.index} ({where}) needs {readable(needed)}, more than {readable(memory)}: "
        "nothing smaller can be cut there."
    )
    return replace(piece, note=note)


def readable(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size:,} bytes"
