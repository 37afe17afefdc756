"""The part of a command line that names runners, and their options, which are made from what they declare."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...graph.errors import UsageError
from ...runners import load_runner
from ...runners.contract.options import Option, options_of
from ...runners.contract.runner import Runner
from ...runners.function import FunctionRunner

Kinds = Mapping[str, type[Runner]]
"""Runner classes by the words that name them: flags, and what stands behind ``--runner``."""


def first_line(cls: type[Runner]) -> str:
    """What the help says of a runner."""
    return (cls.__doc__ or "").strip().split("\n", 1)[0].rstrip(".").replace("``", "").replace("%", "%%")


def shown(flag: str, cls: type[Runner]) -> str:
    """How the help writes the word that names a runner: ``--onnxrt[=cpu|cuda|tensorrt]``."""
    own = cls.grammar().options.get(cls.value_field)
    form = cls.value_form or (own.form if own is not None else "")
    return f"--{flag}={form}" if cls.value_required else f"--{flag}[={form}]" if form else f"--{flag}"


def _destination(flag: str) -> str:
    return f"runner option {flag}"


def _written(word: str) -> str:
    """How a command line names a runner."""
    return f"--runner {word}" if ":" in word else f"--{word}"


def _takers(flag: str, kinds: Kinds) -> Iterator[tuple[str, Option]]:
    """Who has a long option, and as what."""
    for word, cls in kinds.items():
        for known in options_of(cls).values():
            if flag and known.flag == flag:
                yield word, known


def add_options(parser: argparse.ArgumentParser, cls: type[Runner], kinds: Kinds) -> None:
    """Adds the options that one runner declares, under a heading of their own.

    Their values stay text: which of them a runner takes, and what they mean to it, is known when runners are made.
    """
    options = [known for name, known in options_of(cls).items() if name != cls.value_field]
    if not options:
        return
    word = next(word for word, kind in kinds.items() if kind is cls)
    lines = [f"for every {_written(word)}; for one alone, behind its =: {_written(word)}={_example(options[0])}"]
    lines += [f"{_written(word)}={_short(known)}: {known.help}" for known in options if not known.flag]
    group = parser.add_argument_group(f"options of {_written(word)}", "\n".join(lines))
    for known in options:
        if not known.flag or known.flag in parser._option_string_actions:
            continue
        also = [_written(other) for other, _ in _takers(known.flag, kinds) if other != word]
        text = known.help.replace("%", "%%") + (f" (also {', '.join(also)})" if also else "")
        arguments: dict[str, Any] = {"dest": _destination(known.flag), "default": argparse.SUPPRESS, "help": text}
        if known.switch:
            action = group.add_argument(known.flag, action="store_true", **arguments)
        else:
            action = group.add_argument(known.flag, action="append", metavar=known.form, **arguments)
        same = known.flag == f"--{known.name.replace('_', '-')}"
        form = known.flag if known.switch else f"{known.flag} {known.form}"
        action.shown = form if same else f"{known.flag}, {_short(known)}"  # type: ignore[attr-defined]


def _example(known: Option) -> str:
    return known.name if known.switch else f"{known.name}={known.choices[0] if known.choices else known.metavar}"


def _short(known: Option) -> str:
    """How an option is written behind a runner's ``=``."""
    return known.name if known.switch else f"{known.name}={known.form}"


def named_classes(words: Sequence[str]) -> dict[str, type[Runner]]:
    """Runner classes that ``--runner`` names, so that their options are known when the line is read."""
    found = {}
    for i, word in enumerate(words):
        if word == "--runner" or word.startswith("--runner="):
            spec = word.partition("=")[2] if "=" in word else (words[i + 1] if i + 1 < len(words) else "")
            spec = spec.partition("=")[0]
            found[spec] = load_runner(spec)
    return found


def take_runners(words: Sequence[str], kinds: Kinds) -> tuple[list[tuple[str, str | None]], list[str]]:
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
        elif flag.startswith("--") and flag[2:] in kinds and ":" not in flag:
            if not equals and queue and _is_value(queue[0], kinds[flag[2:]]):
                equals, value = "=", queue.pop(0)
            named.append((flag[2:], value if equals else None))
        else:
            rest.append(word)
    return named, rest


def _is_value(word: str, cls: type[Runner]) -> bool:
    """Whether the word behind a runner's flag belongs to it."""
    return not word.startswith("-") and (cls.value_required or word.endswith(cls.value_suffixes))


def configure(named: Sequence[tuple[str, str | None]], kinds: Kinds, space: Mapping[str, Any]) -> tuple[Runner, ...]:
    """The runners' configurations: each with its own settings, and with the long options that apply to it.

    Raises:
        UsageError: A setting is not legal, is given twice with different values, or applies to no runner.
    """
    mark = _destination("")
    given = {key.removeprefix(mark): value for key, value in space.items() if key.startswith(mark)}
    unused = dict.fromkeys(given)
    runners = []
    for word, value in named:
        cls = kinds[word]
        own = {} if value is None else cls.grammar(_written(word)).read(value)
        known = options_of(cls.configurable(own))
        applying = {name: option for name, option in known.items() if option.flag in given}
        defaults = {name: _default(option, given[option.flag], word) for name, option in applying.items()}
        taken = cls.applicable(own, defaults)
        for name in taken:
            unused.pop(known[name].flag, None)
        runners.append(cls.configured({**own, **({"function": word} if cls is FunctionRunner else {})}, taken))
    _one_writer(runners)
    for flag in unused:
        takers = dict(_takers(flag, kinds))
        here = [word for word, _ in named if word in takers]
        if here:
            short = _short(takers[here[0]])
            raise UsageError(
                f"{flag}: every {_written(here[0])} here says what it takes. Write it there: --{here[0]}=...,{short}."
            )
        every = " or ".join(map(_written, takers))
        raise UsageError(f"{flag} is for {every}, and no runner was named that it applies to.")
    return tuple(runners)


def _default(known: Option, given: Any, word: str) -> Any:
    """The value of a long option, of which a list holds all that were given."""
    if known.switch:
        return True
    values = [known.read(text, f"{known.flag} {text}") for text in given]
    if known.repeats:
        return tuple(values)
    other = next((v for v in values if v != values[0]), values[0])
    if other != values[0]:
        two = " ".join(f"{_written(word)}={known.name}={given[values.index(v)]}" for v in (values[0], other))
        raise UsageError(f"{known.flag} is given twice, as {values[0]} and {other}. For two runners: {two}.")
    return values[0]


def _one_writer(runners: Sequence[Runner]) -> None:
    """Two runners must not write the same file: the second would be all that is left."""
    for runner in runners:
        for name in runner.capabilities.output_files:
            path = getattr(runner, name)
            rivals = [r for r in runners if name in r.capabilities.output_files and getattr(r, name) == path]
            if path is not None and len(rivals) > 1:
                flag = options_of(type(runner))[name].flag or name
                raise UsageError(f"{flag} {path}: {len(rivals)} runners would write it. Save one at a time.")


def hint_at_detached_value(models: Sequence[str], kinds: Kinds) -> None:
    """Refuses ``--onnxrt cuda``, which reads ``cuda`` as a model.

    Raises:
        UsageError: A model that does not exist is called as a value of a runner.
    """
    for name in models:
        for flag, cls in kinds.items():
            own = cls.grammar().options.get(cls.value_field)
            if name.casefold() in (own.choices if own is not None else ()) and not os.path.exists(name):
                raise UsageError(f"{name}: no such model. If it is a runner's value, attach it: --{flag}={name}.")
