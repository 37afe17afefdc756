"""Networks written again: every case says what is true of it, and a wrong answer is counted as wrong."""

from __future__ import annotations

import pytest

from benchmarks.rewritten import table
from benchmarks.rewritten.cases import SUBJECTS
from benchmarks.rewritten.decoder import MISTAKES, Form, decoder
from benchmarks.rewritten.expectation import CASES, Expectation
from benchmarks.rewritten.running import REAL, asked, cases, effect, judged

SMALL = ("mask_of_infinity", "gate_and_up_exchanged", "sum_of_squares_in_one_kernel")
"""A right one, one with a mistake, and one in another format."""
MASK = "mask_off_by_one"


def culprit(node: str = "a", cause: str = "weights", **more: object) -> dict[str, object]:
    return {"node": node, "candidate_node": None, "inside": [], "tensors": [], "cause": cause, **more}


FAULT = Expectation(frozenset({"fail"}), ("a", "b*"), causes=frozenset({"weights"}), also=("c",))
EVERY = Expectation(frozenset({"fail"}), ("a", "b*"), every=True, causes=frozenset({"weights"}))
COARSE = Expectation(frozenset({"fail"}), ("a",), causes=frozenset({"weights"}), tolerated=frozenset({"spread"}))
HEALTHY = Expectation(frozenset({"pass"}), tolerated=frozenset({"spread"}), warns="one kernel")


@pytest.mark.parametrize(
    ("expected", "verdict", "answers", "wrong"),
    [
        (FAULT, "fail", [culprit()], ""),
        (FAULT, "fail", [culprit("other", candidate_node="b2")], ""),
        (FAULT, "fail", [culprit("other", tensors=["b2"])], ""),
        (FAULT, "fail", [culprit("other", inside=["a"])], ""),
        (FAULT, "fail", [culprit(), culprit("c")], ""),
        (FAULT, "pass", [culprit()], "verdict pass"),
        (FAULT, "fail", [], "no culprit"),
        (FAULT, "fail", [culprit("c"), culprit()], "another first culprit"),
        (FAULT, "fail", [culprit(cause="scale")], "another cause"),
        (FAULT, "fail", [culprit(), culprit("c", "scale")], "another cause"),
        (FAULT, "fail", [culprit(), culprit("d")], "a culprit too many"),
        (EVERY, "fail", [culprit(), culprit("b1")], ""),
        (EVERY, "fail", [culprit()], "no culprit at b*"),
        (EVERY, "fail", [culprit(told=["b1"])], ""),
        (EVERY, "fail", [culprit(told=["c"])], "no culprit at b*"),
        (COARSE, "fail", [culprit("d", "spread"), culprit()], ""),
        (COARSE, "fail", [culprit("d", "spread")], "no culprit"),
        (COARSE, "fail", [culprit("a", "spread")], "another cause"),
        (HEALTHY, "pass", [culprit("d", "spread")], ""),
        (HEALTHY, "pass", [culprit()], "a culprit"),
        (HEALTHY, "undecided", [], "verdict undecided"),
    ],
)
def test_an_answer_is_right_if_verdict_culprits_and_causes_are(expected, verdict, answers, wrong):
    assert expected.wrong(verdict, answers, warnings=["it is one kernel"]) == wrong


def test_a_warning_that_is_expected_has_to_be_given():
    assert HEALTHY.wrong("pass", [], warnings=["another"]) == "no warning"


def test_a_pair_may_name_places_of_its_own():
    assert FAULT.wrong("fail", [culprit("d")], places=("d",)) == ""


@pytest.mark.parametrize("name", SMALL)
def test_small_cases_are_answered_rightly(name):
    result = asked(CASES[name], 60)
    assert result["wrong"] == "", table.line(result)


def test_a_wrong_answer_is_counted_and_told():
    right = asked(CASES[MASK], 60)
    wrong = right | {"answers": [culprit("l0_masked")]}
    results = table.known([wrong])
    assert judged(CASES[MASK], wrong) == "another first culprit"
    assert table.summary(results) == "1 cases: 0 right, 1 wrong"
    assert f"| `{MASK}` |" in table.markdown(results)
    assert "Nothing." in table.markdown(table.known([right]))


def test_a_mistake_that_changes_nothing_is_no_case():
    answer = {"error": None, "verdict": "fail", "effect": REAL / 2, "answers": [culprit("l1_masked")]}
    assert judged(CASES[MASK], answer | {"at": [], "warnings": []}) == "the mistake changes nothing"


def test_no_answer_is_a_wrong_one():
    assert judged(CASES[MASK], {"error": "no answer within 60 s"}) == "no answer within 60 s"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_decoder_changes_its_file(mistake):
    form = Form(groups=2, softcap=2.0)
    assert decoder(form) != decoder(Form(groups=2, softcap=2.0, mistake=mistake))


def test_a_mistake_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="unheard of"):
        decoder(Form(mistake="unheard of"))


def test_cases_are_asked_for_by_name_and_by_subject():
    assert [case.name for case in cases([MASK])] == [MASK]
    assert {case.subject for case in cases(["indexing"])} == {"indexing"}
    assert len(cases([])) == len(CASES)


def test_every_case_tells_what_was_written_again_and_has_a_subject():
    assert not [case.name for case in CASES.values() if not case.what or case.subject not in SUBJECTS]


@pytest.mark.parametrize("case", cases(["indexing"]), ids=lambda case: case.name)
def test_a_mistake_is_real(case):
    assert effect(case.build()) > REAL
