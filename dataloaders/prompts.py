"""Prompts for a decoder: text or token ids, one prompt a line; mask, positions and an empty cache are made for them.

Text becomes tokens by a tokenizer that is given by its path; nothing is downloaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.decoders import Decoder, decoder, feed_of_tokens
from ..graph.errors import DataError, MissingPackage, UsageError, first_line
from ..graph.foreign import contained
from ..graph.implied_inputs import input_ranges
from ..graph.interrupts import uninterrupted
from .base import Sample, Samples, Source
from .fitting import fit, specs_of
from .prompt_options import PromptOptions

if TYPE_CHECKING:
    from ..graph.model import Model
    from ..graph.specs import TensorSpec

READS = "prompts (.txt or .jsonl, one a line: text with --tokenizer, or token ids)"
_IDS = re.compile(r"\d+(?:[\s,]+\d+)*")


def opens(path: Path) -> Source | None:
    """A source if ``path`` is a file of prompts."""
    return Prompts(path=path) if path.suffix in (".txt", ".jsonl") and path.is_file() else None


@dataclass(frozen=True)
class Prompts(PromptOptions, Source):
    """Prompts in a file, one a line.

    ``.txt``: text, where there is a tokenizer, else token ids with spaces or commas between. ``.jsonl``: a text, a list
    of token ids, or an object that holds one of them as ``text``, ``prompt`` or ``input_ids``. Empty lines are skipped.

    Attributes:
        path: The file.
        tokenizer, batch: See `PromptOptions`.
    """

    path: Path = Path()

    def bind(self, model: Model) -> PromptSamples:
        """Reads and tokenizes the prompts, and makes what a decoder takes besides tokens.

        Raises:
            DataError: The model is no decoder, or the file cannot be read, or holds what is no prompt for it.
            MissingPackage: Text cannot be tokenized without the package ``tokenizers``.
        """
        found = decoder(model.inputs, model.outputs)
        if found is None:
            names = ", ".join(spec.name for spec in model.inputs)
            raise DataError(f"--data {self.path}: prompts are for a model with input_ids; this one has {names}.")
        prompts = self._tokens()
        _check_ids(self.path, prompts, model, found)
        groups = [prompts[i : i + self.batch] for i in range(0, len(prompts), self.batch)]
        return PromptSamples(found, specs_of(model), groups, str(self.path))

    def _tokens(self) -> list[list[int]]:
        """The token ids of each prompt."""
        read = _json_line if Path(self.path).suffix == ".jsonl" else self._text_line
        try:
            lines = Path(self.path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"--data {self.path}: cannot be read: {first_line(error)}.") from None
        found: list[str | list[int]] = []
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    found.append(read(line))
                except ValueError as error:
                    raise DataError(f"--data {self.path}, line {number}: {error}.") from None
        if not found:
            raise DataError(f"--data {self.path}: holds no prompt.")
        texts = [prompt for prompt in found if isinstance(prompt, str)]
        encoded = iter(self._encoded(texts) if texts else ())
        return [next(encoded) if isinstance(prompt, str) else prompt for prompt in found]

    def _text_line(self, line: str) -> str | list[int]:
        if self.tokenizer is not None or not _IDS.fullmatch(line.strip()):
            return line
        return [int(word) for word in re.split(r"[\s,]+", line.strip())]

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of texts, with those that the tokenizer adds to a text."""
        if self.tokenizer is None:
            raise DataError(
                f"--data {self.path}: {texts[0][:40]!r} is text. Name its tokenizer with --tokenizer (tokenizer.json, "
                "or the folder that holds it), or give token ids."
            )
        path = Path(self.tokenizer)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise DataError(f"--tokenizer {self.tokenizer}: there is no file {path}.")
        try:
            with uninterrupted():
                from tokenizers import Tokenizer
        except ImportError:
            raise MissingPackage("tokenizers", "llm") from None
        try:
            with contained():
                tokenizer = Tokenizer.from_file(str(path))
                tokenizer.no_padding()
                tokenizer.no_truncation()
                return [list(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]
        except Exception as error:  # whatever the package says of a file that is no tokenizer
            raise DataError(f"--tokenizer {path}: cannot be used: {first_line(error)}.") from None


def prompted(source: Source, given: Mapping[str, Any]) -> Source:
    """A source of prompts with options of the command line.

    Raises:
        UsageError: There are options, and the source is no file of prompts.
    """
    if not given:
        return source
    if not isinstance(source, Prompts):
        flags = " and ".join(f"--{name}" for name in given)
        raise UsageError(f"{flags}: for prompts, and --data is no file of prompts (.txt or .jsonl).")
    return Prompts(**given, path=source.path)


def _json_line(line: str) -> str | list[int]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if isinstance(value, dict):
        value = next((value[key] for key in ("input_ids", "text", "prompt") if key in value), value)
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value and all(type(item) is int and item >= 0 for item in value):
        return value
    raise ValueError(f"a text, or a list of token ids, is expected; found {str(value)[:40]!r}")


def _check_ids(path: Path, prompts: Sequence[Sequence[int]], model: Model, found: Decoder) -> None:
    """Makes sure that every prompt holds tokens, which the model has rows for."""
    legal = input_ranges(model.index).get(found.ids.name)
    for number, ids in enumerate(prompts, 1):
        if not ids:
            raise DataError(f"--data {path}: prompt {number} has no token.")
        if legal is not None and legal.strict and max(ids) >= legal.hi:
            raise DataError(
                f"--data {path}: prompt {number} holds the token {max(ids)}, and the model takes 0 to {legal.hi - 1:g} "
                f"({legal.reason}); does the tokenizer belong to it?"
            )


class PromptSamples(Samples):
    """Prompts of a decoder: token ids are kept, all else is made when it is asked for."""

    def __init__(
        self, model: Decoder, specs: Mapping[str, TensorSpec], groups: Sequence[Sequence[Sequence[int]]], name: str
    ) -> None:
        self._model, self._specs, self._groups, self._name = model, specs, groups, name
        self.count = len(groups)
        prompts = sum(map(len, groups))
        tokens = sum(len(ids) for group in groups for ids in group)
        self.description = f"{prompts} prompt{'s'[: prompts != 1]} of {name}, {tokens:,} tokens"
        cache = "; each prompt starts behind an empty cache" if model.caches else ""
        self.notes = (f"The model was recognized as {model}{cache}.",)
        fit(specs, self[0], self.name_of(0))

    def name_of(self, number: int) -> str:
        """What messages call a sample."""
        return f"{self._name}: sample {number}"

    def __iter__(self) -> Iterator[Sample]:
        return (fit(self._specs, self[number], self.name_of(number)) for number in range(self.count))

    def __getitem__(self, number: int) -> Sample:
        """Sample ``number`` alone.

        Raises:
            IndexError: There is none of this number.
        """
        if not 0 <= number < self.count:
            raise IndexError(number)
        group = self._groups[number]
        ids = np.zeros((len(group), max(map(len, group))), np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(group):  # padding stands behind a prompt: before it, it would see nothing at all
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return feed_of_tokens(self._model, ids, mask)
