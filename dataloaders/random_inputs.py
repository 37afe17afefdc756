"""Random inputs, bounded twice: values stay inside ranges, and memory does not grow with the number of samples.

Each array is made from (seed, number of the sample, name of the input) alone, so that any sample can be made again by
itself, and adding an input to a model does not change the values of the others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.errors import DataError
from ..graph.implied_inputs import Range, input_ranges
from ..graph.implied_shapes import choose_shapes
from ..graph.numpy_files import memory
from ..graph.specs import STRING, TensorSpec, is_float
from .base import Sample, Samples, Source
from .decoder_inputs import CACHE_RANGE, Together, together
from .random_options import DEFAULT_SAMPLES, INTEGERS, Number, RandomOptions

if TYPE_CHECKING:
    from ..graph.model import Model

LARGER = (16, 32, 64, 128, 224, 256, 384, 512, 1024)
"""Sizes of open dimensions that are tried where a runner refuses the usual ones."""
LARGEST = 1 << 22
"""Most elements of an input of a size that nobody asked for."""

WRITTEN = 6
"""Most sizes that stand in the graph itself which are tried there."""

_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


@dataclass(frozen=True)
class DataLoader(RandomOptions, Source):
    """Random samples for any model.

    The range of an input is the first of these that is known: the one in ``ranges``; ``int_range`` or ``float_range``;
    what the graph implies; and by default [0, 1) for floats, 0 and 1 for integers, and the whole dtype for int8 and
    uint8 (images and quantized data). What the user says wins over what the graph only hints at (masks). Where values
    would be errors in the graph, ``int_range`` and ``float_range`` are narrowed, and refused if nothing is left; a
    range of one input is refused.

    Attributes:
        int_range, float_range, seed, samples, ranges: See `RandomOptions`.
        shapes: Shape by input name; None or -1 leaves a dimension open.
        more_shapes: Further sets of such shapes: samples take the first set, the second, ... and the first again.
        ends: Sets that samples take behind those, but for those that the model refuses.
        usual: Sizes of dimensions that nobody gave, on axis 0 and elsewhere, unless the graph takes others alone.
    """

    shapes: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    more_shapes: Sequence[Mapping[str, Sequence[int | None]]] = ()
    ends: Sequence[Mapping[str, Sequence[int | None]]] = ()
    usual: tuple[int, int] = (2, 8)

    def bind(self, model: Model) -> RandomSamples:
        """Chooses shapes and ranges for the inputs of ``model``.

        Raises:
            DataError: A range or shape names an input that is not there, contradicts the model, or does not fit the
                dtype.
        """
        for name in self.ranges:
            if name not in {spec.name for spec in model.inputs}:
                raise DataError(f"ranges (--range): {name!r} is no input. {_inputs(model)}")
        first = self._bind(model, self.shapes)
        others = [self._bind(model, shapes).plans for shapes in self.more_shapes]
        refused = []
        for shapes in self.ends:
            try:
                plans = self._bind(model, shapes).plans
            except DataError as error:  # of shapes that belong together, not all smallest or largest ones do
                refused.append((_named(shapes), str(error)))
                continue
            if _shapes(plans) not in map(_shapes, (first.plans, *others)):
                others.append(plans)
        first.more_plans = tuple(others)
        if self.samples is None:
            first.hold(max(first.count, 1 + len(others)))
        sets = [_named(_shapes(plans)) for plans in others[first.count - 1 :]]
        first.shapes_not_run = (*((shapes, "") for shapes in sets), *refused)
        first.loader = self
        return first

    def _bind(self, model: Model, shapes: Mapping[str, Sequence[int | None]]) -> RandomSamples:
        fixed = together(model, shapes)
        first, elsewhere = self.usual
        chosen = choose_shapes(model.index, fixed.shapes, first=first, others=elsewhere)
        implied = input_ranges(model.index, chosen.shapes)
        plans, unknown, inferred = [], [], False
        for spec in model.inputs:
            if (settled := self._settled(spec, chosen.shapes[spec.name], fixed)) is not None:
                plans.append(settled)
                continue
            plan, source = self._plan(spec, chosen.shapes[spec.name], implied.get(spec.name))
            plans.append(plan)
            inferred = inferred or source == "graph"
            if source == "default":
                unknown.append(plan)
        for one in plans:
            _check_size(one)
        notes = [*fixed.notes, *self._idle(model)]
        notes += [
            f"{name!r} is {'x'.join(map(str, chosen.shapes[name]))}: {', '.join(sizes)} chosen here, "
            f"since the model leaves {'it' if len(sizes) == 1 else 'them'} open (--shape {name}:DIMS)."
            for name, sizes in chosen.chosen.items()
        ]
        if chosen.refused:
            usual = f"{first} for the batch and {elsewhere} elsewhere"
            notes.append(f"The graph refuses the usual sizes, {usual} ({chosen.refused}).")
        if chosen.doubt:
            notes.append(f"These shapes may not fit the graph: {chosen.doubt}. Give others with --shape NAME:DIMS.")
        notes += [f"{plan.spec.name!r} is drawn from {plan}: {plan.reason}." for plan in plans if plan.reason]
        if unknown:
            drawn = ", ".join(f"{plan.spec.name} {plan}" for plan in unknown)
            notes.append(f"{drawn}: no range is known, so random values were used. Set --range NAME:LO,HI.")
        count = DEFAULT_SAMPLES if self.samples is None else self.samples
        samples = RandomSamples(self.seed, count, tuple(plans), inferred, tuple(notes))
        samples.guessed = tuple(chosen.chosen)
        samples.unranged = tuple(plan.spec.name for plan in unknown)
        return samples

    def _idle(self, model: Model) -> Iterator[str]:
        """What to say of ranges of a kind that no input is of."""
        floats = [spec for spec in model.inputs if is_float(spec.dtype)]
        whole = [
            spec for spec in model.inputs if spec not in floats and spec.dtype != STRING and spec.dtype.kind != "b"
        ]
        for flag, pair, inputs, kind in (
            ("--int-range", self.int_range, whole, "whole numbers"),
            ("--float-range", self.float_range, floats, "floats"),
        ):
            if pair is not None and not inputs:
                yield f"{flag} {pair[0]:g},{pair[1]:g} changes nothing: no input holds {kind}."

    def _settled(self, spec: TensorSpec, shape: tuple[int, ...], fixed: Together) -> Plan | None:
        """How to draw an input of a decoder that belongs to others, and of which the user says nothing."""
        if spec.name in self.ranges:
            return None
        if spec.name in fixed.values:
            return Plan(spec, shape, 0, 0, "", True, fixed.values[spec.name].reshape(shape))
        if spec.name in fixed.caches and self.float_range is None:
            return Plan(spec, shape, *CACHE_RANGE, "")
        return None

    def _plan(self, spec: TensorSpec, shape: tuple[int, ...], implied: Range | None) -> tuple[Plan, str]:
        """How to draw one input, and who said so: ``user``, ``graph`` or ``default``."""
        name, dtype = spec.name, spec.dtype
        if dtype == STRING:
            if name in self.ranges:
                raise DataError(f"--range {name}: the input holds strings, which have no range.")
            return Plan(spec, shape, 0, 0, ""), "default"
        whole = not is_float(dtype) or (implied is not None and implied.integer)
        if name in self.ranges:
            return self._by_name(spec, shape, implied, whole=not is_float(dtype)), "user"
        if implied is not None and implied.value is not None:
            value = np.asarray(implied.value)
            if value.size == math.prod(shape):
                return Plan(spec, shape, implied.lo, implied.hi, implied.reason, True, value.reshape(shape)), "graph"
        general = self.int_range if not is_float(dtype) else self.float_range
        if general is not None and dtype.kind != "b":
            _check_dtype("int_range" if whole and not is_float(dtype) else "float_range", general, spec)
        default = general if general is not None and dtype.kind != "b" else _default(dtype)
        lo, hi = default
        who = "default" if general is None else "user"
        if who == "user" and implied is not None:
            implied, whole = implied.legal, not is_float(dtype)
        if implied is None:
            return Plan(spec, shape, lo, hi, "", whole), who
        if who == "user":
            _check_legal(f"--{'float' if is_float(dtype) else 'int'}-range", default, spec, implied)
        low, high = max(lo, implied.lo), min(hi, implied.hi)
        if implied.bounded and (general is None or low >= high):
            lo, hi, who = implied.lo, implied.hi, "graph"
        elif low < high or (low == high and not whole):
            lo, hi = low, high
        elif math.isfinite(implied.lo):  # one-sided, and the usual range lies outside
            lo, hi = implied.lo, implied.lo + max(1, hi - lo)
        else:
            lo, hi = implied.hi - max(1, hi - lo), implied.hi
        lo, hi = _clip(lo, hi, dtype, whole)
        reason = implied.reason if who == "graph" or (lo, hi) != tuple(default) else ""
        return Plan(spec, shape, lo, hi, reason, whole, mask=implied.mask), who

    def _by_name(self, spec: TensorSpec, shape: tuple[int, ...], implied: Range | None, whole: bool) -> Plan:
        pair = self.ranges[spec.name]
        what = f"range of {spec.name!r}"
        if whole:
            try:
                INTEGERS.check(pair)
            except ValueError as refusal:
                raise DataError(f"{what}=({pair[0]}, {pair[1]}): {refusal}.") from None
        _check_dtype(what, pair, spec)
        implied = None if implied is None else implied.legal
        if implied is not None and implied.strict and (pair[0] < implied.lo or pair[1] > implied.hi):
            asked = f"[{pair[0]:g}, {pair[1]:g}{')' if whole else ']'}"
            raise DataError(
                f"--range {spec.name}:{pair[0]:g},{pair[1]:g}: the graph allows {implied} alone ({implied.reason}); "
                f"{asked} is outside."
            )
        return Plan(spec, shape, pair[0], pair[1], "", whole)


def _check_size(plan: Plan) -> None:
    """Refuses an input that this machine cannot hold.

    Raises:
        DataError: It is larger than its memory.
    """
    size = math.prod(plan.shape) * plan.spec.dtype.itemsize
    if size > memory():
        fixed = plan.spec.shape is not None and all(isinstance(dim, int) for dim in plan.spec.shape)
        way = f"give a smaller one with --shape {plan.spec.name}:DIMS"
        raise DataError(
            f"input {plan.spec.name!r} of shape {'x'.join(map(str, plan.shape))} is {size / 2**30:,.0f} GiB, and this "
            f"machine has {memory() / 2**30:,.0f} GiB of memory: {'export a model of a smaller one' if fixed else way}."
        )


@dataclass(frozen=True)
class Plan:
    """How one input is drawn.

    Attributes:
        spec: The input.
        shape: Its shape in every sample.
        lo, hi: The range; ``hi`` is not included where ``whole``.
        reason: Why the graph implies it; empty where it does not.
        whole: Whether whole numbers are drawn.
        value: The one value, where only one fits.
        mask: Whether the first element along the last axis is always 1: a mask never drops everything.
    """

    spec: TensorSpec
    shape: tuple[int, ...]
    lo: Number
    hi: Number
    reason: str
    whole: bool = False
    value: np.ndarray | None = None
    mask: bool = False

    def __str__(self) -> str:
        if self.spec.dtype == STRING:
            return "(random words)"
        if self.value is not None:
            return str(self.value.tolist())
        if self.whole and self.hi - self.lo == 2:
            return f"{{{self.lo:g}, {self.lo + 1:g}}}"
        return f"[{self.lo:g}, {self.hi:g})"

    def draw(self, seed: int, number: int) -> np.ndarray:
        """The array of sample ``number``: the same bytes whenever it is asked for. Read-only."""
        rng = np.random.Generator(np.random.PCG64(_entropy(seed, number, self.spec.name)))
        array = self._values(rng)
        array.flags.writeable = False
        return array

    def _values(self, rng: np.random.Generator) -> np.ndarray:
        dtype, shape = self.spec.dtype, self.shape
        if self.value is not None:
            return self.value.astype(dtype)
        if dtype == STRING:
            return _words(rng, shape)
        if self.whole:
            wide: Any = np.uint64 if self.hi - 1 > np.iinfo(np.int64).max else np.int64
            drawn = rng.integers(int(self.lo), int(self.hi) - 1, shape, dtype=wide, endpoint=True)
            drawn = np.asarray(drawn)
            if self.mask and drawn.ndim and drawn.size:
                drawn[..., 0] = 1
            return drawn.astype(dtype)
        if dtype.kind == "c":
            part = np.dtype(f"float{dtype.itemsize * 4}")
            return np.asarray(self._floats(rng, part) + 1j * self._floats(rng, part), dtype)
        return self._floats(rng, dtype)

    def _floats(self, rng: np.random.Generator, dtype: np.dtype) -> np.ndarray:
        """Floats of [lo, hi), as near as ``dtype`` comes to it: rounding never leaves [lo, hi]."""
        wide: type[np.floating[Any]] = np.float64 if dtype == np.float64 else np.float32
        drawn: np.ndarray = (
            rng.random(self.shape, np.float64) if wide is np.float64 else rng.random(self.shape, np.float32)
        )
        low, high = _inside(self.lo, self.hi, dtype)
        if low == 0:
            drawn *= wide(high)
        else:  # a weighted mean does not overflow where hi - lo would
            drawn = np.asarray(drawn * wide(high) + (1 - drawn) * wide(low), wide)
        np.clip(drawn, low, high, out=drawn)
        return drawn.astype(dtype, copy=False)


class RandomSamples(Samples):
    """Random samples for one model. Nothing is kept: each pass makes them again.

    Attributes:
        plans: How each input is drawn.
        more_plans: The same for further sets of shapes, which samples take in turn.
        loader: What was bound.
    """

    representative = False
    more_plans: tuple[tuple[Plan, ...], ...] = ()
    loader: DataLoader | None = None

    def __init__(self, seed: int, count: int, plans: tuple[Plan, ...], inferred: bool, notes: tuple[str, ...]) -> None:
        self.seed = seed
        self.plans = plans
        self.notes = notes
        self._inferred = inferred
        self.hold(count)

    def hold(self, count: int) -> None:
        """Sets how many samples there are."""
        self.count = count
        said = ", ranges inferred from the graph" if self._inferred else ""
        self.description = f"{count} random sample{'' if count == 1 else 's'}, seed {self.seed}{said}"

    def __getitem__(self, number: int) -> Sample:
        """Sample ``number`` alone.

        Raises:
            IndexError: There is none of this number.
        """
        if not 0 <= number < self.count:
            raise IndexError(number)
        assert self.seed is not None
        plans = (self.plans, *self.more_plans)[number % (1 + len(self.more_plans))]
        return {plan.spec.name: plan.draw(self.seed, number) for plan in plans}

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(self.count))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the first sample, by input."""
        return _shapes(self.plans)

    def resized(self, model: Model) -> Iterator[RandomSamples]:
        """The same samples with other sizes in the place of those that were guessed, the likeliest first.

        Args:
            model: The model that they are bound to.
        """
        seen = [self.shapes]
        first, elsewhere = DataLoader.usual
        larger = [(batch, size) for size in (*_written_sizes(model), *LARGER) for batch in (first, 1)]
        for usual in ((1, elsewhere), *larger, *((size, elsewhere) for size in LARGER)):
            if self.loader is None or not self.guessed:
                return
            other = replace(self.loader, usual=usual).bind(model)
            if other.shapes not in seen and max(map(math.prod, other.shapes.values())) <= LARGEST:
                seen.append(other.shapes)
                yield other


def _shapes(plans: Sequence[Plan]) -> dict[str, tuple[int, ...]]:
    return {plan.spec.name: plan.shape for plan in plans}


def _named(shapes: Mapping[str, Sequence[int | None]]) -> str:
    """Shapes as the command line has them."""
    return ", ".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _written_sizes(model: Model) -> list[int]:
    """Sizes that a Reshape is given as constants, alone or joined: an export for one length has it there."""
    index, found = model.index, dict[int, None]()
    for node in index.nodes:
        if node.op_type != "Reshape" or len(node.input) < 2:
            continue
        joined = index.producer.get(node.input[1])
        names = [node.input[1]]
        if joined is not None and index.nodes[joined].op_type == "Concat":
            names += index.nodes[joined].input
        for shape in (index.weight(name) for name in names):
            found.update(dict.fromkeys(int(size) for size in (() if shape is None else shape.reshape(-1)) if size > 1))
    return list(found)[:WRITTEN]


def _entropy(seed: int, number: int, name: str) -> list[int]:
    return [seed, number, int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")]


def _words(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    words = np.empty(math.prod(shape), object)
    for i in range(words.size):
        words[i] = "".join(rng.choice(_LETTERS, rng.integers(1, 9)))
    return words.reshape(shape)


def _inputs(model: Model) -> str:
    return f"The model has {', '.join(repr(spec.name) for spec in model.inputs) or 'no inputs'}."


def _default(dtype: np.dtype) -> tuple[Number, Number]:
    if dtype.kind in "iu" and dtype.itemsize == 1:
        info = np.iinfo(dtype)
        return info.min, info.max + 1
    return (0.0, 1.0) if is_float(dtype) else (0, 2)


def _limits(dtype: np.dtype) -> tuple[Number, Number]:
    """The smallest and the largest value of a dtype, the infinities left out."""
    import ml_dtypes

    if dtype.kind == "b":
        return 0, 1
    if is_float(dtype):
        part = np.dtype(f"float{dtype.itemsize * 4}") if dtype.kind == "c" else dtype
        info = np.finfo(part) if part.isbuiltin == 1 else ml_dtypes.finfo(part)
        return float(info.min), float(info.max)
    whole = np.iinfo(dtype) if dtype.kind in "iu" else ml_dtypes.iinfo(dtype)
    return int(whole.min), int(whole.max)


def _clip(lo: Number, hi: Number, dtype: np.dtype, whole: bool) -> tuple[Number, Number]:
    """A range that the graph implies, cut to what the dtype can hold."""
    least, most = _limits(dtype)
    return max(lo, least), min(hi, most + 1 if whole else most)


def _check_legal(flag: str, pair: tuple[Number, Number], spec: TensorSpec, legal: Range) -> None:
    if pair[1] <= legal.lo or (pair[0] >= legal.hi if legal.integer else pair[0] > legal.hi):
        raise DataError(
            f"{flag} {pair[0]:g},{pair[1]:g}: the graph allows {spec.name!r} {legal} alone ({legal.reason}). "
            f"Give it a range of its own with --range {spec.name}:LO,HI."
        )


def _check_dtype(what: str, pair: tuple[Number, Number], spec: TensorSpec) -> None:
    least, most = _limits(spec.dtype)
    last = pair[1] if is_float(spec.dtype) else pair[1] - 1
    if pair[0] < least or last > most:
        raise DataError(
            f"{what}=({pair[0]:g}, {pair[1]:g}) does not fit {spec.name!r}: {spec.dtype} holds {least:g} to {most:g}."
        )


def _inside(lo: Number, hi: Number, dtype: np.dtype) -> tuple[float, float]:
    """The smallest and the largest value of a float dtype in [lo, hi]; the nearest one twice if it has none there."""
    limits = _limits(dtype)
    least, most = (np.asarray(end, np.float64).astype(dtype) for end in limits)
    low, high = (np.asarray(min(max(end, limits[0]), limits[1]), np.float64).astype(dtype) for end in (lo, hi))
    up = np.nextafter(low, most) if float(low) < lo else low
    down = np.nextafter(high, least) if float(high) > hi else high
    if float(up) <= float(down):
        return float(up), float(down)
    return float(low), float(low)
