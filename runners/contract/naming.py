"""What reports call runners: by what they are, and where two are of a kind, by the options in which they differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .options import written

if TYPE_CHECKING:
    from .runner import Runner


def distinct_names(runners: Sequence[Runner]) -> list[str]:
    """A name for each runner, all different.

    ``onnxrt`` and ``onnxrt:optimization=disable`` are two that differ; the second of two that are the same is
    ``onnxrt#2``.
    """
    names = [_with_differences(runner, [r for r in runners if r.name == runner.name]) for runner in runners]
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return result


def _with_differences(runner: Runner, namesakes: Sequence[Runner]) -> str:
    """A runner's name, with those settings that are not the usual ones and in which it differs from a namesake."""
    cls = type(runner)
    if all(other == runner for other in namesakes):
        return runner.name
    if any(type(other) is not cls for other in namesakes):
        return f"{cls.__module__}:{cls.__qualname__}"
    told = []
    for f in dataclasses.fields(cls):
        value = getattr(runner, f.name)
        if f.name != "model" and value != f.default and any(getattr(r, f.name) != value for r in namesakes):
            told.append(written(f.name, value))
    if not told:
        return runner.name
    return f"{runner.name}{',' if ':' in runner.name else ':'}{','.join(told)}"
