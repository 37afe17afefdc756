"""The part of a command line that names runners, and their options, which are made from what they declare."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from ...graph.errors import UsageError
from ...runners import load_class
from ...runners.contract.runner import Runner
from .options import add


def first_line(cls: type[Runner]) -> str:
    """What the help says of a runner."""
    return (cls.__doc__ or "").strip().split("\n", 1)[0].rstrip(".").replace("``", "").replace("%", "%%")


def _destination(flag: str) -> str:
    return f"runner option {flag}"


def add_options(parser: argparse.ArgumentParser, cls: type[Runner], classes: Mapping[str, type[Runner]]) -> None:
    """Adds the options that one runner declares, under a heading of their own."""
    taken = parser._option_string_actions
    group = None
    for f in cls.cli_fields():
        flag = f.metadata["flag"]
        if flag in taken:
            continue  # shared with a runner that came before
        sharing = [name for name, c in classes.items() if any(g.metadata["flag"] == flag for g in c.cli_fields())]
        group = group or parser.add_argument_group(f"options of --{cls.flag}")
        also = "" if len(sharing) == 1 else f" (also {', '.join('--' + n for n in sharing if n != cls.flag)})"
        add(group, f, _destination(flag), also)


def named_classes(words: Sequence[str]) -> dict[str, type[Runner]]:
    """Runner classes that ``--runner`` names, so that their options are known when the line is read."""
    found = {}
    for i, word in enumerate(words):
        if word == "--runner" or word.startswith("--runner="):
            spec = word.partition("=")[2] if "=" in word else (words[i + 1] if i + 1 < len(words) else "")
            spec = spec.partition("=")[0]
            cls = load_class(spec)
            found[spec] = cls
    return found


def take_runners(
    words: Sequence[str], classes: Mapping[str, type[Runner]]
) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Splits a command line into the runners it names, in order, and the rest."""
    named: list[tuple[str, str | None]] = []
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            return named, [*rest, word, *queue]
        flag, equals, value = word.partition("=")
        if flag == "--runner":
            if not equals:
                value = queue.pop(0) if queue else ""
            spec, equals, value = value.partition("=")
            named.append((spec, value if equals else None))
        elif flag.startswith("--") and flag[2:] in classes and ":" not in flag:
            if not equals and classes[flag[2:]].value_required and queue and not queue[0].startswith("-"):
                equals, value = "=", queue.pop(0)
            named.append((flag[2:], value if equals else None))
        else:
            rest.append(word)
    return named, rest


def configure(
    named: Sequence[tuple[str, str | None]], classes: Mapping[str, type[Runner]], space: Mapping[str, Any]
) -> tuple[Runner, ...]:
    """The runners' configurations: each with the options that its class declares."""
    given = {key: value for key, value in space.items() if key.startswith(_destination(""))}
    unused = set(given)
    runners = []
    for flag, value in named:
        cls = classes[flag]
        options = {}
        for f in cls.cli_fields():
            key = _destination(f.metadata["flag"])
            if key not in given:
                continue
            # --fp16 is short for --trt=fp16: it says nothing to a runner that was told its own value.
            if value is not None and f.metadata["flag"].removeprefix("--") in cls.values:
                continue
            options[f.name] = tuple(given[key]) if isinstance(given[key], list) else given[key]
            unused.discard(key)
        runners.append(cls.from_value(value, **options))
    _one_writer(runners)
    for key in sorted(unused):
        flag = key.removeprefix(_destination(""))
        takers = [f"--{n}" for n, c in classes.items() if any(f.metadata["flag"] == flag for f in c.cli_fields())]
        raise UsageError(f"{flag} is for {' or '.join(takers)}, and no runner was named that it applies to.")
    return tuple(runners)


def _one_writer(runners: Sequence[Runner]) -> None:
    """Two runners must not write the same file: the second would be all that is left."""
    for runner in runners:
        for name in runner.capabilities.output_files:
            path = getattr(runner, name)
            rivals = [r for r in runners if name in r.capabilities.output_files and getattr(r, name) == path]
            if path is not None and len(rivals) > 1:
                flag = next(f.metadata["flag"] for f in type(runner).cli_fields() if f.name == name)
                raise UsageError(f"{flag} {path}: {len(rivals)} runners would write it. Save one at a time.")


def hint_at_detached_value(models: Sequence[str], classes: Mapping[str, type[Runner]]) -> None:
    """Refuses ``--onnxrt cuda``, which reads ``cuda`` as a model.

    Raises:
        UsageError: A model that does not exist is called as a value of a runner.
    """
    import os

    for name in models:
        for flag, cls in classes.items():
            if name in cls.values and not os.path.exists(name):
                raise UsageError(f"{name}: no such model. If it is a runner's value, attach it: --{flag}={name}.")
