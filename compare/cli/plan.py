"""``layerdiff plan plan.json``: shows a plan, or writes it in the words of another tool."""

from __future__ import annotations

from collections.abc import Sequence

from .arguments import Parser, in_columns
from .delivery import answer_shown

DESCRIPTION = "Shows a precision plan that `compare ... --fix PLAN` made, or writes it for another tool."


def run(words: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    Raises:
        UsageError: It is wrong, or the file is no plan.
    """
    from ..plans.exports import EXPORTS
    from ..plans.file import applicable, plan_from, read

    given = parser().parse_args(words)
    content = read(given.plan, "plan")
    plan = plan_from(content, given.plan)
    if given.form is not None:
        applicable(content, given.plan, "plan")
        text = EXPORTS[given.form].render(plan, content["origin"].get("source", "MODEL"))
        with answer_shown():
            print(text, end="\n" if text else "")
        return 0
    from ..report.terminal.plan import print_plan
    from ..report.terminal.progress import console

    with answer_shown():
        print_plan(plan, console())
        print(f"\nfor other tools: layerdiff plan {given.plan} --as FORM\n{_forms()}")
    return 0


def parser() -> Parser:
    """The command's options."""
    from ..plans.exports import EXPORTS

    made = Parser("layerdiff plan", DESCRIPTION, f"forms:\n{_forms()}")
    made.add_argument("plan", metavar="PLAN", help="the file that --fix wrote")
    made.add_argument("--as", dest="form", choices=list(EXPORTS), metavar="FORM", help="one of the forms below")
    made.add_argument("-h", "--help", action="help", help="show this text")
    return made


def _forms() -> str:
    from ..plans.exports import EXPORTS

    return "\n".join(in_columns({name: export.help for name, export in EXPORTS.items()}))
