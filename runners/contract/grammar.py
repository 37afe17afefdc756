"""What may stand behind ``--RUNNER=`` on the command line: the settings of one runner.

A list with commas between, of words (a value of the runner's own, a switch, a word that stands for settings) and of
``KEY=VALUE``: ``--trt=fp16,int8,calibrator=minmax``. A comma that belongs to a value is written twice. Only the first
``=`` divides, so that a value may hold others. An option that takes several values is given several times. Case matters
in values that are not from a list, as paths.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...graph.errors import UsageError
from .options import Option


@dataclass(frozen=True)
class Grammar:
    """What may stand behind ``--RUNNER=``.

    Attributes:
        written: The option, ``--onnxrt`` or ``--runner module:Class``.
        options: The runner's options, by field.
        value: The field that takes a bare word; empty: there is none.
        words: Bare words that stand for settings of fields.
    """

    written: str
    options: Mapping[str, Option]
    value: str = ""
    words: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def read(self, text: str) -> dict[str, Any]:
        """The settings that a text asks for, by field.

        Raises:
            UsageError: A word or a key is unknown, a value is not legal, or a field is given two values.
        """
        if not self.options and not self.words:
            raise UsageError(f"{self.written} takes no value; got {text!r}.")
        found: dict[str, Any] = {}
        items = [item for part in _divided(text) for item in self._joined(part)]
        for item in items or [""]:
            alone = f"{self.written}={text}" + (f": {item}" if len(items) > 1 and item else "")
            for name, value in self._item(item, alone).items():
                known = self.options.get(name)
                if known is not None and known.repeats:
                    found[name] = (*found.get(name, ()), *value)
                elif found.setdefault(name, value) != value:
                    both = f"{found[name]} and {value}"
                    raise UsageError(f"{self.written}={text}: {name} is given twice, as {both}. Name two runners.")
        return found

    def _joined(self, part: str) -> list[str]:
        """``fp16+int8``, as reports write it, is ``fp16,int8``."""
        several = part.split("+")
        return several if len(several) > 1 and all(self._word(s) is not None for s in several) else [part]

    def _item(self, item: str, written: str) -> dict[str, Any]:
        key, equals, value = item.partition("=")
        name = self._named(key)
        if equals and name:
            read = self.options[name].read(value, written)
            return {name: (read,) if self.options[name].repeats else read}
        settings = None if equals else self._word(item)
        if settings is not None:
            return dict(settings)
        own = self.options.get(self.value)
        if own is not None and not own.choices and not equals and item:
            return {own.name: own.read(item, written)}
        switches = any(option.switch for option in self.options.values())  # which are told instead
        if own is not None and not own.choices and not item and not switches:
            raise UsageError(f"{self.written} '': it was given nothing; expected {own.metavar or own.name}.")
        raise UsageError(self._unknown(key, bool(equals), written))

    def _word(self, word: str) -> Mapping[str, Any] | None:
        """What a bare word stands for: one of the runner's values, a switch, or settings; None: nothing."""
        own, plain = self.options.get(self.value), word.casefold()
        for choice in own.choices if own is not None else ():
            if choice.casefold() == plain:
                return {self.value: choice}
        name = self._named(word)
        if name and self.options[name].switch:
            return {name: True}
        return self.words.get(plain)

    def _named(self, key: str) -> str:
        plain = key.strip().casefold().replace("-", "_")
        return plain if plain in self.options else ""

    def _unknown(self, word: str, with_value: bool, written: str) -> str:
        """What is wrong with a word, the one that may be meant, and all that there are."""
        own = self.options.get(self.value)
        values = [] if with_value or own is None else list(own.choices)
        switches = [] if with_value else [name for name, known in self.options.items() if known.switch]
        words = [] if with_value else list(self.words)
        keys = [name for name, known in self.options.items() if with_value or not known.switch]
        near = difflib.get_close_matches(word.casefold().replace("-", "_"), [*values, *words, *switches, *keys], n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        listed = values or [*words, *switches]
        rest = [name for name in (*switches, *keys) if name not in listed and name != self.value]
        options = f" Further options: {', '.join(rest)}." if rest else ""
        if with_value:
            return f"{written}: there is no option {word!r}{hint} The options are {', '.join(keys)}."
        if not listed:
            return f"{self.written} takes no value; got {word!r}{hint}{options}"
        return f"{written}: expected {', '.join(listed)}{hint}{options}"


def _divided(text: str) -> Iterable[str]:
    """The items of a list with commas between. Two commas are one that belongs to the item."""
    return [part.strip().replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
