"""The score, and the page."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.kit.pages import machine, table, written_by

from .cases import SUBJECTS
from .expectation import CASES, Case
from .running import Result, judged

COLUMNS = ("cases", "right", "wrong", "nothing is wrong", "right of those")


def said(result: Result) -> str:
    """What was answered, in one line."""
    if result["error"]:
        return str(result["error"])
    named = [f"`{a['node']}` {a['cause']}" for a in result["answers"][:3]]
    more = len(result["answers"]) - len(named)
    culprits = (", ".join(named) or "nobody") + (f" and {more} more" if more else "")
    return f"{result['verdict']}: {culprits}"


def expected(case: Case, result: Result) -> str:
    """What a right answer is, in one line."""
    verdicts = " or ".join(sorted(case.expected.verdicts))
    if case.expected.healthy:
        return f"{verdicts}: nobody"
    places = [*case.expected.at, *result["at"]]
    shown = ", ".join(f"`{place}`" for place in places[:3]) + (" ..." if len(places) > 3 else "")
    return f"{verdicts}: {shown} {' or '.join(sorted(case.expected.causes))}"


def line(result: Result) -> str:
    """One case in one line, for the terminal."""
    mark = f"WRONG ({result['wrong']})" if result["wrong"] else "ok"
    return f"{mark} {result['subject']}/{result['id']}: {said(result)}"


def row(name: str, results: Sequence[Result]) -> list[object]:
    """One row of the table of subjects."""
    right = [r for r in results if not r["wrong"]]
    healthy = [r for r in results if CASES[r["id"]].expected.healthy]
    return [name, len(results), len(right), len(results) - len(right), len(healthy), sum(r in right for r in healthy)]


def known(results: Sequence[Result]) -> list[Result]:
    """The results of cases that there are, judged by the expectations that there are now, in the order of the page."""
    order = list(SUBJECTS)
    found = [r | {"subject": CASES[r["id"]].subject} for r in results if r["id"] in CASES]
    found.sort(key=lambda r: (order.index(r["subject"]), list(CASES).index(r["id"])))
    return [r | {"wrong": judged(CASES[r["id"]], r)} for r in found]


def summary(results: Sequence[Result]) -> str:
    """The score in one line."""
    _, count, right, wrong, *_ = row("", results)
    return f"{count} cases: {right} right, {wrong} wrong"


PAGE = """# Networks written again

{written}

A network is written again by another exporter, by an optimizer, by a quantizer, or by hand. In some of the cases
below that was done right, with other operators or in another order, and nobody is to be accused; in the others one
mistake was made. A second author, who had not read layerdiff's code, wrote the cases and what is true of each. Networks
are trained ones (`benchmarks/trained`) on real inputs, and small ones with random weights.

A case is right if the verdict is an honest one, the first culprit is at the mistake, all causes are honest ones, and
nobody else is accused. Reference and candidate are ONNX Runtime on the CPU; the candidate is another file, or the same
one in an emulated format.

The first run of these cases led to changes of layerdiff; the tables are of the code as it is now, on cases that it has
seen, and a few that were added in the same form. Where an answer was read and found to be true though the author had
expected another one, the expectation was changed: a tool that writes FP16 cuts off variances at 10,000; what overflows
or cancels inside of one kernel passes with a warning, and fails node by node; a norm with an epsilon changes the
outputs by less than their tolerance, and is named; ONNX Runtime's optimizations remove a Dropout that
trains.{unfinished}

{subjects}

{machine}; {seconds:.0f} s.

## What is wrong

{wrong}

## The cases

{cases}
"""


def markdown(results: Sequence[Result]) -> str:
    """The page of the documentation."""
    by_subject = {subject: [r for r in results if r["subject"] == subject] for subject in SUBJECTS}
    rows = [row(SUBJECTS[subject], some) for subject, some in by_subject.items() if some]
    missing = len(CASES) - len(results)
    return PAGE.format(
        written=written_by("benchmarks.rewritten"),
        unfinished=f"\n\n**This is a partial run**: {missing} of {len(CASES)} cases are missing." if missing else "",
        subjects=table(["", *COLUMNS], [*rows, row("**all**", results)]),
        machine=machine("onnxruntime", "onnx", "numpy"),
        seconds=sum(r["seconds"] for r in results),
        wrong=_wrong([r for r in results if r["wrong"]]),
        cases="\n\n".join(_cases(SUBJECTS[subject], some) for subject, some in by_subject.items() if some),
    )


def _wrong(results: Sequence[Result]) -> str:
    rows = [[f"`{r['id']}`", CASES[r["id"]].what, expected(CASES[r["id"]], r), said(r), r["wrong"]] for r in results]
    return _table(["case", "written again", "expected", "answered", "wrong"], rows) if rows else "Nothing."


def _cases(title: str, results: Sequence[Result]) -> str:
    rows = [[f"{CASES[r['id']].what} (`{r['id']}`)", said(r), "wrong" if r["wrong"] else "right"] for r in results]
    return f"### {title}\n\n{_table(['written again', 'answered', ''], rows)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return table(head, [[str(cell).replace("|", "\\|") for cell in cells] for cells in rows])
