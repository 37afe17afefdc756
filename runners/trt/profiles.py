"""Optimization profiles: the shapes that an engine is built for, and which of them some shapes run in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.errors import UsageError
from ..contract.workload import ShapeRange, seen_ranges
from .network import dims_of, inputs_of

if TYPE_CHECKING:
    import numpy as np

    from ..contract.workload import Feed


Ranges = Mapping[str, tuple[tuple[int, ...], ...]]
"""Input name -> (min, opt, max)."""


def add_profiles(
    builder: Any,
    network: Any,
    config: Any,
    samples: Callable[[], Iterable[Feed]] | None,
    shape_sets: Sequence[Mapping[str, ShapeRange]],
) -> list[Ranges]:
    """The optimization profiles that inputs with dynamic shapes, or with values that are shapes, need."""
    dynamic = [t for t in inputs_of(network) if min(dims_of(t), default=0) < 0]
    values = [t for t in inputs_of(network) if t.is_shape_tensor]
    for tensor in inputs_of(network):
        for shapes in shape_sets:
            if tensor.name in shapes:
                _check_range(tensor.name, dims_of(tensor), shapes[tensor.name])
    if not dynamic and not values:
        return []
    unknown = [t.name for t in dynamic if any(t.name not in shapes for shapes in shape_sets)]
    if samples is None and (unknown or values):
        name = unknown[0] if unknown else values[0].name
        raise UsageError(f"{name} has a dynamic shape: give the shapes to build for with --shape.")
    seen = seen_ranges(samples(), unknown) if samples is not None and unknown else {}
    inside: dict[str, list[np.ndarray]] = {t.name: [] for t in values}
    for sample in samples() if samples is not None and values else ():
        for name, found in inside.items():
            found.append(sample[name].reshape(-1))
    result: list[Ranges] = []
    for shapes in shape_sets:
        profile = builder.create_optimization_profile()
        ranges = {t.name: shapes.get(t.name) or seen[t.name] for t in dynamic}
        used = {name: (r.min, r.opt, r.max) for name, r in ranges.items()}
        for name, triple in used.items():
            profile.set_shape(name, *triple)
        for name, found in inside.items():
            low, high = ([int(f(v[i] for v in found)) for i in range(len(found[0]))] for f in (min, max))
            profile.set_shape_input(name, low, [int(v) for v in found[0]], high)
        config.add_optimization_profile(profile)
        result.append(used)
    return result


def _check_range(name: str, dims: tuple[int, ...], asked: ShapeRange) -> None:
    for shape in (asked.min, asked.opt, asked.max):
        if len(shape) != len(dims) or any(d >= 0 and d != s for d, s in zip(dims, shape, strict=True)):
            raise UsageError(f"--shape {name}:{shape_text(shape)} contradicts the model: {name} is {shape_text(dims)}.")
    if not all(a <= b <= c for a, b, c in zip(asked.min, asked.opt, asked.max, strict=True)):
        raise UsageError(f"--shape {name}: min <= opt <= max does not hold in every dimension.")


def shape_text(shape: Sequence[int]) -> str:
    """``1x3x?``: an open dimension (-1) is a question mark."""
    return "x".join("?" if d < 0 else str(d) for d in shape) or "scalar"


def calibration_profile(builder: Any, network: Any, samples: Any, used: Ranges) -> Any:
    """TensorRT calibrates at one shape: that of the first sample, else of each input's optimum."""
    first: Feed = next(iter(samples()), {}) if samples is not None else {}
    profile = builder.create_optimization_profile()
    for tensor in inputs_of(network):
        if tensor.name in used:
            shape = tuple(first[tensor.name].shape) if tensor.name in first else used[tensor.name][1]
            profile.set_shape(tensor.name, shape, shape, shape)
    return profile


Profile = Mapping[str, tuple[tuple[int, ...], ...]]
"""Input -> (min, opt, max)."""


def profiles_of(engine: Any, inputs: Sequence[str]) -> list[Profile]:
    """The optimization profiles of an engine; inputs of fixed shape have that shape three times."""
    fixed = {n: tuple(int(d) for d in engine.get_tensor_shape(n)) for n in inputs}
    result: list[Profile] = []
    for number in range(engine.num_optimization_profiles):
        found = {}
        for name, shape in fixed.items():
            shapes = engine.get_tensor_profile_shape(name, number) if min(shape, default=0) < 0 else [shape] * 3
            found[name] = tuple(tuple(int(d) for d in s) for s in shapes)
        result.append(found)
    return result


def narrowest(profiles: Sequence[Profile], shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The profile to run some shapes in: of those that allow them the one that allows the fewest others.

    Between equals the one whose optimum is nearest, as that is what TensorRT chose its kernels for.
    """
    fitting = []
    for number, profile in enumerate(profiles):
        if not all(fits(shape, profile[name]) for name, shape in shapes.items() if name in profile):
            continue
        allowed, away = 1, 0
        for name, (low, best, high) in profile.items():
            for a, c in zip(low, high, strict=True):
                allowed *= c - a + 1
            away += sum(abs(d - o) for d, o in zip(shapes.get(name, best), best, strict=True))
        fitting.append((allowed, away, number))
    if not profiles:
        return 0
    return min(fitting)[2] if fitting else None


def fits(shape: tuple[int, ...], triple: tuple[tuple[int, ...], ...]) -> bool:
    """Whether a shape is between min and max."""
    low, _, high = triple
    return len(shape) == len(low) and all(a <= d <= c for a, d, c in zip(low, shape, high, strict=True))


def range_text(triple: tuple[tuple[int, ...], ...]) -> str:
    """``1x3..4x3..8x3``, or the one shape that it is."""
    texts = [shape_text(shape) for shape in triple]
    return texts[0] if len(set(texts)) == 1 else "..".join(texts)
