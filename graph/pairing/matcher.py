"""Finds what corresponds in two graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..index import GraphIndex, attribute
from .affine import AFFINE_MAINS, AFFINE_TAILS, affine
from .differences import Difference, OperatorChange, node_differences, op_names
from .normal_form import COMMUTATIVE, EPILOGUES
from .result import Matching, Region, classes, compatible, distance
from .side import HEAVY, RESHAPES, TELLING, Net, Side, similar
from .weight_changes import folded_changes

_ROUNDS = 200


class Matcher:
    """Matches the nodes of two graphs round by round, until nothing new is found."""

    def __init__(self, reference: GraphIndex, candidate: GraphIndex) -> None:
        def quantized(index: GraphIndex) -> bool:
            return any(node.op_type == "QuantizeLinear" for node in index.nodes)

        q = quantized(reference), quantized(candidate)
        self.r = Side(reference, skip_quantizers=q[0] and not q[1])
        self.c = Side(candidate, skip_quantizers=q[1] and not q[0])
        self.nodes: dict[int, int] = {}
        self.taken: dict[int, int] = {}
        self.changed: set[int] = set()
        """Reference nodes matched by their place alone: their operators differ."""
        self.inputs = {n for n in reference.inputs if n in set(candidate.inputs)}
        self.outputs = {n for n in reference.outputs if n in set(candidate.outputs)}
        # What the graph's outputs are to be called by both, whatever they are called inside
        self.names = self._name_pairs()

    # -- labels

    def _labels(
        self, side: Side, net: Net, outputs: Mapping[str, list[str]], mine: Mapping[int, int]
    ) -> tuple[dict[int, int], dict[int, int]]:
        """Hashes of what lies before and behind every node. ``mine`` gives matched nodes their common number."""
        before: dict[str, int] = {name: hash(("in", name)) for name in side.index.inputs if name in self.inputs}
        forward: dict[int, int] = {}
        for position, (kind, inputs, outs) in net.nodes.items():
            said = [(slot, before.get(name, 0)) for slot, name in inputs]
            if kind in COMMUTATIVE or (isinstance(kind, tuple) and kind[0] in COMMUTATIVE):
                said = sorted(("*", value) for _, value in said)
            forward[position] = label = hash((kind, tuple(said)))
            number = mine.get(position)
            for i, name in enumerate(outs):
                before[name] = hash(("of", i, label if number is None else ("pair", number)))
        backward: dict[int, int] = {}
        for position in reversed(net.nodes):
            kind, _, outs = net.nodes[position]
            behind = []
            for name in outs:
                parts: list[tuple[str, int, int]] = [
                    ("out", 0, hash(o)) for o in outputs.get(name, ()) if o in self.outputs
                ]
                for reader, slot in net.consumers.get(name, ()):
                    number = mine.get(reader)
                    where = "*" if net.nodes[reader][0] in COMMUTATIVE else slot
                    parts.append(
                        ("by", hash(where), backward[reader]) if number is None else ("pair", hash(where), number)
                    )
                behind.append(hash(tuple(sorted(parts))))
            backward[position] = hash((kind, tuple(behind)))
        return forward, backward

    # -- evidence

    def _fits(self, n: int, m: int) -> bool:
        """Whether the shapes of the outputs can be the same."""
        a, b = self.r.shape(self.r.first(n)), self.c.shape(self.c.first(m))
        return compatible(a, b)

    def _name_pairs(self) -> dict[int, int]:
        """Nodes of the same operator whose first outputs have the same name, also where an alias carries it."""
        where: dict[str, int] = {}
        for position in self.c.live:
            for name in self.c.classes[self.c.first(position)]:
                where[name] = position
        pairs = {}
        for n in self.r.live:
            m = next((where[a] for a in self.r.classes[self.r.first(n)] if a in where), None)
            if m is not None and self.r.canon[n].family == self.c.canon[m].family and self._fits(n, m):
                pairs[n] = m
        return pairs

    def _strong(self, n: int, m: int) -> bool:
        """Whether names of weights agree too, or there are none."""
        a, b = self.r.canon[n].weights, self.c.canon[m].weights
        return (not a and not b) or any(a[s] == b[s] for s in a.keys() & b.keys())

    def _refuted(self, n: int, m: int, others: Iterable[int]) -> bool:
        """Whether another node of the candidate has the very weights of ``n``, and ``m`` has not."""
        a, b = self.r.sketch(n), self.c.sketch(m)
        if a is None or a[1] < 16 or (b is not None and a[0] == b[0]):
            return False
        return any(o != m and (s := self.c.sketch(o)) is not None and s[0] == a[0] for o in others)

    def _elsewhere(self, n: int, m: int) -> bool:
        """Whether ``m`` stands where ``n`` does, but another node is what ``n`` is: with its weights and its settings,
        of which ``m`` has neither. Then a reader's inputs were exchanged, not all that makes them."""
        mine = repr(self.r.canon[n].settings)
        if mine == repr(self.c.canon[m].settings):
            return False
        like = [o for o in self._same(m) if o not in self.taken and repr(self.c.canon[o].settings) == mine]
        return self._refuted(n, m, like)

    def _accept(self, n: int, m: int) -> bool:
        if n in self.nodes or m in self.taken:
            return False
        self.nodes[n] = m
        self.taken[m] = n
        return True

    # -- rounds

    def run(self, static: bool) -> Matching:
        """Matches; ``static``: and compares attributes and weights of what was matched."""
        nets = ((self.r.skeleton, self.c.skeleton), (self.r.fine, self.c.fine))
        self._by_name(nets)
        for _ in range(_ROUNDS):
            if any(self._round(*pair, final=False) for pair in nets):
                continue
            if self._names_by_neighbour() or self._changed_operators():
                continue
            if self._by_weights() or self._by_one_input() or any(self._round(*pair, final=True) for pair in nets):
                continue
            if self._of_another_size():
                continue
            break
        return self._result(static)

    def _both(self, rn: Net, cn: Net) -> tuple[dict[int, int], dict[int, int], dict[int, int], dict[int, int]]:
        skeleton = rn is self.r.skeleton
        numbers = {m: n for n, m in self.nodes.items()}
        ro = self.r.skeleton_outputs if skeleton else self.r.output_roots
        co = self.c.skeleton_outputs if skeleton else self.c.output_roots
        return (
            *self._labels(self.r, rn, ro, {n: n for n in self.nodes}),
            *self._labels(self.c, cn, co, numbers),
        )

    def _by_name(self, nets: Sequence[tuple[Net, Net]]) -> None:
        """Names that structure confirms from at least one end of the graph."""
        confirmed: set[int] = set()
        for rn, cn in nets:
            rf, rb, cf, cb = self._both(rn, cn)
            for n, m in self.names.items():
                if n in rf and m in cf and (rf[n] == cf[m] or rb[n] == cb[m]):
                    confirmed.add(n)
        for n in sorted(confirmed):
            m = self.names[n]
            if self._strong(n, m) or not self._refuted(n, m, self._same(m)):
                self._accept(n, m)

    def _same(self, m: int) -> list[int]:
        family = self.c.canon[m].family
        return [p for p in self.c.live if self.c.canon[p].family == family]

    def _names_by_neighbour(self) -> bool:
        """Names that a matched neighbour confirms, for what lies between two faults."""
        progress = False
        for n, m in self.names.items():
            if n in self.nodes or m in self.taken:
                continue
            _, ri, ro = self.r.fine.nodes[n]
            _, ci, co = self.c.fine.nodes[m]
            near = any(self._paired(a, b) for s, a in ri for t, b in ci if s == t)
            readers = {self.nodes.get(p) for o in ro for p, _ in self.r.fine.consumers.get(o, ())} - {None}
            near = near or bool(readers & {p for o in co for p, _ in self.c.fine.consumers.get(o, ())})
            if near and (self._strong(n, m) or not self._refuted(n, m, self._same(m))):
                progress = self._accept(n, m) or progress
        return progress

    def _by_weights(self) -> bool:
        """Nodes with the same weights that no other node has, wherever they stand: a hold between two faults."""

        def unique(side: Side, matched: Mapping[int, int]) -> dict[tuple[str, bytes], int]:
            found: dict[tuple[str, bytes], list[int]] = {}
            for p in side.live:
                sketch = side.sketch(p) if p not in matched else None
                if sketch is not None and sketch[1] >= TELLING:
                    found.setdefault((side.canon[p].family, sketch[0]), []).append(p)
            return {key: nodes[0] for key, nodes in found.items() if len(nodes) == 1}

        mine, theirs = unique(self.r, self.nodes), unique(self.c, self.taken)
        pairs = [(n, theirs[key]) for key, n in mine.items() if key in theirs and self._fits(n, theirs[key])]
        return sum(self._accept(n, m) for n, m in pairs) > 0

    def _by_one_input(self) -> bool:
        """The only readers of their kind of a matched tensor, whatever else they read."""
        progress = False
        for a, b in [(i, i) for i in self.inputs] + [
            pair
            for n, m in self.nodes.items()
            for pair in zip(self.r.fine.nodes[n][2], self.c.fine.nodes[m][2], strict=False)
        ]:
            found: list[dict[tuple[Any, str], list[int]]] = [{}, {}]
            for table, net, name, done in (
                (found[0], self.r.fine, a, self.nodes.keys()),
                (found[1], self.c.fine, b, self.taken.keys()),
            ):
                for p, slot in net.consumers.get(name, ()):
                    if p not in done:
                        table.setdefault((net.nodes[p][0], slot), []).append(p)
            for key, some in found[0].items():
                others = found[1].get(key, [])
                if len(some) == len(others) == 1 and self._fits(some[0], others[0]):
                    progress = self._accept(some[0], others[0]) or progress
        return progress

    def _of_another_size(self) -> bool:
        """The only readers of their kind of the same matched tensors, though what they make has other sizes: an
        attribute was changed there (``ceil_mode``), or before."""
        readers: dict[Any, tuple[list[int], list[int]]] = {}
        numbers = {m: n for n, m in self.nodes.items()}
        for which, (side, done) in enumerate(((self.r, self.nodes), (self.c, numbers))):
            for p in side.live:
                kind, inputs, outputs = side.fine.nodes[p]
                if p in done or not inputs:
                    continue
                read: list[tuple[str, str | int, int]] = []
                for slot, name in inputs:
                    q = side.index.producer.get(name)
                    if q is None:
                        read.append((slot, name, 0))
                    elif q in done:
                        node = side.index.nodes[q]
                        read.append((slot, q if which == 0 else numbers[q], list(node.output).index(name)))
                rank = len(side.shape(outputs[0]) or ())
                if rank and len(read) == len(inputs):
                    found = readers.setdefault((kind, rank, tuple(map(str, sorted(read, key=str)))), ([], []))
                    found[which].append(p)
        progress = False
        for some, others in readers.values():
            if len(some) == len(others) == 1:
                progress = self._accept(some[0], others[0]) or progress
        return progress

    def _paired(self, a: str, b: str) -> bool:
        """Whether two roots are outputs of matched nodes in the same place, or the same input of the graph."""
        p, q = self.r.index.producer.get(a), self.c.index.producer.get(b)
        if p is None or q is None:
            return p is None and q is None and a == b and a in self.inputs
        if self.nodes.get(p) != q:
            return False
        return list(self.r.index.nodes[p].output).index(a) == list(self.c.index.nodes[q].output).index(b)

    def _same_source(self, a: str, b: str) -> bool:
        """Whether two roots come from the same node of the skeleton."""
        return self._paired(self.r.source(a), self.c.source(b))

    def _round(self, rn: Net, cn: Net, *, final: bool) -> bool:
        rf, rb, cf, cb = self._both(rn, cn)
        mine = [n for n in rn.nodes if n not in self.nodes]
        theirs = [m for m in cn.nodes if m not in self.taken]
        if not mine or not theirs:
            return False
        rk, ck = {n: rn.nodes[n][0] for n in mine}, {m: cn.nodes[m][0] for m in theirs}
        both = classes({n: (rk[n], rf[n], rb[n]) for n in mine}, {m: (ck[m], cf[m], cb[m]) for m in theirs})
        progress = False
        for left, right in both:
            for n, m in self._resolve(left, right, whole=True, final=final):
                progress = self._accept(n, m) or progress
        if progress:
            return True
        # One-sided evidence. Where the two sides disagree, weights and names decide.
        proposals: dict[tuple[int, int], set[str]] = {}
        for way, rl, cl in (("f", rf, cf), ("b", rb, cb)):
            for left, right in classes({n: (rk[n], rl[n]) for n in mine}, {m: (ck[m], cl[m]) for m in theirs}):
                for n, m in self._resolve(left, right, whole=False, final=final):
                    proposals.setdefault((n, m), set()).add(way)
        count_n = Counter(n for n, _ in proposals)
        count_m = Counter(m for _, m in proposals)
        for n, m in proposals:
            if count_n[n] == 1 and count_m[m] == 1:
                progress = self._accept(n, m) or progress
        if progress or not proposals:
            return progress

        def score(pair: tuple[int, int]) -> tuple[float, bool, bool, bool, int]:
            n, m = pair
            ways = proposals[pair]
            named = self.names.get(n) == m
            return (similar(self.r.sketch(n), self.c.sketch(m)), len(ways) == 2, named, "f" in ways, -n)

        return self._accept(*max(proposals, key=score))

    def _resolve(self, left: list[int], right: list[int], *, whole: bool, final: bool) -> list[tuple[int, int]]:
        """Pairs within a class of nodes with equal labels.

        Args:
            left, right: Unmatched nodes of the reference and of the candidate.
            whole: Whether both labels are equal: then nodes with equal weights are interchangeable.
            final: Whether to take the nearest weights, nothing better being left.
        """
        if len(left) == 1 and len(right) == 1:
            one, other = left[0], right[0]
            return [(one, other)] if self._fits(one, other) and not self._elsewhere(one, other) else []
        if len(left) * len(right) > 1 << 14:
            return []
        pairs: list[tuple[int, int]] = []
        open_left, open_right = list(left), set(right)
        for n in list(open_left):
            m = self.names.get(n)
            if m in open_right and (self._strong(n, m) or not self._refuted(n, m, right)):
                pairs.append((n, m))
                open_left.remove(n)
                open_right.discard(m)
        rest = [m for m in right if m in open_right]
        sketches = {n: self.r.sketch(n) for n in open_left}, {m: self.c.sketch(m) for m in rest}
        digests = Counter(s[0] for s in sketches[0].values() if s), Counter(s[0] for s in sketches[1].values() if s)
        for n in list(open_left):
            s = sketches[0][n]
            if s is not None and digests[0][s[0]] == 1 and digests[1][s[0]] == 1:
                m = next(m for m in rest if (t := sketches[1][m]) is not None and t[0] == s[0])
                if self._fits(n, m):
                    pairs.append((n, m))
                    open_left.remove(n)
                    rest.remove(m)
        if not open_left or not rest:
            return pairs
        if len(open_left) == 1 and len(rest) == 1 and len(left) == len(right) and self._fits(open_left[0], rest[0]):
            return [*pairs, (open_left[0], rest[0])]
        if whole and not pairs and len(open_left) == len(rest):
            kinds = {s[0] if s else None for s in (*sketches[0].values(), *sketches[1].values())}
            settings = [repr(self.r.canon[n].settings) for n in open_left] + [
                repr(self.c.canon[m].settings) for m in rest
            ]
            # Interchangeable: same place, same weights. Take one pair; the labels then tell the others apart.
            known = kinds != {None} or self._fed(open_left[0])
            if len(kinds) == 1 and len(set(settings)) == 1 and known and self._fits(open_left[0], rest[0]):
                return [(open_left[0], rest[0])]
        if final:
            pairs.extend(self._nearest(open_left, rest))
        return pairs

    def _fed(self, n: int) -> bool:
        """Whether all that the node reads is matched."""
        _, inputs, _ = self.r.fine.nodes[n]
        return all(name in self.inputs or self.r.index.producer.get(name) in self.nodes for _, name in inputs)

    def _nearest(self, left: list[int], right: list[int]) -> list[tuple[int, int]]:
        """Pairs that are each other's most similar by weights, by a clear margin."""
        table = np.array([[similar(self.r.sketch(n), self.c.sketch(m)) for m in right] for n in left])
        pairs = []
        for i, n in enumerate(left):
            j = int(table[i].argmax())
            best = table[i, j]
            others = max(np.delete(table[i], j).max(initial=0.0), np.delete(table[:, j], i).max(initial=0.0))
            if best >= 0.5 and best - others >= 0.2 and self._fits(n, right[j]):
                pairs.append((n, right[j]))
        return pairs

    # -- roles

    def _roles(self) -> dict[str, str]:
        """Reference root -> candidate root, where every matched reader of the one reads the other in the same place."""
        votes: dict[str, set[str]] = {}
        for name in self.outputs:
            a, b = self.r.alias.get(name, name), self.c.alias.get(name, name)
            votes.setdefault(a, set()).add(b)
        for n, m in self.nodes.items():
            _, left, _ = self.r.fine.nodes[n]
            _, right, _ = self.c.fine.nodes[m]
            if n in self.changed:
                continue
            scales = [side.canon[p].settings.get("alpha", 1.0) for side, p in ((self.r, n), (self.c, m))]
            if "FusedMatMul" in f"{self.r.canon[n].op} {self.c.canon[m].op}" and scales[0] != scales[1]:
                continue  # a factor was multiplied in: what it reads is another tensor
            if self.r.canon[n].commutative and self.c.canon[m].commutative:
                left, right = list(left), list(right)
                for same in (self._paired, self._same_source):
                    for item in list(left):
                        twins = [t for t in right if same(item[1], t[1])]
                        if len(twins) == 1 or (twins and same == self._paired):
                            votes.setdefault(item[1], set()).add(twins[0][1])
                            left.remove(item)
                            right.remove(twins[0])
                if len(left) == 1 and len(right) == 1:
                    votes.setdefault(left[0][1], set()).add(right[0][1])
                continue
            slots = dict(right)
            for slot, name in left:
                # MatMul and Gemm name their slots alike (a, b); other families have one schema
                if slot in slots:
                    votes.setdefault(name, set()).add(slots[slot])
        roles = {}
        for name, found in votes.items():
            if len(found) == 1:
                other = next(iter(found))
                if compatible(self.r.shape(name), self.c.shape(other)):
                    roles[name] = other
        return roles

    def _changed_operators(self) -> bool:
        """Nodes of different operators that stand in the same place: same readers, same inputs."""
        progress = False
        for name, other in self._roles().items():
            n, m = self.r.index.producer.get(name), self.c.index.producer.get(other)
            if n is None or m is None or n in self.nodes or m in self.taken:
                continue
            if n not in self.r.canon or m not in self.c.canon:
                continue
            if self.r.fine.nodes[n][0] == self.c.fine.nodes[m][0] and self._fits(n, m):
                progress = self._accept(n, m) or progress  # the same operator makes the same tensor
                continue
            left = [i for _, i in self.r.fine.nodes[n][1]]
            right = [i for _, i in self.c.fine.nodes[m][1]]
            if len(left) == len(right) and left and all(any(self._paired(a, b) for b in right) for a in left):
                same = self.r.canon[n].family == self.c.canon[m].family
                if self._accept(n, m) and not same:
                    self.changed.add(n)
                progress = True
        return progress

    # -- result

    def _result(self, static: bool) -> Matching:
        roles = self._roles()
        pairs: dict[str, str] = {name: name for name in self.inputs}
        partial = {
            n: m
            for n, m in self.nodes.items()
            if (self.r.index.nodes[n].op_type in EPILOGUES) != (self.c.index.nodes[m].op_type in EPILOGUES)
        }
        for n, m in sorted(self.nodes.items()):
            if n in partial:
                continue
            for a, b in zip(self.r.index.nodes[n].output, self.c.index.nodes[m].output, strict=False):
                if a and b:
                    pairs[a] = self._as_read(a, b, m, roles)
        folds, covered_r, covered_c, found = self._folds(roles, pairs)
        made = {b: a for a, b in pairs.items()}
        for a, b in roles.items():
            # what the candidate leaves out is behind what it has; else its reader was given something wrong
            if a in self.r.classes and b in self.c.classes and (b not in made or self._behind(made[b], a)):
                pairs.setdefault(a, b)
        covered_r -= partial.keys()
        # Written with other operands (x * 0.5 against half * gate): the output is the same tensor, the node is not
        rewritten = {
            n: m
            for n, m in self.nodes.items()
            if n not in covered_r
            and len(self.r.canon[n].data) != len(self.c.canon[m].data)
            and self.r.canon[n].commutative
        }
        partial |= rewritten
        regions = [*folds, *self._regions(pairs, covered_r, covered_c, partial)]
        tensors = self._tensors(pairs)
        nodes = dict(self.nodes)
        self._shape_arithmetic(nodes, tensors)
        self._skipped(nodes, pairs)
        differences: list[Difference] = list(found)
        absorbed: set[int] = set()
        """Pad nodes that the other graph has in the window operator behind them."""
        if static:
            in_folds = {n for fold in folds for n in fold.nodes}
            for n, m in sorted(self.nodes.items()):
                if n in in_folds or n in partial:
                    continue
                found = node_differences(self.r.index, n, self.r.canon[n], self.c.index, m, self.c.canon[m])
                padded = {d.name for d in found} & {"pads"} and self._padding_moved(n, m)
                if padded:
                    absorbed.update(padded)
                    found = [d for d in found if d.name != "pads"]
                differences.extend(found)
        differences.extend(
            self._rewritten(r for r in regions if not absorbed.intersection(r.nodes or r.candidate_nodes))
        )
        differences.sort(key=lambda d: d.node)
        matched_c = set(tensors.values())
        return Matching(
            tensors=tensors,
            nodes=dict(sorted(nodes.items())),
            unmatched_reference=tuple(t for root in self.r.classes for t in self.r.classes[root] if t not in tensors),
            unmatched_candidate=tuple(
                t for root, names in self.c.classes.items() if not matched_c.intersection(names) for t in names[:1]
            ),
            differences=tuple(differences),
            regions=tuple(regions),
            ambiguous=self._ambiguous(),
        )

    def _tensors(self, pairs: Mapping[str, str]) -> dict[str, str]:
        """Pairs of roots as pairs of names: the same name where an alias carries it, else the same dtype."""
        tensors: dict[str, str] = {}
        specs_r, specs_c = self.r.index.specs, self.c.index.specs
        wanted = set(self.r.index.outputs)
        shared = Counter(pairs.values())
        for a, b in pairs.items():
            names = self.c.classes.get(b, [b])
            for name in self.r.classes.get(a, [a]):
                if name in wanted and name not in self.outputs:
                    continue
                # what the candidate leaves out, its quantizer may do instead: a Relu whose range begins at zero
                left_out = self.c.skips and shared[b] > 1 and self.r.index.producer.get(a) not in self.nodes
                if name in names and (name in wanted or not left_out):
                    tensors[name] = name
                    continue
                if name in wanted:
                    continue  # an output of both graphs that is another tensor there: see below
                spec = specs_r.get(name)
                alike = [o for o in names if spec and (s := specs_c.get(o)) is not None and s.dtype == spec.dtype]
                tensors[name] = alike[-1 if left_out else 0] if alike else b
        for name in self.outputs:
            tensors[name] = name
        return tensors

    def _behind(self, before: str, name: str) -> bool:
        """Whether the reference makes a tensor of another one."""
        first = self.r.index.producer.get(before, -1)
        waiting, seen = [name], {name}
        while waiting:
            here = waiting.pop()
            if here == before:
                return True
            position = self.r.index.producer.get(here, -1)
            if position > first and position in self.r.fine.nodes:
                new = {read for _, read in self.r.fine.nodes[position][1]} - seen
                seen |= new
                waiting.extend(new)
        return False

    def _as_read(self, a: str, b: str, m: int, roles: Mapping[str, str]) -> str:
        """What of the candidate stands for ``a``, if node ``m``, which makes ``b``, does what makes ``a``.

        Whoever reads ``a`` may read another output of ``m``, or what nodes that only the candidate has make of ``b``:
        these belong to it then. What may have another layout does not stand for it.
        """
        other = roles.get(a, b)
        if other == b or other in self.c.index.nodes[m].output:
            return other
        waiting, seen = [other], set()
        while waiting:
            name = waiting.pop()
            position = self.c.index.producer.get(name)
            if name == b or name in seen:
                continue
            seen.add(name)
            if position is None or position in self.taken or position not in self.c.canon:
                return b
            moved = self.c.index.nodes[position].op_type in ("Transpose", *RESHAPES)
            if moved and (None in (shape := self.r.shape(a) or (None,)) or shape != self.c.shape(other)):
                return b
            waiting.extend(read for _, read in self.c.fine.nodes[position][1])
        return other

    def _chain(self, side: Side, position: int) -> list[int]:
        """A product and the constant scalings and shifts after it that nothing else reads."""
        chain = [position]
        while True:
            name = side.first(chain[-1])
            readers = side.fine.consumers.get(name, [])
            if len(readers) != 1 or name in side.output_roots:
                return chain
            step = side.canon[readers[0][0]]
            if step.op not in AFFINE_TAILS or len(step.data) != 1 or not step.weights:
                return chain
            chain.append(readers[0][0])

    def _folds(
        self, roles: Mapping[str, str], pairs: dict[str, str]
    ) -> tuple[list[Region], set[int], set[int], list[Difference]]:
        """Products with scalings and shifts multiplied into them on one side. Corrects ``pairs`` in place."""
        regions: list[Region] = []
        covered: tuple[set[int], set[int]] = (set(), set())
        differences: list[Difference] = []
        for n, m in sorted(self.nodes.items()):
            if self.r.canon[n].op not in AFFINE_MAINS or self.c.canon[m].op not in AFFINE_MAINS:
                continue
            left, right = self._chain(self.r, n), self._chain(self.c, m)
            if len(left) == len(right) == 1 and self.r.canon[n].op == self.c.canon[m].op:
                continue
            ends = [self.c.first(p) for p in right]
            at = next((i for i in reversed(range(len(left))) if roles.get(self.r.first(left[i])) in ends), None)
            if at is None:
                continue
            j = ends.index(roles[self.r.first(left[at])])
            left, right = left[: at + 1], right[: j + 1]
            if len(left) == len(right) and all(self.nodes.get(a) == b for a, b in zip(left, right, strict=True)):
                continue
            whole = affine(self.r.index, left, self.r.canon), affine(self.c.index, right, self.c.canon)
            raw = affine(self.r.index, left[:1], self.r.canon), affine(self.c.index, right[:1], self.c.canon)
            if whole[0] is None or whole[1] is None or raw[0] is None or raw[1] is None:
                continue
            if whole[0].weight.shape != whole[1].weight.shape:
                continue
            out = self.r.first(left[-1]), self.c.first(right[-1])
            before, after = distance(raw[0], raw[1]), distance(whole[0], whole[1])
            if before < 1e-6 and after > 1e-5 and len(left) != len(right):
                # nothing was multiplied in: a node is missing, or there is one too many
                more, where = (left, self.r) if len(left) > len(right) else (right, self.c)
                extra = [p for p in more[1:] if p not in (self.nodes if where is self.r else self.taken)]
                ops = op_names(where.index, extra)
                change = OperatorChange(ops, ()) if where is self.r else OperatorChange((), ops)
                differences.append(Difference(left[-1] if where is self.r else n, m, change))
                pairs[out[0]] = out[1]
                continue
            pairs[out[0]] = out[1]
            if before > 1e-6 and len(left) > 1:
                pairs.pop(self.r.first(n), None)
            data = [name for _, name in self.r.fine.nodes[n][1]]
            inputs = tuple((a, pairs[a]) for a in data if a in pairs)
            regions.append(Region(tuple(left), tuple(right), inputs, (out,), fold=True))
            covered[0].update(left)
            covered[1].update(right)
            half = any(
                (spec := self.c.index.specs.get(name)) is not None and spec.dtype.itemsize == 2
                for name in self.c.canon[m].weights.values()
            )
            changes = folded_changes(whole[0], whole[1], half)
            differences.extend(Difference(n, m, change, name) for name, change in changes)
        return regions, *covered, differences

    def _regions(
        self, pairs: Mapping[str, str], covered_r: set[int], covered_c: set[int], partial: Mapping[int, int]
    ) -> list[Region]:
        """What is left, grouped. ``partial`` are matched nodes of which one does more than the other."""
        left = {n for n in self.r.live if (n not in self.nodes and n not in covered_r) or n in partial}
        more = set(partial.values())
        right = {m for m in self.c.live if (m not in self.taken and m not in covered_c) or m in more}
        if not left and not right:
            return []
        parent: dict[tuple[str, int], tuple[str, int]] = {
            **{("r", n): ("r", n) for n in left},
            **{("c", m): ("c", m) for m in right},
        }

        def find(x: tuple[str, int]) -> tuple[str, int]:
            while parent[x] != x:
                parent[x] = parent[parent[x]]
                x = parent[x]
            return x

        for n, m in partial.items():
            parent[find(("r", n))] = find(("c", m))
        matched_c = set(pairs.values())
        for tag, side, inside, matched in (("r", self.r, left, set(pairs)), ("c", self.c, right, matched_c)):
            for p in inside:
                for _, name in side.fine.nodes[p][1]:
                    q = side.index.producer.get(name, -1)
                    if q in inside and name not in matched:
                        parent[find((tag, p))] = find((tag, q))
        for a, b in pairs.items():
            p, q = self.r.index.producer.get(a, -1), self.c.index.producer.get(b, -1)
            if p in left and q in right:
                parent[find(("r", p))] = find(("c", q))
        parts: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
        for key in parent:
            lists = parts.setdefault(find(key), ([], []))
            lists[0 if key[0] == "r" else 1].append(key[1])
        back: dict[str, str] = {}
        for a, b in pairs.items():
            back.setdefault(b, a)
        regions = []
        for some, others in parts.values():
            inputs: dict[tuple[str, str], None] = {}
            outputs: dict[tuple[str, str], None] = {}
            for n in some:
                inputs.update({(a, pairs[a]): None for _, a in self.r.fine.nodes[n][1] if a in pairs})
                outputs.update({(a, pairs[a]): None for a in self.r.fine.nodes[n][2] if a in pairs})
            for m in others:
                inputs.update({(back[b], b): None for _, b in self.c.fine.nodes[m][1] if b in back})
                outputs.update({(back[b], b): None for b in self.c.fine.nodes[m][2] if b in back})
            given = tuple(pair for pair in inputs if pair not in outputs)
            regions.append(Region(tuple(sorted(some)), tuple(sorted(others)), given, tuple(outputs)))
        regions.sort(key=lambda r: (r.nodes or (1 << 30,), r.candidate_nodes))
        return regions

    def _rewritten(self, regions: Iterable[Region]) -> list[Difference]:
        """Nodes that one graph has between two matched tensors where the other has none, or others."""
        found = []
        for region in regions:
            if region.fold or not region.outputs:
                continue
            if region.nodes and region.candidate_nodes:
                if self._same_scaling(region):
                    continue
                main = max(region.nodes, key=lambda p: (self.r.canon[p].family in HEAVY, p))
                place = main, region.candidate_nodes[-1]
            elif region.nodes:
                place = region.nodes[-1], self.c.index.producer.get(region.outputs[-1][1], -1)
            else:
                place = self.r.index.producer.get(region.outputs[-1][0], -1), region.candidate_nodes[-1]
            mine, theirs = op_names(self.r.index, region.nodes), op_names(self.c.index, region.candidate_nodes)
            found.append(Difference(*place, OperatorChange(mine, theirs)))
        return found

    def _padding_moved(self, n: int, m: int) -> set[int]:
        """The Pad before one of two window operators whose zeros the other adds itself; empty if that is not so."""
        pads = []
        used: set[int] = set()
        for side, p, matched in ((self.r, n, self.nodes.keys()), (self.c, m, self.taken.keys())):
            own = side.canon[p].settings.get("pads")
            if not own or side.canon[p].family not in ("Conv", "MaxPool", "AveragePool"):
                return set()
            before = side.index.producer.get(side.fine.nodes[p][1][0][1], -1)
            step = side.canon.get(before)
            if step is not None and step.op == "Pad" and before not in matched:
                extra, half = step.settings.get("pads"), len(own) // 2
                zeros = step.settings.get("mode", "constant") == "constant" and not step.settings["constant_value"]
                if (
                    isinstance(extra, list)
                    and len(extra) == 2 * (half + 2)
                    and zeros
                    and side.canon[p].family == "Conv"
                ):
                    if any(extra[i] for i in (0, 1, half + 2, half + 3)):
                        return set()
                    own = [a + b for a, b in zip(own, extra[2 : half + 2] + extra[half + 4 :], strict=True)]
                    used.add(before)
            pads.append(own)
        return used if pads[0] == pads[1] else set()

    def _same_scaling(self, region: Region) -> bool:
        """Whether both sides are scalings and shifts of each channel, and the same ones up to rounding."""
        maps = []
        for side, nodes in ((self.r, region.nodes), (self.c, region.candidate_nodes)):
            if any(side.canon[p].op not in AFFINE_TAILS or len(side.canon[p].data) != 1 for p in nodes):
                return False
            maps.append(affine(side.index, nodes, side.canon))
        return None not in maps and distance(*maps) < 1e-5

    def _shape_arithmetic(self, nodes: dict[int, int], tensors: dict[str, str]) -> None:
        """Follows what matched nodes read besides data (shapes, computed constants) as far as operators agree."""
        stack: list[tuple[str, str]] = []
        for n, m in self.nodes.items():
            mine, theirs = self.r.canon[n].weights, self.c.canon[m].weights
            stack.extend((mine[s], theirs[s]) for s in sorted(mine.keys() & theirs.keys()))
        while stack:
            a, b = stack.pop()
            p, q = self.r.index.producer.get(a), self.c.index.producer.get(b)
            if p is None or q is None or p in nodes or q in nodes.values() or not self.r.constant(a):
                continue
            left, right = self.r.index.nodes[p], self.c.index.nodes[q]
            if left.op_type != right.op_type or len(left.input) != len(right.input) or left.op_type == "Constant":
                continue
            if list(left.output).index(a) != list(right.output).index(b):
                continue
            nodes[p] = q
            if a not in tensors and a not in self.r.index.outputs:
                tensors[a] = b
            stack.extend(zip(left.input, right.input, strict=True))

    def _skipped(self, nodes: dict[int, int], pairs: Mapping[str, str]) -> None:
        """Matches Identity, Cast and Dropout nodes that both graphs have on the same tensor."""
        for p in self.r.skipped:
            node = self.r.index.nodes[p]
            other = pairs.get(self.r.alias[node.output[0]])
            twins = [
                q
                for q in self.c.skipped
                if self.c.alias[self.c.index.nodes[q].output[0]] == other
                and self.c.index.nodes[q].op_type == node.op_type
                and attribute(self.c.index.nodes[q], "to") == attribute(node, "to")
            ]
            named = [q for q in twins if self.c.index.nodes[q].output[0] == node.output[0]]
            choice = named or twins
            if len(choice) == 1 and choice[0] not in nodes.values():
                nodes[p] = choice[0]

    def _ambiguous(self) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        rf, rb, cf, cb = self._both(self.r.fine, self.c.fine)
        left = {n: (rf[n], rb[n]) for n in self.r.live if n not in self.nodes}
        right = {m: (cf[m], cb[m]) for m in self.c.live if m not in self.taken}
        return tuple(
            (tuple(self.r.first(n) for n in some), tuple(self.c.first(m) for m in others))
            for some, others in classes(left, right)
        )
