"""One scale over values of very different size: what it leaves of the small ones.

Looks at: the values of a tensor or of weights along each axis, and the step that they are rounded by. Proves: which
channels are left with a few of the format's levels, or none, and which one channel takes the range for itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

FEW_LEVELS = 16
"""Levels below which a channel has all but lost its values, of 8 bits and more: four bits."""
NOTHING = 0.5
"""Steps below which a value rounds to zero."""
CHANNELS = 1 << 16
"""Most indices of an axis whose channels are looked at one by one."""
PERCENTILE = 99.9
"""Share of a tensor's values that a range might hold instead of all."""


@dataclass(frozen=True)
class SharedScale:
    """A scale over channels of very different size.

    Attributes:
        tensor: What it scales.
        kind: A tensor that is made while the network runs, or weights.
        channel, axis: The channel that sets the range.
        reach: Its greatest magnitude.
        channels: How many there are.
        few: How many others are left with fewer than `few_of` the levels.
        levels: How many the format has.
        sharper: How many times smaller the step is if the range holds `PERCENTILE` % of the values.
        outputs: Of weights: whether these are the output channels, which may have scales of their own.
        none: Of a tensor: how many of the few are left with a single level, that of zero.
    """

    tensor: str
    kind: Literal["tensor", "weights"]
    channel: int
    axis: int
    reach: float
    channels: int
    few: int
    levels: int
    sharper: float
    outputs: bool = False
    none: int = 0

    @property
    def text(self) -> str:
        """See `Fact`."""
        others = "1 other is" if self.few == 1 else f"{self.few:,} others are"
        lost = (
            f"channel {self.channel} sets the range, {self.reach:.4g}, and {others} left with fewer "
            f"than {few_of(self.levels)} of {self.levels:,} levels"
        )
        if self.none:
            lost += f", {self.none:,} of them with zero alone"
        if self.kind == "weights":
            which = "output" if self.outputs else "input"
            helps = "a scale for each gives each of them all" if self.outputs else "level them before quantizing"
            return f"weights '{self.tensor}' have one scale for {self.channels:,} {which} channels: {lost}; {helps}"
        text = f"'{self.tensor}' has one scale for {self.channels:,} channels (axis {self.axis}): {lost}"
        if self.sharper < 2:
            return text
        return f"{text}; a range of {PERCENTILE:g} % of the values makes the step {self.sharper:.3g} times smaller"


def few_of(levels: int) -> int:
    """Of how many levels a channel needs that many, not to have all but lost its values: 16 of 8 bits, 4 of 4 bits."""
    return max(2, min(FEW_LEVELS, levels // 4))


def levels_of(weight: np.ndarray, step: np.ndarray) -> int:
    """How many levels weights that are stored in steps have, from the least that a value takes to the greatest; 0 where
    they have no steps."""
    if not weight.size or not np.max(step, initial=0.0):
        return 0
    steps = np.divide(weight, step, out=np.zeros(weight.shape), where=np.broadcast_to(step, weight.shape) > 0)
    spanned = int(np.ptp(steps[np.isfinite(steps)])) + 1
    return min(spanned, 1 << round(math.log2(spanned)))  # a value halfway beyond the last level is on it


def shared_scale(
    tensor: str,
    values: np.ndarray,
    step: np.ndarray,
    levels: int,
    *,
    weights: bool = False,
    output_axis: int | None = None,
) -> SharedScale | None:
    """What one scale leaves of the channels of a tensor.

    Args:
        tensor: Its name.
        values: The tensor.
        step: The step of its scale, or of each of its scales: what has one of its own shares none, be it a channel or
            a block of them.
        levels: How many values the format has.
        weights: Whether it is weights, rather than made while the network runs, with a batch along the first axis.
        output_axis: Of weights: the axis of the output channels.

    Returns:
        What channels lose along the axis where most of them do, or half as many of fewer. None where none loses much.
    """
    if values.ndim < 2 or not np.max(step, initial=0.0):
        return None
    found: list[SharedScale] = []
    finite = values if np.isfinite(values).all() else np.where(np.isfinite(values), values, 0.0)
    one = step.size == 1  # what has been divided need not be kept then
    steps = finite if one else np.divide(finite, step, out=np.zeros(finite.shape), where=step > 0)
    unit = float(step.reshape(-1)[0]) if one else 1.0
    covered: float | None = None
    for axis in range(0 if weights else 1, values.ndim):
        count = values.shape[axis]
        if not 2 <= count <= CHANNELS or _varies(step, axis):
            continue
        others = tuple(d for d in range(values.ndim) if d != axis)
        high, low = (end.astype(np.float64) / unit for end in (steps.max(axis=others), steps.min(axis=others)))
        sizes = np.maximum(high, -low)
        left = np.maximum(high - low, sizes)
        few = int(np.count_nonzero((sizes > 0) & (left < few_of(levels) - 1)))
        none = 0 if weights else int(np.count_nonzero((sizes > 0) & (sizes < NOTHING)))
        channel = int(sizes.argmax())
        if not few:
            continue
        reach = float(np.abs(np.take(finite, channel, axis)).max())
        if covered is None:
            covered = float(np.percentile(np.abs(finite), PERCENTILE))
        sharper = reach / covered if covered else 1.0
        kind: Literal["tensor", "weights"] = "weights" if weights else "tensor"
        outputs = weights and axis == output_axis
        found.append(SharedScale(tensor, kind, channel, axis, reach, count, few, levels, sharper, outputs, none))
    most = max((one.few / one.channels for one in found), default=0.0)
    # a single value that is far out is one along every axis: that of the channels is the shortest
    return min((one for one in found if 2 * one.few / one.channels >= most), key=lambda one: one.channels, default=None)


def _varies(step: np.ndarray, axis: int) -> bool:
    """Whether there are several scales along an axis."""
    own = step.ndim > axis and step.shape[axis] > 1
    return own and bool((step != np.take(step, [0], axis)).any())
