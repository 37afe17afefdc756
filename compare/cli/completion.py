"""``layerdiff completion bash``: what a shell needs to complete options."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph.errors import UsageError
from .arguments import Parser, full_parser

SHELLS = ("bash", "zsh", "tcsh")
DESCRIPTION = "Prints the completion of options for a shell (pip install 'layerdiff[completion]')."
EPILOG = """\
examples:
  eval "$(layerdiff completion bash)"                                       in ~/.bashrc
  layerdiff completion zsh > "${fpath[1]}/_layerdiff"
  layerdiff completion bash --program compare                               for the other name
"""


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
    made = full_parser()
    made.prog = given.program
    for action in made.every:
        if action.metavar in ("PATH", "FILE", "MODEL", "PLAN", "ONNX", "JSON"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    print(shtab.complete(made, shell=given.shell))
    return 0


def parser() -> Parser:
    """The command's options."""
    made = Parser("layerdiff completion", DESCRIPTION, EPILOG)
    made.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    made.add_argument("--program", default="layerdiff", metavar="NAME", help="the program's name (layerdiff)")
    made.add_argument("-h", "--help", action="help", help="show this text")
    return made
