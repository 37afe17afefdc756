"""Random numbers out of pools that are inputs of a graph: one session gives any number of draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..formats import FP32, FP64

POOL = "layerdiff/pool"
"""Prefix of the inputs that hold random numbers."""
UNIT = f"{POOL}/unit"
"""The pool of normal variates; the others hold factors, of the size that their names tell."""
SPREAD = 1 << 20
"""Numbers of a pool over which the places are spread from which nodes read."""
SHARED = 1 << 12
"""Elements up to which tensors of one shape may read one window: it is held until the last of them has read it."""
KEPT = 10 << 20
"""Longest row of factors that is kept for the next draw."""
STEPS = float(1 << 16)
"""Places of a pool from one power of e to the next, where a vector's values say at which it reads: coarse enough for
kernels that compute equal vectors a few unit roundoffs apart."""
STRIDE = 7919
"""Numbers from one of these places to the next."""
SEED = 20240229


class Pools:
    """Random numbers for draws, each of which is a window into one long row of them.

    Args:
        scales: See `RandomRounding`.
        size: Elements of the largest tensor that is perturbed.
    """

    def __init__(self, scales: Mapping[str, float], size: int) -> None:
        self.size = size + SPREAD
        length = self.size + SPREAD
        self._rows = {n: _normal_row(length) if n == UNIT else _factors(scale, length) for n, scale in scales.items()}

    def draw(self, number: int) -> dict[str, np.ndarray]:
        """The pools of one draw, by input name."""
        start = (number * 48271 + 11) % SPREAD
        return {name: row[start : start + self.size] for name, row in self._rows.items()}

    def neutral(self) -> dict[str, np.ndarray]:
        """Pools that perturb nothing."""
        return {name: np.full(self.size, name != UNIT, np.float32) for name in self._rows}


def scales_in(names: Iterable[str]) -> dict[str, float]:
    """The pools among the inputs of a graph, and the standard deviation of their numbers (see `RandomRounding`)."""
    pools = (name for name in names if name.startswith(f"{POOL}/"))
    return {name: 1.0 if name == UNIT else float(name.removeprefix(f"{POOL}/")) for name in pools}


def _normal_row(size: int) -> np.ndarray:
    """Normal variates, which longer rows begin with, too: the longest that was asked for is kept."""
    if _longest[0].size < size:
        _longest[0] = np.random.default_rng(SEED).standard_normal(-(-size // SPREAD) * SPREAD, dtype=np.float32)
        _longest[0].flags.writeable = False
    return _longest[0][:size]


_longest = [np.empty(0, np.float32)]


def _factors(scale: float, size: int) -> np.ndarray:
    """1 + ``scale`` times the normal variates: a row of those that were asked for last is kept, if it is not long."""
    known = _last.get(scale)
    if known is not None and known.size >= size:
        return known[:size]
    row = np.multiply(_normal_row(size), np.float32(scale))
    row += np.float32(1)
    _last.clear()
    if size <= KEPT:
        row.flags.writeable = False
        _last[scale] = row
    return row


_last: dict[float, np.ndarray] = {}


@dataclass(frozen=True)
class Place:
    """What is known of a tensor that is perturbed.

    Attributes:
        shape: Its shape; None where a size is not known.
        double: Whether it holds float64.
        iteration: In the body of a Loop or Scan, the name of the iteration's number.
        draw: Small tensors of one shape whose draws have the same number are given the same random numbers; None: no
            other tensor is.
        vectors: Counted from the last axis: vectors along this axis that hold the same values are given the same random
            numbers; None: each element is given its own.
    """

    shape: tuple[int, ...] | None = None
    double: bool = False
    iteration: str = ""
    draw: int | None = None
    vectors: int | None = None


class NoiseWriter:
    """Writes nodes that perturb tensors.

    Args:
        gain: By how much every perturbation is enlarged.
        double: The same for float64 tensors, beside ``gain``: sizes are meant for FP32 unless it is 1.
        common: The size, enlarged, of most perturbations of weights, which then have a pool of factors.
        opset: The opset of the graph. Tensors without elements (a cache before the first token) are perturbed from 14
            on, where a Reshape can make them.

    Attributes:
        nodes: What was written, in order.
        constants: The constants that they read, by name.
        scales: The pools that they read (see `Pools`).
        sites: How many tensors are perturbed.
    """

    def __init__(self, gain: float, double: float = FP64.u / FP32.u, *, opset: int = 1, common: float = 0.0) -> None:
        self.gain = gain
        self.common = common
        self.double = double
        self._reshape = {"allowzero": 1} if opset >= 14 else {}
        self._opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.scales: dict[str, float] = {}
        self.sites = 0
        self._written: dict[tuple[object, ...], str] = {}

    def emit(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Writes a node of one output and returns the output's name."""
        self.nodes.append(helper.make_node(op, inputs, [output], f"{POOL}/{output}", **attributes))
        return output

    def constant(self, value: Sequence[int] | float, dtype: type = np.int64) -> str:
        """The name of a constant; equal ones are written once."""
        name = f"{POOL}/{dtype.__name__} {value!r}"
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.array(value, dtype), name)
        return name

    def perturb(
        self,
        name: str,
        place: Place,
        size: float,
        target: str = "",
        *,
        weight: bool = False,
        step: float = 0.0,
        smallest: float = 0.0,
        mean: float = 0.0,
    ) -> str:
        """Writes x (1 + size n), plus ``step`` n, min(|x|, ``smallest``) n, and ``mean`` n of the mean magnitude of x.

        Args:
            name: The tensor x.
            place: What is known of it.
            size: Standard deviation of the relative error.
            target: The name of the result; a new one if not given.
            weight: The same numbers are drawn in every iteration of a loop.
            step: Standard deviation of an absolute error.
            smallest: The same for numbers that are subnormal in a format: none changes its sign, zero stays zero.
            mean: The same in units of the tensor's mean magnitude.

        Returns:
            The name of the result.
        """
        self.sites += 1
        target = target or f"{name}/r{self.sites}"
        prefix = f"{target}/n{self.sites}"
        size, step, smallest, mean = (self.gain * s for s in (size, step, smallest, mean))
        if place.double:
            size, step, mean = (s * self.double for s in (size, step, mean))
        # a pool for each size of activations; weights have too many sizes
        unit = (weight and size != self.common) or place.double or any((step, smallest, mean))
        pool = UNIT if unit else f"{POOL}/{size!r}"
        self.scales[pool] = 1.0 if unit else size
        noise = self._noise(pool, name, place, prefix, weight)
        if not unit:
            return self.emit("Mul", [name, noise], target)
        kind = np.float64 if place.double else np.float32
        spread = self.constant(size, kind)
        if smallest:
            spread = self._spread(name, prefix, spread, self.constant(smallest, kind), self.constant(1.0, kind))
        if not step and not mean:
            factor = self._factor(noise, prefix, kind, spread)
            if smallest:
                factor = self.emit("Max", [factor, self.constant(1e-3, kind)], f"{prefix}/positive")
            return self.emit("Mul", [name, factor], target)
        # of the magnitude, so that the relative part and the absolute one never cancel
        whole = self._deviation(name, prefix, kind, step, mean)
        if size or smallest:
            own = self.emit("Mul", [self.emit("Abs", [name], f"{prefix}/own"), spread], f"{prefix}/relative")
            whole = self.emit("Add", [own, whole], f"{prefix}/whole")
        return self.emit("Add", [name, self.emit("Mul", [noise, whole], f"{prefix}/error")], target)

    def _factor(self, noise: str, prefix: str, kind: type, spread: str) -> str:
        if (noise, spread) not in self._written:
            relative = self.emit("Mul", [noise, spread], f"{prefix}/relative")
            self._written[noise, spread] = self.emit("Add", [relative, self.constant(1.0, kind)], f"{prefix}/factor")
        return self._written[noise, spread]

    def _deviation(self, name: str, prefix: str, kind: type, step: float, mean: float) -> str:
        """The standard deviation of an absolute error: ``step``, and a share of the tensor's mean magnitude."""
        deviation = self.constant(step, kind)
        if not mean:
            return deviation
        size = self.emit("Abs", [name], f"{prefix}/size")
        typical = self.emit("ReduceMean", [size], f"{prefix}/typical", keepdims=0)
        share = self.emit("Mul", [typical, self.constant(mean, kind)], f"{prefix}/share of it")
        return self.emit("Add", [share, deviation], f"{prefix}/deviation")

    def _spread(self, name: str, prefix: str, size: str, smallest: str, one: str) -> str:
        """The relative standard deviation of each element, where that of a subnormal number is larger than ``size``."""
        magnitude = self.emit("Abs", [name], f"{prefix}/magnitude")
        share = self.emit("Div", [smallest, magnitude], f"{prefix}/share")
        capped = self.emit("Min", [share, one], f"{prefix}/capped")
        return self.emit("Add", [capped, size], f"{prefix}/spread")

    def _noise(self, pool: str, name: str, place: Place, prefix: str, weight: bool) -> str:
        """Random numbers out of a pool, in the shape and type of a tensor."""
        shared = place.draw is not None and place.shape is not None and math.prod(place.shape) <= SHARED
        key = (pool, place.draw, place.shape, place.double)
        if shared and key in self._written:
            return self._written[key]
        start = (self.sites if place.draw is None else place.draw) * 1037189 % SPREAD
        if place.vectors is not None and not weight and not place.iteration:
            noise = self._by_value(pool, name, place.vectors, prefix, start)
        else:
            noise = self._window(pool, name, place.shape, prefix, "" if weight else place.iteration, start)
        if place.double:
            noise = self.emit("Cast", [noise], f"{prefix}/double", to=TensorProto.DOUBLE)
        if shared:
            self._written[key] = noise
        return noise

    def _window(
        self, pool: str, name: str, shape: tuple[int, ...] | None, prefix: str, iteration: str, start: int
    ) -> str:
        """Random numbers out of a pool, in the shape of a tensor."""
        if shape is not None and not iteration:
            ends = [self.constant([start]), self.constant([start + math.prod(shape)])]
            window = self.emit("Slice", [pool, *ends], f"{prefix}/row")
            return self.emit("Reshape", [window, self.constant(shape)], f"{prefix}/n", **self._reshape)
        dims = self.emit("Shape", [name], f"{prefix}/shape")
        count = self.emit("ReduceProd", [dims], f"{prefix}/count", keepdims=1)
        first = self.constant([start])
        if iteration:
            steps = self.emit("Mul", [iteration, self.constant([STRIDE])], f"{prefix}/steps")
            moved = self.emit("Add", [steps, first], f"{prefix}/moved")
            wrapped = self.emit("Mod", [moved, self.constant([SPREAD])], f"{prefix}/wrapped")
            first = self.emit("Reshape", [wrapped, self.constant([1])], f"{prefix}/first")
        end = self.emit("Add", [count, first], f"{prefix}/end")
        row = self.emit("Slice", [pool, first, end], f"{prefix}/row")
        return self.emit("Reshape", [row, dims], f"{prefix}/n", **self._reshape)

    def _by_value(self, pool: str, name: str, axis: int, prefix: str, start: int) -> str:
        """Random numbers out of a pool, in the shape of a tensor, the same ones for vectors of equal values.

        Where a vector reads follows from the greatest of its elements, each times a random number of its own: unlike a
        sum, it does not depend on the order in which a kernel goes through them.
        """
        self.scales[UNIT] = 1.0
        dims = self.emit("Shape", [name], f"{prefix}/shape")
        count = self.emit("Gather", [dims, self.constant([axis])], f"{prefix}/count", axis=0)
        along = self.constant([-1] + [1] * (-1 - axis))
        end = self.emit("Add", [count, self.constant([start])], f"{prefix}/end")
        row = self.emit("Slice", [UNIT, self.constant([start]), end], f"{prefix}/row")
        own = self.emit("Reshape", [row, along], f"{prefix}/own")
        single = self.emit("Cast", [name], f"{prefix}/single", to=TensorProto.FLOAT)
        drawn = self.emit("Mul", [single, own], f"{prefix}/drawn")
        greatest = f"{prefix}/greatest"
        if self._opset >= 18:
            self.emit("ReduceMax", [drawn, self.constant([axis])], greatest, keepdims=1)
        else:
            self.emit("ReduceMax", [drawn], greatest, axes=[axis], keepdims=1)
        size = self.emit("Abs", [greatest], f"{prefix}/size of it")
        raised = self.emit("Max", [size, self.constant(1e-37, np.float32)], f"{prefix}/raised")
        power = self.emit("Log", [raised], f"{prefix}/power")
        steps = self.emit("Mul", [power, self.constant(STEPS, np.float32)], f"{prefix}/steps")
        number = self.emit("Cast", [steps], f"{prefix}/number", to=TensorProto.INT64)
        strides = self.emit("Mul", [number, self.constant([STRIDE])], f"{prefix}/strides")
        moved = self.emit("Add", [strides, self.constant([start])], f"{prefix}/moved")
        first = self.emit("Mod", [moved, self.constant([SPREAD])], f"{prefix}/first")
        numbers = self.emit(
            "Range",
            [self.constant(0), self.emit("Squeeze", [count], f"{prefix}/length"), self.constant(1)],
            f"{prefix}/numbers",
        )
        places = self.emit("Add", [first, self.emit("Reshape", [numbers, along], f"{prefix}/next")], f"{prefix}/places")
        return self.emit("Gather", [pool, places], f"{prefix}/n", axis=0)
