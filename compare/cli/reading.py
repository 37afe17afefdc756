"""What a command reads, which nothing that it writes may replace: the one place that knows.

Whatever option takes a text as it stands may name a file: there is no list of those that do, which a new option, or a
runner of somebody else's, would be missing from.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.machinery
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...graph.interrupts import uninterrupted
from ...graph.options import options
from ...runners.contract.runner import Runner
from ..comparison import Rules

WRITTEN = ("fix", "fixed_model", "apply_remedy", "save_inputs", "save_outputs", "save_worst", "resume")
"""What a command line names to be written, besides reports."""
WORDS = ("NAME", "NAMES", "NODE", "ADDRESS")
"""Values that are texts as they stand, and no paths, by what the help calls them."""
_SAVED = re.compile(r"(worst-.*)?sample\d+\.npz")
"""The files in a folder of saved samples."""


@dataclass(frozen=True)
class Reads:
    """Files and folders that a command reads.

    Attributes:
        paths: All of them; what is no path, or names nothing that is there, does no harm.
        models: Those that are networks, with which other files belong: external weights, what an engine was built from.
    """

    paths: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @classmethod
    def of(cls, models: Iterable[Any], paths: Iterable[Any] = ()) -> Reads:
        """What reads some models, and some other files; what is no path is passed over."""
        networks = tuple(os.fspath(path) for path in models if isinstance(path, (str, os.PathLike)))
        others = tuple(os.fspath(path) for path in paths if isinstance(path, (str, os.PathLike)))
        return cls((*networks, *others), networks)

    @classmethod
    def of_words(cls, words: Iterable[str]) -> Reads:
        """What the words of a command line may read, which is not taken apart."""
        named = [path for word in words for path in _paths(word)]
        return cls.of((path for path in named if not path.startswith("-")), named)

    def __add__(self, other: Reads) -> Reads:
        return Reads((*self.paths, *other.paths), (*self.models, *other.models))

    def __contains__(self, path: str) -> bool:
        """Whether a path is one of those that are read, by this or another name, or lies in a folder that is read."""
        real = os.path.realpath(path)
        if any(_covers(os.path.realpath(read), real) for read in self.paths):
            return True
        return os.path.isfile(real) and any(_same(file, real) for file in self._beside())

    def _beside(self) -> Iterator[str]:
        """What belongs with the models, and with engines that runners are given."""
        with uninterrupted():
            from ...graph.load import is_engine
        for path in dict.fromkeys([*self.models, *filter(is_engine, self.paths)]):
            yield from _beside(path)

    def in_folder(self, path: str) -> bool:
        """Whether what is read are samples that lie in a folder of this name, where others would replace them."""
        if not os.path.isdir(path):
            return False
        folder = os.path.realpath(path)
        files = (os.path.realpath(read) for read in self.paths if _SAVED.fullmatch(os.path.basename(read)))
        return any(os.path.commonpath([file, folder]) == folder for file in files)


def reads_of(values: Mapping[str, Any], runners: Iterable[Runner]) -> Reads:
    """What a command line of ``compare`` reads.

    Args:
        values: Models, and the values of options, by name.
        runners: The runners that it names.
    """
    words = {f.name for f in options(Rules) if not _is_path(f)}
    folders = {"allow_external", "tokenizer"}  # others write there, too
    skipped = {*WRITTEN, *words, *folders, "reports", "models"}
    texts = [value for name, value in values.items() if name not in skipped and not name.startswith("runner option ")]
    found = Reads.of(
        values.get("models", ()), (path for text in [*texts, values.get("metric")] for path in _paths(text))
    )
    tokenizer = values.get("tokenizer")
    if tokenizer is not None:
        found += Reads.of((), [os.path.join(tokenizer, "tokenizer.json") if os.path.isdir(tokenizer) else tokenizer])
    for runner in runners:
        found += _of_runner(runner)
    return found


def caches_of(runners: Iterable[Runner]) -> list[tuple[str, str]]:
    """Files that runners read and write: the field, and the path."""
    named = ((name, getattr(runner, name)) for runner in runners for name in runner.capabilities.caches)
    return [(name, path) for name, path in named if path is not None]


def _of_runner(runner: Runner) -> Reads:
    left_out = {*runner.capabilities.output_files, *runner.capabilities.caches, "isolation"}
    values = [getattr(runner, f.name) for f in dataclasses.fields(runner) if f.name not in left_out and _is_path(f)]
    module = getattr(sys.modules.get(type(runner).__module__), "__file__", None)
    found = Reads.of([runner.model], [module, *(path for value in values for path in _paths(value))])
    return found if runner.in_one_run is None else found + _of_runner(runner.in_one_run)


def _is_path(f: dataclasses.Field[Any]) -> bool:
    """Whether the value of a field may be a path: a text that is taken as it stands, and is not said to be a name."""
    return f.metadata.get("kind") is None and f.metadata.get("arguments", {}).get("metavar") not in WORDS


def _paths(value: Any) -> Iterator[str]:
    """The paths that a value may name: as it stands, ``FILE:NAME``, ``KEY=FILE``, ``package.module:name``."""
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _paths(one)
    if not isinstance(value, (str, os.PathLike)):
        return
    text = os.fspath(value)
    if not text:  # what is not given is not the present folder
        return
    yield text
    if "=" in text and not os.path.exists(text):
        yield text.partition("=")[2]
    head, colon, name = text.rpartition(":")
    if colon and not os.path.exists(text):
        yield head
        if name.isidentifier() and all(part.isidentifier() for part in head.split(".")):
            yield from _sources(head.split("."))


def _sources(parts: list[str]) -> Iterator[str]:
    """The files that a module, and the packages that it is in, may be imported from."""
    for folder in dict.fromkeys([os.getcwd(), *(path or os.getcwd() for path in sys.path)]):
        for end in range(1, len(parts) + 1):
            base = os.path.join(folder, *parts[:end])
            for name in (base, os.path.join(base, "__init__")):
                yield from filter(os.path.isfile, (name + suffix for suffix in importlib.machinery.all_suffixes()))


def _covers(read: str, real: str) -> bool:
    if real == read or _same(read, real):
        return True
    return os.path.isdir(read) and os.path.isfile(real) and os.path.commonpath([real, read]) == read


def _same(one: str, other: str) -> bool:
    return os.path.isfile(one) and os.path.isfile(other) and os.path.samefile(one, other)


def _beside(model: str) -> tuple[str, ...]:
    try:
        state = os.stat(model)
    except OSError:
        return ()
    return _beside_as_it_is(os.path.abspath(model), (state.st_mtime_ns, state.st_size))


@functools.lru_cache(maxsize=64)
def _beside_as_it_is(model: str, state: tuple[int, int]) -> tuple[str, ...]:
    from ...graph.load import belonging

    return tuple(os.fspath(file) for file in belonging(Path(model)))
