"""The allowed error of each element, computed where the tensors are: on a device."""

from __future__ import annotations

from typing import Any

from .libraries import Library
from .limits import Limits, Scales


class DeviceLimits:
    """`Limits`, on the device."""

    def __init__(self, lib: Library, limits: Limits) -> None:
        self._lib = lib
        self._rule = limits.tolerance
        self._floor = limits.floor
        self._scale = scale = limits.scale
        self.inner = 1
        """Blocks must start at a multiple of this."""
        if scale is not None and scale.parts:
            self.inner = scale.inner
            self._trailing = lib.upload(scale.trailing)
            self._varying = [(part.shape, lib.upload(part)) for part in scale.varying]

    def block(self, start: int, stop: int, magnitude: Any) -> Any:
        """Allowed errors of elements ``start`` to ``stop``; ``magnitude`` is |reference| of those."""
        rule, xp = self._rule, self._lib.xp
        if self._scale is None:
            return rule.atol + rule.rtol * magnitude
        limit = rule.rtol * (magnitude + self._scales(self._scale, start, stop))
        return xp.where(limit < self._floor, self._floor, limit)

    def _scales(self, scale: Scales, start: int, stop: int) -> Any:
        xp = self._lib.xp
        first, last = start // self.inner, -(-stop // self.inner)
        rows = self._lib.arange(first, last)
        inner = scale.shape[scale.lead :]
        result = self._trailing.reshape(1, self.inner)
        for shape, part in self._varying:
            flat, part_stride, stride = rows * 0, 1, 1  # where each row reads ``part``
            for axis in reversed(range(scale.lead)):
                if shape[axis] > 1:
                    flat = flat + rows // stride % shape[axis] * part_stride
                part_stride *= shape[axis]
                stride *= scale.shape[axis]
            chosen = part.reshape(part_stride, *shape[scale.lead :])[flat]
            values = xp.broadcast_to(chosen, (last - first, *inner)).reshape(last - first, self.inner)
            result = xp.minimum(result, values)
        return xp.broadcast_to(result, (last - first, self.inner)).reshape(-1)[: stop - start]
