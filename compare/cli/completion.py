"""``layerdiff completion bash``: what a shell needs to complete commands, options and files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from ...graph.errors import UsageError
from .arguments import Parser, full_parser
from .commands import COMMANDS, command_parser
from .delivery import answer_shown

SHELLS = ("bash", "zsh", "tcsh")
DESCRIPTION = "Prints the completion of commands and options for a shell (pip install 'layerdiff[completion]')."
EPILOG = """\
examples:
  eval "$(layerdiff completion bash)"                                       in ~/.bashrc
  layerdiff completion zsh > "${fpath[1]}/_layerdiff"
  layerdiff completion bash --program compare                               for the other name
"""
FILES = ("PATH", "FILE", "MODEL", "PLAN", "ONNX", "JSON", "REPORT")

ZSH = """\
# the first word is a command or a file, and the options are those of the command
{name}_any() {{
  local own="{name}_${{words[2]}}_options"
  if (( CURRENT > 2 && ${{(P)+own}} )); then
    shift words
    (( CURRENT-- ))
    _arguments -C -s "${{(@P)own}}"
  else
    (( CURRENT == 2 )) && {name}_commands
    _arguments -C -s "${{{name}_options[@]}}"
  fi
}}
"""
"""In zsh, shtab completes either commands or files as the first word, and here it may be both."""


def run(words: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    Raises:
        UsageError: There is no such shell, or what writes completions is not installed.
    """
    given = parser().parse_args(list(words))
    try:
        import shtab
    except ImportError:
        raise UsageError("shtab writes completions. Install it with: pip install 'layerdiff[completion]'") from None
    name = f"_shtab_{given.program}"
    # shtab completes a command as the first word of a bash line; here it may be a file, too
    first = {"bash": f"{name}_pos_0_COMPGEN=_shtab_compgen_files"}.get(given.shell, "")
    made = _all_commands(given.program, {**dict.fromkeys(FILES, shtab.FILE), "DIR": shtab.DIRECTORY})
    text: str = shtab.complete(made, shell=given.shell, preamble=first)
    if given.shell == "zsh":
        text = text.replace(f"compdef {name} -N", f"compdef {name}_any -N").replace(f'{name} "$@"', f'{name}_any "$@"')
        text = text.replace("typeset -A opt_args", f"{ZSH.format(name=name)}\ntypeset -A opt_args")
    with answer_shown():
        print(text)
    return 0


def _all_commands(program: str, paths: Mapping[str, Any]) -> Parser:
    """The options of ``compare``, and the other commands as the first word.

    Args:
        program: The program's name.
        paths: How a shell completes values of options and arguments that are paths, by their names in the help.
    """
    made = full_parser()
    made.prog = program
    others = made.add_subparsers(metavar="COMMAND", parser_class=argparse.ArgumentParser)
    made.to_front(others)
    own = {name: command_parser(name) for name in COMMANDS}
    for name, one in own.items():
        others.add_parser(name, parents=[one], help=one.description, description=one.description, add_help=False)
    for action in (action for one in (made, *own.values()) for action in one.every):
        if action.metavar in paths:
            action.complete = paths[action.metavar]
    return made


def parser() -> Parser:
    """The command's options."""
    made = Parser("layerdiff completion", DESCRIPTION, EPILOG)
    made.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    made.add_argument("--program", default="layerdiff", metavar="NAME", help="the program's name (layerdiff)")
    made.add_argument("-h", "--help", action="help", help="show this text")
    return made
