"""How large an error is allowed, element by element: the user's tolerance, or the one that follows from the arithmetic.

The user's is NumPy's: |c - r| <= atol + rtol |r|. The automatic one is |c - r| <= t (|r| + scale):

- t = 4 sqrt(u^2 depth + u_acc^2 terms / 2). u is the unit roundoff of the coarsest format in play, depth the number of
  layers that round on the longest path from an input to the output, terms the number of products that are summed along
  such a path, and u_acc the unit roundoff of the sums (FP32, or better). Rounding errors are as good as independent:
  they add up like a random walk, hence the root. For FP16 and coarser formats t is 4 u sqrt(depth) to a few percent;
  between two FP32 runtimes, which differ in nothing but the order of their sums, the second part is the larger.
  t is never less than `ULPS` units in the last place of the output's dtype.
- scale is the size that values around the element have: an output near zero carries the error of the larger terms that
  cancelled in it. It starts from the smallest RMS, over finite values, of the slices through the element that hold at
  least `SLICE` elements: one index of one axis fixed (a sample, a channel, a column), or all but the last (a row). So
  four box coordinates in the hundreds do not excuse eighty scores that became zero. A slice of RMS s in a tensor of RMS
  S counts as s (1 + ln(S / s)): what is small because it is the exponential of something negative (a probability, a
  score) has the absolute error of its logarithm as its relative one, and a channel may be small by chance.
  Where an element was made of larger terms than that (behind a Relu, in a difference), scale is their size: `terms`
  measures it in the reference, and is asked where an output fails without it. No size counts for more than `LARGER`
  times the RMS of the tensor's values that are not zero, or `STEEPER` times the element, or than allows an error of
  `HARMLESS` of that RMS: rounding that ruins the output is a fault.

Where t exceeds `DECIDABLE`, and for FP8 and INT8, the arithmetic decides nothing, and nobody may pass by it. Nor does
it between t and what products that add in FP16 may explain, where a candidate is known to have such: `Tolerance.sums`.
docs/tolerance.md holds the derivation and what healthy and broken networks measure.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from ...graph.errors import UsageError
from ...graph.formats import BY_DTYPE, FP16, FP32, NumberFormat, coarser
from ...graph.index import GraphIndex
from ...graph.nodes import attribute_int, reads, subgraphs
from ...graph.operators import EXACT_OPERATORS, RECURRENT, STEPPED_PRODUCTS
from ...graph.rounding.fp16_accumulation import at_once
from ...graph.rounding.term_count import term_count
from ...graph.specs import is_float
from ...runners.contract.device import DeviceArray
from ..statistics.statistics import Place

ULPS = 4
"""t is never under this many units in the last place of the output's dtype."""
SLICE = 64
"""Fewest elements whose RMS says what size values have."""
DECIDABLE = 0.25
"""Largest t that still tells a right output from a wrong one."""
HARMLESS = 1e-3
"""Share of a tensor's RMS up to which an error that the terms of an element explain is no fault. What rounding explains
beyond that is rounding that ruins the output: a candidate whose terms cancel is wrong, however honestly it rounds."""
LARGER = 4.0
"""Times that RMS that terms may always have: what stood before a Relu is smaller behind it."""
STEEPER = 2.0
"""Times the element itself that terms may always have: a probability is the exponential of a larger score."""
FACTOR = 4.0
"""The 4 in the formula of t."""
CHAIN = 512
"""Most terms that count in one sum: longer ones are made of parts, whose errors do not add up like those of a chain."""
SCALE_BLOCK = 1 << 14
"""Elements that the scale is measured on at a time: their squares stay in the CPU's cache."""
TRAILING = 1 << 16
"""Most elements of the trailing axes whose scale is kept ready."""


@dataclass(frozen=True)
class Tolerance:
    """The allowed error of one output.

    Attributes:
        rtol: Factor of |reference|.
        atol: Added to it; where ``scaled``, a factor of the local scale instead.
        source: ``user`` or ``auto``.
        scaled: Whether the rule is the automatic one, t (|r| + scale) with t = rtol = atol.
        floor: The least allowed error where ``scaled``: below it the format in play has no numbers.
        decidable: Whether an output within this tolerance may pass.
        reason: Why not, as the end of "undecided: ...".
        depth, terms, format, u: What t came from.
        sums: How many times what is allowed the sums in FP16 that a candidate is known to make may explain: between
            the two, this rule decides nothing.
    """

    rtol: float
    atol: float
    source: str = "user"
    scaled: bool = False
    floor: float = 0.0
    decidable: bool = True
    reason: str = ""
    depth: int = 0
    terms: float = 0
    format: str = ""
    u: float = 0.0
    sums: float = 1.0

    @property
    def exact(self) -> bool:
        """Whether no error at all is allowed."""
        return self.rtol == 0 and self.atol == 0

    @property
    def t(self) -> float:
        """The relative tolerance."""
        return self.rtol

    @property
    def explained(self) -> Tolerance:
        """What sums in FP16 may explain too."""
        return self if self.sums == 1 else replace(self, rtol=self.rtol * self.sums, atol=self.atol * self.sums, sums=1)

    def share(self, layers: float, terms: float = 0) -> float:
        """How much of t is due to so many layers, and sums of so many products; at most 1."""
        return min(1.0, _random_walk(self.u, layers, terms) / self.t) if self.u and self.t else 1.0

    def allowed(
        self, reference: np.ndarray | DeviceArray, terms: np.ndarray | None = None, most: float | None = None
    ) -> Allowed:
        """The allowed error of each element of one sample's tensor.

        Args:
            reference: The tensor.
            terms: The sizes of the terms it was made of (`terms.Terms.sizes`); None means as large as its values.
            most: How many times the RMS of the values that are not zero terms may count for; None: what `HARMLESS` and
                `LARGER` say.
        """
        reference = reference if isinstance(reference, DeviceArray) else np.asarray(reference)
        if not self.scaled or self.exact or reference.dtype.kind in "OSUT":
            return Allowed(self, None)
        return Allowed(self, Scale(reference, terms, self._most if most is None else most))

    @property
    def _most(self) -> float:
        """How many times the RMS of the values that are not zero the terms of an element may count for."""
        return max(LARGER, HARMLESS / self.t) if self.t else LARGER

    def beyond(self, allowed: Allowed, worst: Place, reference: np.ndarray | DeviceArray) -> bool:
        """Whether an element errs by more than any size of its terms could allow, or sums in FP16 may explain."""
        if allowed.scale is None or not allowed.scale.parts:
            return False
        size = abs(worst.reference) + float(_cap(self._most * allowed.scale.whole, reference, worst.reference))
        return bool(abs(worst.candidate - worst.reference) > self.sums * max(self.t * size, self.floor))

    def json(self, allowed: Allowed | None = None) -> dict[str, Any]:
        """``rtol``, ``atol`` and ``source`` for the report; of an automatic tolerance, the smallest ``atol`` in force.

        Args:
            allowed: The allowed errors of a sample, which know the scale.
        """
        atol = self.atol
        if self.scaled:
            atol = self.floor if allowed is None or allowed.scale is None else allowed.smallest_atol
        return {"rtol": self.rtol, "atol": atol, "source": self.source}

    def __str__(self) -> str:
        if self.exact:
            return "exact"
        if self.scaled:
            return f"{self.rtol:.2g} (|r| + scale)"
        return f"{self.atol:.3g} + {self.rtol:.3g} |r|"


@dataclass(frozen=True)
class Allowed:
    """The allowed error of each element of one tensor, made block by block."""

    tolerance: Tolerance
    scale: Scale | None

    def block(self, start: int, stop: int, magnitude: np.ndarray) -> np.ndarray:
        """Allowed errors of elements ``start`` to ``stop``, counted in C order.

        Args:
            magnitude: |reference| of those elements. Where it is not finite, so is the result.
        """
        rule = self.tolerance
        if self.scale is None:
            return rule.atol + rule.rtol * magnitude
        return np.maximum(rule.rtol * (magnitude + self.scale.block(start, stop)), self.floor)

    @property
    def floor(self) -> float:
        """The least allowed error: that of numbers below the format's smallest, but no large share of them all."""
        if self.scale is None or not self.scale.parts or not self.scale.whole:
            return self.tolerance.floor
        return min(self.tolerance.floor, DECIDABLE * self.scale.whole)

    @property
    def smallest_atol(self) -> float:
        """The allowed error of a zero, where it is smallest."""
        if self.scale is None:
            return self.tolerance.atol
        return max(self.tolerance.rtol * self.scale.smallest, self.floor)


class Scale:
    """For each element of a tensor, the size of the values around it: see the module.

    Slices: the whole tensor; for each axis, the elements that share its index; the rows along the last axis. Values
    that are not finite are left out. A tensor of fewer elements has one slice, itself. Where terms are larger, it is
    they.
    """

    def __init__(self, values: np.ndarray | DeviceArray, terms: np.ndarray | None = None, most: float = 1) -> None:
        self.shape = values.shape
        self.whole = 0.0
        """RMS of the whole tensor."""
        self.parts: list[np.ndarray] = []
        """Arrays of rank ``values.ndim`` that broadcast to its shape; the scale is their minimum."""
        if not values.size:
            return
        rank = values.ndim
        axes: list[tuple[int, ...]] = [(a,) for a in range(rank) if values.size // values.shape[a] >= SLICE]
        if rank > 2 and values.shape[-1] >= SLICE:
            axes.append(tuple(range(rank - 1)))
        kept = [(), *(k for k in axes if any(values.shape[a] > 1 for a in k))]
        sums, counts = slices(values, kept)
        for total, count in zip(sums, counts, strict=True):
            # A slice with too few finite values says nothing of its own.
            enough = count >= min(SLICE, values.size)
            mean = np.divide(total, count, out=np.full_like(total, np.inf), where=enough & (count > 0))
            self.parts.append(np.sqrt(mean))
        whole = self.parts[0]
        if not np.isfinite(whole).all():
            finite_count = float(counts[0].sum())
            whole[...] = math.sqrt(float(sums[0].sum()) / finite_count) if finite_count else 0.0
        self.whole = float(whole.max())
        self.parts = [whole, *(_soften(part, self.whole) for part in self.parts[1:])]
        if terms is not None:
            terms = np.minimum(terms, _cap(most * self.whole, values, np.asarray(values)))
            self.parts = [np.maximum(part, terms) for part in self.parts]
        self._split()

    def _split(self) -> None:
        """Trailing axes whose joint size stays under `TRAILING`, and their share of the scale.

        The first axis of them is ``lead``, and ``inner`` their number of elements; ``varying`` are the parts that
        the axes before them have a say in, ``trailing`` is the minimum of the others.
        """
        rank = len(self.shape)
        self.lead = rank
        self.inner = 1
        while self.lead and self.inner * self.shape[self.lead - 1] <= TRAILING:
            self.lead -= 1
            self.inner *= self.shape[self.lead]
        fixed = [p for p in self.parts if all(n == 1 for n in p.shape[: self.lead])]
        self.varying = [p for p in self.parts if any(n > 1 for n in p.shape[: self.lead])]
        inner_shape = self.shape[self.lead :]
        trailing = np.broadcast_to(np.inf, inner_shape)
        for part in fixed:
            trailing = np.minimum(trailing, part.reshape(part.shape[self.lead :]))
        self.trailing = np.ascontiguousarray(trailing).reshape(-1)

    def block(self, start: int, stop: int) -> np.ndarray:
        """Scales of elements ``start`` to ``stop``, counted in C order."""
        if not self.parts or stop <= start:
            return np.zeros(max(stop - start, 0))
        first, last = start // self.inner, -(-stop // self.inner)
        result = np.broadcast_to(self.trailing, (last - first, self.inner))
        inner_shape = self.shape[self.lead :]
        if self.varying:
            where = np.unravel_index(np.arange(first, last), self.shape[: self.lead])
            for part in self.varying:
                at = tuple(w if n > 1 else np.zeros_like(w) for w, n in zip(where, part.shape, strict=False))
                rows = np.broadcast_to(part[at], (last - first, *inner_shape)) if at else part
                result = np.minimum(result, rows.reshape(last - first, self.inner))
        return result.reshape(-1)[start - first * self.inner : stop - first * self.inner]

    @property
    def smallest(self) -> float:
        """The smallest scale of all elements."""
        return min((float(p.min()) for p in self.parts), default=0.0)


def _dead(values: np.ndarray | DeviceArray) -> float:
    """How many times larger than the RMS of all values that of those is that are not zero: a heatmap is zero nearly
    everywhere, behind its Relu."""
    return math.sqrt(values.size / max(int(np.count_nonzero(np.asarray(values))), 1))


def _cap(rms: float, values: np.ndarray | DeviceArray, elements: np.ndarray | complex) -> np.ndarray:
    """The most that the terms of some elements of a tensor may count for; ``rms``: so many times that of all values."""
    return np.fmax(rms * _dead(values), STEEPER * np.abs(elements))


def _soften(part: np.ndarray, whole: float) -> np.ndarray:
    """s (1 + ln(S / s)) for slices of RMS s in a tensor of RMS S; it grows with s and is S at S."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((part > 0) & (part < whole), part * (1 + np.log(whole / part)), part)


def slices(values: np.ndarray | DeviceArray, kept: list[tuple[int, ...]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sums of |values|^2 over finite values, and their number, for the slices of each tuple of kept axes.

    Axes that are summed over keep the length 1. What lies on a device is summed there if something can.
    """
    if isinstance(values, DeviceArray):
        from ..statistics.device import slices as on_device

        found = on_device(values, kept)
        if found is not None:
            return found
        values = np.asarray(values)
    squares, finite = _margins(values)
    return [_margin(squares, values.shape, k) for k in kept], [_margin(finite, values.shape, k) for k in kept]


Margins = tuple[np.ndarray, np.ndarray]
"""Sums along the last axis, and sums along all others."""


def _margins(values: np.ndarray) -> tuple[Margins, Margins]:
    """The margins of |values|^2 over finite values, and of their number. One pass, in blocks of rows."""
    width = values.shape[-1] if values.ndim else 1
    matrix = values.reshape(-1, width)
    height = len(matrix)
    rows, columns = np.zeros(height), np.zeros(width)
    row_count, column_count = np.full(height, float(width)), np.full(width, float(height))
    step = max(1, SCALE_BLOCK // width)
    across, down = np.ones(width), np.ones(step)
    for start in range(0, height, step):
        block = _float64(matrix[start : start + step])
        with np.errstate(all="ignore"):
            squares = block.real**2 + block.imag**2 if block.dtype.kind == "c" else np.multiply(block, block, out=block)
            row = squares @ across
        if not np.isfinite(row).all():
            finite = np.isfinite(squares)
            squares[~finite] = 0
            row = squares @ across
            missing = (~finite).astype(np.float64)
            row_count[start : start + step] -= missing.sum(axis=1)
            column_count -= missing.sum(axis=0)
        rows[start : start + step] = row
        columns += down[: len(row)] @ squares
    return (rows, columns), (row_count, column_count)


def _margin(margins: Margins, shape: tuple[int, ...], keep: tuple[int, ...]) -> np.ndarray:
    """Sums over all axes but ``keep``, which is the last one or holds it not; axes of length 1 instead of those."""
    rank = len(shape)
    rows, columns = margins
    if keep == (rank - 1,) or not rank:
        return columns.reshape((1,) * (rank - 1) + columns.shape if rank else ())
    over = tuple(a for a in range(rank - 1) if a not in keep)
    return rows.reshape(*shape[:-1], 1).sum(axis=over, keepdims=True)


def _float64(x: np.ndarray) -> np.ndarray:
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


EXACT = Tolerance(0.0, 0.0, source="auto")
"""For integer, bool and string outputs."""


def user(rtol: float | None, atol: float | None) -> Tolerance | None:
    """The user's tolerance; None where neither number is given.

    Raises:
        UsageError: One of the two is missing, negative or NaN.
    """
    if rtol is None and atol is None:
        return None
    if rtol is None or atol is None:
        given, missing = ("rtol", "atol") if atol is None else ("atol", "rtol")
        raise UsageError(f"{given} is given without {missing}: give both (|c - r| <= atol + rtol |r|), or neither.")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not value >= 0:
            raise UsageError(f"{name} is {value}; it must be 0 or more.")
    return Tolerance(float(rtol), float(atol))


def automatic(
    index: GraphIndex,
    output: str,
    formats: Sequence[NumberFormat],
    dtype: np.dtype | None = None,
    *,
    groups: Sequence[Any] | None = None,
    depths: Mapping[str, Depth] | None = None,
) -> Tolerance:
    """The tolerance that the arithmetic explains.

    Args:
        index: The reference's graph.
        output: The tensor to compare.
        formats: The coarsest format of each runner in play.
        dtype: The output's dtype; None means the one that the graph declares, FP32 where it declares none.
        groups: What rounds once (`depth`).
        depths: What `depths` gave for the graph, when many tensors are asked for.
    """
    if dtype is None:
        spec = index.specs.get(output)
        dtype = np.dtype(np.float32) if spec is None else spec.dtype
    dtype = np.dtype(dtype)
    if not is_float(dtype):
        return EXACT
    found = depth(index, output, groups) if depths is None else depths.get(output, Depth())
    return rule(formats, dtype, found, found.terms, found.steps)


def rule(formats: Sequence[NumberFormat], dtype: np.dtype, depth: int, terms: float = 0, steps: float = 0) -> Tolerance:
    """The automatic tolerance for an output of ``dtype`` behind ``depth`` layers and ``terms`` products, whose partial
    sums round to FP16 ``steps`` times."""
    depth = max(int(depth), 1)
    stored = _stored(dtype)
    coarsest = stored if not formats or stored.u >= min(f.u for f in formats) else formats[0]
    for f in formats:
        coarsest = coarser(coarsest, f)
    if coarsest.is_integer:
        reason = f"{coarsest} rounds by a scale that only calibration knows"
        return Tolerance(0, 0, "auto", scaled=True, decidable=False, reason=reason, depth=depth, format=coarsest.name)
    t = max(_random_walk(coarsest.u, depth, terms), ULPS * 2 * stored.u)
    reason = ""
    if coarsest.name in ("e4m3", "e5m2"):
        reason = f"{coarsest} is too coarse for its arithmetic to tell right from wrong"
    elif t > DECIDABLE:
        reason = f"{coarsest} over {depth} layers explains errors of {t:.0%}, which tells nothing"
    floor = 2 * coarsest.smallest_subnormal
    sums = math.hypot(1, FACTOR * FP16.u * math.sqrt(steps / 2) / t)
    return Tolerance(t, t, "auto", True, floor, not reason, reason, depth, terms, coarsest.name, coarsest.u, sums)


def _random_walk(u: float, layers: float, terms: float) -> float:
    """t by the formula of the module: so many layers that round to ``u``, and products that are summed in them."""
    accumulator = min(u, FP32.u)
    return FACTOR * math.sqrt(u**2 * layers + accumulator**2 * terms / 2)


def _stored(dtype: np.dtype) -> NumberFormat:
    if dtype.kind == "c":
        dtype = np.dtype(f"f{dtype.itemsize // 2}")
    if dtype.name in BY_DTYPE:
        return BY_DTYPE[dtype.name]
    return BY_DTYPE["float8_e5m2" if "e5m2" in dtype.name else "float8_e4m3fn"]


UNKNOWN_STEPS = 32
"""Steps of a loop or sequence whose length the graph does not tell."""


class Depth(int):
    """The number of layers that round on the longest path to a tensor.

    Attributes:
        terms: The greatest number of terms, at most `CHAIN` of each sum, that are summed along a path to it.
        steps: The greatest number of partial sums that round to FP16 on a path to it.
    """

    terms: float
    steps: float

    def __new__(cls, layers: int = 0, terms: float = 0, steps: float = 0) -> Depth:  # noqa: D102
        depth = super().__new__(cls, layers)
        depth.terms = terms
        depth.steps = steps
        return depth


def depth(index: GraphIndex, output: str, groups: Sequence[Any] | None = None) -> Depth:
    """The depth of ``output``.

    Args:
        groups: Fused groups (`graph.cutting.fusion.fused_groups`), each of which rounds once, as the target's kernels
            do. None counts every node that rounds by itself.
    """
    return depths(index, groups).get(output, Depth())


def depths(index: GraphIndex, groups: Sequence[Any] | None = None, narrow: Collection[str] = ()) -> dict[str, Depth]:
    """`depth` of every tensor of the graph that depends on its inputs.

    Args:
        groups: See `depth`.
        narrow: Names of nodes whose products add up in FP16.
    """
    owner: dict[int, int] = {p: -1 - number for number, group in enumerate(groups or ()) for p in group.nodes}
    entered: dict[int, Depth] = {}  # by group: the greatest depth among what it reads from outside, so far
    added: dict[int, Depth] = {}  # by group: what it has added itself, so far
    varying = set(index.inputs)
    known: dict[str, Depth] = {}
    for position, node in enumerate(index.nodes):
        group = owner.get(position, position)
        read = index.reads[position]
        if read and varying.isdisjoint(read):
            continue  # the same for every input: folded before anything runs
        varying.update(node.output)
        makers = [(known[n], index.producer[n]) for n in read if n in known]
        outside = [d for d, maker in makers if owner.get(maker, maker) != group]
        entered[group] = _deepest([entered.get(group, Depth()), *outside])
        own = _adds(index, position, bool(narrow) and index.names[position] in narrow)
        added[group] = _deepest([added.get(group, Depth()), own])
        before, new = entered[group], added[group]
        after = Depth(before + new, before.terms + new.terms, before.steps + new.steps)
        known.update({name: after for name in node.output if name})
    return known


def _deepest(depths: Sequence[Depth]) -> Depth:
    return Depth(max(depths), max(d.terms for d in depths), max(d.steps for d in depths))


def _adds(index: GraphIndex, position: int, narrow: bool) -> Depth:
    """What a node adds to the depth of what it reads; ``narrow`` if its products add up in FP16."""
    layers = _roundings(index, position)
    if not layers:
        return Depth()
    node = index.nodes[position]
    terms = term_count(node, lambda name: _shape(index, name))
    # the last partial sum is the result, whose rounding is counted
    steps = math.ceil(terms / at_once(node)) - 1 if narrow and node.op_type in STEPPED_PRODUCTS else 0
    return Depth(layers, min(terms, CHAIN) if terms > 1 else 0, steps)


def _shape(index: GraphIndex, name: str) -> tuple[int, ...] | None:
    """A tensor's shape, with 1 for what is unknown."""
    spec = index.specs.get(name)
    if spec is None or spec.shape is None:
        return None
    return tuple(d if isinstance(d, int) else 1 for d in spec.shape)


def _roundings(index: GraphIndex, position: int) -> int:
    """How often a node rounds a value on its way through."""
    node = index.nodes[position]
    spec = index.specs.get(node.output[0]) if node.output else None
    if spec is not None and not is_float(spec.dtype):
        return 0
    if node.op_type in RECURRENT:
        return _steps(index, node, attribute_int(node, "layout", 0))
    if node.op_type == "Loop":
        trips = index.constant(node.input[0]) if node.input[0] else None
        return _body(node) * (int(trips.reshape(-1)[0]) if trips is not None and trips.size else UNKNOWN_STEPS)
    if node.op_type == "Scan":
        return _body(node) * UNKNOWN_STEPS
    if node.op_type == "If":
        return _body(node)
    return _rounds_once(node)


def _rounds_once(node: onnx.NodeProto) -> int:
    if node.domain not in ("", "ai.onnx"):
        return 1
    if node.op_type in ("Cast", "CastLike"):
        return int(attribute_int(node, "to", 0) not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE))
    return int(node.op_type not in EXACT_OPERATORS)


def _steps(index: GraphIndex, node: onnx.NodeProto, layout: object) -> int:
    """Length of the sequence that a recurrent layer walks along."""
    spec = index.specs.get(node.input[0])
    axis = 1 if layout == 1 else 0
    length = spec.shape[axis] if spec is not None and spec.shape is not None and len(spec.shape) > axis else None
    return length if isinstance(length, int) and length > 0 else UNKNOWN_STEPS


def _body(node: onnx.NodeProto) -> int:
    """Roundings on the longest path through a node's bodies."""
    longest = 0
    for body in subgraphs(node):
        known: dict[str, int] = {}
        for inner in body.node:
            own = _body(inner) if inner.op_type in ("If", "Loop", "Scan") else _rounds_once(inner)
            after = own + max((known.get(n, 0) for n in reads(inner)), default=0)
            known.update(dict.fromkeys(inner.output, after))
        longest = max([longest, *known.values()])
    return longest
