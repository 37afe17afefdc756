"""The command line as text: which options there are, and what a command line asks for.

Two rules that argparse alone does not keep: an option never swallows the model (a runner's value is attached with
``=``; only a runner that cannot do without one takes the next word), and runners keep their order and repeats.
Nothing here imports NumPy or ONNX: ``compare --help`` is to be instant.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ...dataloaders.prompt_options import PromptOptions
from ...dataloaders.random_options import DEFAULT_SAMPLES, RandomOptions
from ...graph.errors import UsageError
from ...graph.options import options
from ...runners import discover
from ...runners.contract.options import options_of
from ...runners.contract.runner import Runner
from ..comparison import Rules, check_form
from ..share import refuse_what_needs_all
from .commands import COMMANDS
from .ending import Shown, standard_output_kept
from .options import Once, add, given
from .reading import WRITTEN, Reads, caches_of, reads_of
from .report_options import (
    Reports,
    add_formats,
    add_screen,
    check_layers,
    check_outputs,
    check_reports,
    check_screen,
)
from .runner_arguments import (
    add_options,
    configure,
    first_line,
    hint_at_detached_value,
    named_classes,
    shown,
    take_runners,
)
from .synonyms import meant

USAGE = "compare MODEL [MODEL2] --RUNNER[=VALUE] --RUNNER[=VALUE] ... [options]"

DESCRIPTION = "Do several runtimes agree on a network? The most trusted one is the reference, the others are judged."

EPILOG = """\
examples:
  compare model.onnx --onnxrt --emulate fp16      would FP16 do? (no accelerator needed)
  compare model.onnx --trt --fp16 --onnxrt        TensorRT in FP16 against ONNX Runtime
  compare model.engine --trt --onnxrt             an engine against the ONNX file it was built from
  compare frozen.pb --tf --onnxrt                 was the conversion right?
  compare model.onnx --onnxrt --emulate fp16 --fix plan.json     which layers have to stay in FP32?
  compare trained.onnx exported.onnx --onnxrt     two files: the first is the reference

other commands, each with --help:
  layerdiff report      makes any format of a saved report
  layerdiff reduce      a culprit as a few nodes that fail alone
  layerdiff merge       the report on all samples, from those of --shard
  layerdiff plan        shows a precision plan, or writes it for another tool
  layerdiff inspect     inputs, outputs, layers and ranges of a model
  layerdiff extract     a part of a model as a model
  layerdiff completion  what a shell needs to complete all of these

verdicts:
  pass         the outputs agree
  fail         they differ by more than is allowed, or than rounding explains
  undecided    rounding explains the difference, which is too large to be called right, or nothing says how large it \
may be (INT8, FP8): that is no agreement. Labels (--metric top1), --metric agree or a tolerance decide it.

exit status: 0 agree, 1 disagree or undecided, 2 wrong usage or unreadable input, 3 a runner failed, 130 interrupted
"""


GROUPS = {
    "runners": "runners (at least two, or one and two models; order and repeats are kept)",
    "data": "data",
    "tolerances": "tolerances (default: the error that rounding makes in the network, measured)",
    "accuracy": "accuracy (decides where no tolerance can: INT8, FP8)",
    "layers": "layer by layer",
    "plan": "what fixes it: precision plans",
    "report": "report",
}
"""The headings of the help, by the names that options are declared under; runners' options come before the last."""


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        models: One file or two.
        runners: In the order they were named.
        rules: What was decided about the comparison.
        random: Fields of `RandomOptions` that were given.
        prompts: Fields of `PromptOptions` that were given.
        data, calibration_data: Where inputs come from; None: random ones, and those that are compared.
        first: How many of the data to take; None: all of them.
        reports: Reports to write.
        baseline: An earlier report, to tell what changed.
        save_worst: Folder for the worst samples.
        reads: The files that are read.
        written: What is written besides reports: the flag, and the path.
        quiet, verbose, debug: What is printed.
    """

    models: tuple[str, ...]
    runners: tuple[Runner, ...]
    rules: Rules
    random: Mapping[str, Any]
    prompts: Mapping[str, Any]
    data: str | None
    first: int | None
    calibration_data: str | None
    reports: Reports
    baseline: str | None
    save_worst: str | None
    reads: Reads = field(compare=False)
    written: Reports = field(compare=False)
    quiet: bool
    verbose: bool
    debug: bool


class Parser(argparse.ArgumentParser):
    """A parser that raises what is wrong instead of ending the program. Options are written out; -h is one of them."""

    def __init__(self, prog: str, description: str, epilog: str, *, usage: str | None = None) -> None:
        super().__init__(prog, usage, description, epilog, formatter_class=Help, allow_abbrev=False, add_help=False)

    @property
    def every(self) -> Sequence[argparse.Action]:
        """All options and arguments, in the order of the help."""
        return self._actions

    def to_front(self, last: argparse.Action) -> None:
        """Puts the argument that was added last before all others."""
        self._actions.remove(last)
        self._actions.insert(0, last)

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser.error`.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{message.removeprefix('argument ')}.")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """See `argparse.ArgumentParser.exit`.

        Raises:
            Shown: Always.
        """
        raise Shown(status)


def in_columns(rows: Mapping[str, str]) -> list[str]:
    """Words and what they mean, side by side, folded to the width of the terminal."""
    width, first = _width(), 3 + max(map(len, rows))
    folded = {word: textwrap.wrap(text, max(width - first - 2, 24)) for word, text in rows.items()}
    return [
        f"  {word if not i else '':<{first}}{line}" for word, lines in folded.items() for i, line in enumerate(lines)
    ]


def _folded(line: str, width: int) -> str:
    """A line of a prepared text, folded where it is too long: behind what it begins with, or its second column."""
    if len(line) <= width:
        return line
    left = len(line) - len(line.lstrip())
    columns = re.match(r"( *\S+(?: \S+)*) {2,}(?=\S)", line)
    if columns is None:
        return _wrapped(line.lstrip(), width, " " * left, " " * (left + 4) if left else "")
    if columns.end() < 30:
        return _wrapped(line[columns.end() :], width, line[: columns.end()], " " * columns.end())
    first = _wrapped(columns[1].lstrip(), width, " " * left, " " * (left + 4))
    return f"{first}\n{_wrapped(line[columns.end() :], width, ' ' * (left + 8), ' ' * (left + 8))}"


def _wrapped(text: str, width: int, first: str, others: str) -> str:
    """A text whose words stay whole, behind what its first line and the others begin with."""
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _paragraphs(text: str) -> list[str]:
    """The lines of a prepared text; those of a paragraph, which begin at the margin, are one."""
    found: list[str] = []
    for line in text.splitlines():
        goes_on = found and found[-1].strip() and not found[-1].startswith(" ") and not found[-1].endswith(":")
        if goes_on and line.strip() and not line.startswith(" "):
            found[-1] += f" {line}"
        else:
            found.append(line)
    return found


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 110) - 2


class Help(argparse.HelpFormatter):
    """Options that take their value with ``=`` alone are shown so."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=_width())

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return getattr(action, "shown", None) or super()._format_action_invocation(action)

    def start_section(self, heading: str | None) -> None:
        """See `argparse.HelpFormatter.start_section`."""
        super().start_section(None if heading is None else _wrapped(heading, self._width, "", "  "))

    def _format_usage(self, usage: str | None, actions: Any, groups: Any, prefix: str | None) -> str:
        if usage is None:
            return super()._format_usage(usage, actions, groups, prefix)
        return f"{_wrapped(usage, self._width, 'usage: ', ' ' * 9)}\n\n"

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrapped(" ".join(text.split()), width, "", "").splitlines()

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        folded = "\n".join(_folded(line, width) for line in _paragraphs(text))
        return textwrap.indent(folded, indent)


def parse(argv: Sequence[str]) -> Request:
    """Reads a command line.

    Raises:
        UsageError: It cannot be understood.
        Shown: ``--help`` or ``--version`` was asked for, and has been printed.
    """
    words = _without_dashes(argv)
    with standard_output_kept():
        classes = {**discover(), **named_classes(words)}
    parser = _parser(classes)
    named, words = take_runners(words, classes)
    if not named:
        _refuse_other_command(words, any_word=False)
    space, unknown = parser.parse_known_intermixed_args(_attach(words, parser))
    for word in unknown:
        raise UsageError(_unknown(word, parser))
    _check_not_empty(space, parser)
    check_screen(space.quiet, space.verbose)
    models = tuple(space.models)
    if not named:
        _refuse_other_command(models)
    runners = configure(named, classes, vars(space))
    if not models and not any(runner.model for runner in runners):
        raise UsageError("no model was named. Usage: " + USAGE)
    if len(models) > 2:
        raise UsageError(f"at most two models are compared; got {len(models)}: {', '.join(models)}.")
    hint_at_detached_value(models, classes)
    values = vars(space)
    reports = tuple(values.get("reports", ()))
    read, written = _checked_files(values, runners, reports)
    rules = Rules(**{"isolate": "auto", **given(values, Rules)})
    if rules.shard is not None:
        refuse_what_needs_all("--shard", (("--save-worst", space.save_worst), ("--baseline", space.baseline)))
    searching = rules.fix is not None or rules.apply_remedy is not None
    check_layers(reports, rules.layers is not None or searching, "add --layers")
    if values.get("isolate") == "off" and rules.timeout is not None:
        raise UsageError("--timeout needs processes of their own, which --isolate off forbids: leave out one of them.")
    random, first, prompts = _of_data(values, rules)
    return Request(
        models=models,
        runners=runners,
        rules=rules,
        random=random,
        prompts=prompts,
        data=space.data,
        first=first,
        calibration_data=space.calibration_data,
        reports=reports,
        baseline=space.baseline,
        save_worst=space.save_worst,
        reads=read,
        written=written,
        quiet=space.quiet,
        verbose=space.verbose,
        debug=space.debug,
    )


def _check_not_empty(space: argparse.Namespace, parser: Parser) -> None:
    """Refuses options that were given nothing, as by a variable that is not set.

    Raises:
        UsageError: One was.
    """
    for action in parser.every:
        given = action.option_strings and action.dest not in WRITTEN  # those are told when they are looked at
        if given and getattr(space, action.dest, None) == "":
            raise UsageError(f"{action.option_strings[-1]} '': it was given nothing.")


def _without_dashes(argv: Sequence[str]) -> list[str]:
    """The words without the ``--`` behind which all are files: one that begins with a dash is so by its folder."""
    words = list(argv)
    if "--" not in words:
        return words
    at = words.index("--")
    return words[:at] + [os.path.join(os.curdir, word) if word.startswith("-") else word for word in words[at + 1 :]]


def _of_data(values: Mapping[str, Any], rules: Rules) -> tuple[dict[str, Any], int | None, dict[str, Any]]:
    """Options of random data, how many samples to take of stored ones, and options of prompts.

    Raises:
        UsageError: One is for other data than there are.
    """
    data = values["data"]
    random = given(values, RandomOptions)
    first = random.pop("samples", None) if data is not None else None
    for f in options(RandomOptions):
        if data is not None and f.name in random:
            raise UsageError(f"{f.metadata['flag']} is for random data, but --data {data} was given.")
    if rules.save_inputs is not None:
        drawn = random.get("samples") or max(DEFAULT_SAMPLES, len(rules.shapes))
        check_form(rules.save_inputs, drawn if data is None else None)
    prompts = given(values, PromptOptions)
    for name in prompts if data is None else ():
        raise UsageError(f"--{name} is for prompts: name their file with --data (.txt or .jsonl).")
    return random, first, prompts


def full_parser() -> Parser:
    """The options of ``compare``, of those runners that come with it."""
    return _parser(discover(third_parties=False))


def _checked_files(values: Mapping[str, Any], runners: Sequence[Runner], reports: Reports) -> tuple[Reads, Reports]:
    """What is read, and what is written besides reports.

    Raises:
        UsageError: Something would be written over what is read.
    """
    reads, caches, written = reads_of(values, runners), caches_of(runners), _written(values, runners)
    all_reads = reads + Reads.of((), [path for _, path in caches])
    check_reports(reports, all_reads)
    check_outputs(written, reports, all_reads)
    check_outputs(caches, reports, reads)
    return all_reads, tuple(written)


def _written(values: Mapping[str, Any], runners: Sequence[Runner]) -> list[tuple[str, str]]:
    """Files that are written besides reports: the flag, and the path. Some have another one beside them."""
    found = [(f"--{name.replace('_', '-')}", values.get(name)) for name in WRITTEN if name != "resume"]
    for runner in runners:
        known = options_of(type(runner))
        found += [(known[name].flag or name, getattr(runner, name)) for name in runner.capabilities.output_files]
    beside = {"--fixed-model": ".data", "--apply-remedy": ".data", "--save-engine": ".json"}
    found += [(flag, path + beside[flag]) for flag, path in found if flag in beside and path is not None]
    return [(flag, path) for flag, path in found if path is not None]


def runners_named(words: Sequence[str]) -> tuple[Runner, ...]:
    """The runners that some words of a command line name, for whoever has nothing else of one.

    Raises:
        UsageError: They name something else, or a runner does not take its options.
    """
    classes = {**discover(), **named_classes(words)}
    named, rest = take_runners(words, classes)
    if rest:
        raise UsageError(f"{rest[0]} names no runner; there are: {', '.join(sorted(classes))}.")
    return configure(named, classes, {})


def _parser(classes: Mapping[str, type[Runner]]) -> Parser:
    parser = Parser("compare", DESCRIPTION, EPILOG, usage=USAGE)
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help=".onnx, frozen .pb, SavedModel, .keras, .h5, .tflite, or a TensorRT .engine",
    )
    declared = [*options(PromptOptions), *options(RandomOptions), *options(Rules)]
    for name, title in GROUPS.items():
        if name == "report":
            for cls in classes.values():
                add_options(parser, cls, classes)
        group = parser.add_argument_group(title)
        if name == "runners":
            _add_runners(group, classes)
        elif name == "data":
            _add_data(group)
        for f in declared:
            if f.metadata["group"] == name:
                add(group, f)
    _add_report(group)
    many = parser.add_argument_group("many comparisons")
    many.add_argument(
        "--suite", metavar="FILE", help="run the checks of a TOML file instead; alone: compare --suite FILE"
    )
    return parser


def _add_runners(group: Any, classes: Mapping[str, type[Runner]]) -> None:
    for flag, cls in classes.items():
        group.add_argument(f"--{flag}", help=first_line(cls), default=None).shown = shown(flag, cls)
    text = "a runner of your own, a class or a function; may be repeated"
    group.add_argument("--runner", metavar="MODULE:NAME", help=text)


def _add_data(group: Any) -> None:
    kinds = ".npz, .npy, a folder of samples, .json, prompts as .txt or .jsonl, or .py with load_data()"
    group.add_argument("--data", action=Once, metavar="PATH", help=kinds)
    group.add_argument(
        "--calibration-data",
        action=Once,
        metavar="PATH",
        help="calibrate INT8 and FP8 on these data instead of those compared",
    )


def _add_report(group: Any) -> None:
    add_formats(group)
    group.add_argument(
        "--save-worst", action=Once, metavar="DIR", help="save the worst sample of each candidate as .npz, for --data"
    )
    add_screen(group)


def _attach(words: Sequence[str], parser: Parser) -> list[str]:
    """Attaches values that argparse would take for options (``--float-range -1,1``), and what a flag alone means."""
    result: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            return [*result, word, *queue]
        action = parser._option_string_actions.get(word)
        if getattr(action, "alone", None) is not None:
            detached = bool(queue) and queue[0].casefold() in action.words and not os.path.exists(queue[0])  # type: ignore[union-attr]
            word = f"{word}={queue.pop(0) if detached else action.alone}"  # type: ignore[union-attr]
        elif action is not None and action.nargs != 0 and queue and re.match(r"-[\d.]", queue[0]):
            word = f"{word}={queue.pop(0)}"
        result.append(word)
    return result


def _near(flag: str, known: Iterable[str]) -> list[str]:
    """The option whose letters are nearly those of a flag, if any: the dashes, which all have, are not compared."""
    bare = {name.lstrip("-"): name for name in known if name.startswith("--")}
    return [bare[name] for name in difflib.get_close_matches(flag.lstrip("-"), bare, n=1, cutoff=0.75)]


def _refuse_other_command(words: Sequence[str], any_word: bool = True) -> None:
    """Refuses a line without runners whose first word is neither a file nor a command.

    Args:
        words: The line.
        any_word: Whether to refuse every such word, and not those alone that are nearly a command.

    Raises:
        UsageError: It is.
    """
    word = next(iter(words), "-")
    if word.startswith("-") or os.path.exists(word):
        return
    near = difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.75)
    if near:
        raise UsageError(f"{word}: neither a file nor a command; did you mean {near[0]}?")
    if not any_word:
        return
    if os.path.splitext(word)[1]:
        raise UsageError(f"{word}: no such file.")
    raise UsageError(f"{word}: neither a file nor a command; the commands are: {', '.join(COMMANDS)}.")


def _unknown(word: str, parser: Parser) -> str:
    known = parser._option_string_actions
    flag = word.partition("=")[0]
    if flag in known:
        return f"{flag} takes no value."
    instead = meant(flag)
    if instead is not None:
        return f"unknown option {flag}; here that is {instead}."
    near = _near(flag, known)
    return f"unknown option {flag}" + (f"; did you mean {near[0]}?" if near else ". See compare --help.")
