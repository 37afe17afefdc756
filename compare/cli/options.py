"""Options of the command line made from what dataclass fields declare (`graph.options`)."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import Field
from typing import Any

from ...graph.errors import UsageError
from ...graph.options import Kind, options


def add(group: Any, f: Field[Any]) -> None:
    """Adds the option that a field declares. What is not given leaves no trace in the namespace.

    Args:
        group: A parser or one of its groups.
        f: The field.
    """
    flag, kind, arguments = f.metadata["flag"], f.metadata.get("kind"), dict(f.metadata["arguments"])
    if isinstance(f.default, bool):
        arguments.setdefault("action", "store_true")
    elif kind.repeated if kind is not None else isinstance(f.default, tuple):
        arguments.setdefault("action", "append")
    if arguments.get("action") in (None, "append"):
        arguments.setdefault("action", Once)
        arguments.setdefault("metavar", "VALUE" if "choices" not in arguments else None)
    if kind is not None:
        arguments["type"] = _reader(flag, kind)
    alone = arguments.pop("const", None)
    text = f.metadata["help"].replace("%", "%%")
    action = group.add_argument(flag, dest=f.name, default=argparse.SUPPRESS, help=text, **arguments)
    if alone is not None:
        action.alone, action.words = alone, getattr(kind, "words", ())
        others = "|".join(word for word in action.words if word != alone)
        action.shown = f"{flag}[={others or arguments['metavar']}]"


class Once(argparse.Action):
    """An option of one value. Given twice with two values, it is refused: the last would win without a word."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """See `argparse.Action`.

        Raises:
            UsageError: The option has another value already.
        """
        before = getattr(namespace, self.dest, None)
        if before not in (None, values):
            raise UsageError(f"{option_string} is given twice, as {_told(before)} and {_told(values)}: say which.")
        setattr(namespace, self.dest, values)


def _told(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def given(space: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """The values of a dataclass's fields that a command line gives.

    Raises:
        UsageError: Values of one option do not go together.
    """
    found = {}
    for f in options(cls):
        if f.name not in space:
            continue
        value, kind = space[f.name], f.metadata["kind"]
        if isinstance(value, list):
            try:
                value = tuple(value) if kind is None else kind.collect(value)
            except ValueError as error:
                raise UsageError(f"{f.metadata['flag']}: {error}.") from None
        found[f.name] = value
    return found


def _reader(flag: str, kind: Kind) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind.read(text)
        except ValueError as error:
            raise UsageError(f"{flag} {text}: {error}.") from None

    return read
