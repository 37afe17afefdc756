"""A check to run before every deployment, on its own or in CI.

::

    pytest examples/check_before_deploy.py             # in CI: one test for each question
    python examples/check_before_deploy.py             # the same as a script; the exit status says whether to deploy

Copy it, and set the names below. `CANDIDATE` is what will be deployed: ``TrtRunner(fp16=True)`` where there is a GPU,
and where there is none, as here, the emulation of its arithmetic.
"""

from __future__ import annotations

from pathlib import Path

from layerdiff import Comparator, EmulateRunner, OnnxrtRunner, open_data

HERE = Path(__file__).resolve().parent / "digits"
MODEL = HERE / "digits.onnx"
DATA = HERE / "heldout.npz"  # real inputs: random ones prove little about deployment
LABELS = HERE / "labels.npy"
REFERENCE, CANDIDATE = OnnxrtRunner(), EmulateRunner(format="fp16")


def test_the_candidate_agrees_with_the_reference() -> None:
    """Within what the candidate's arithmetic explains; no tolerance to guess."""
    report = Comparator(MODEL, [REFERENCE, CANDIDATE], data_loader=open_data(DATA)).compare()
    assert report, [f"{o.tensor}: {o.verdict} {o.metrics}" for o in report.outputs if o.verdict != "pass"]


def test_the_candidate_is_as_accurate() -> None:
    """What counts in the end: the same decisions on real data."""
    comparator = Comparator(MODEL, [REFERENCE, CANDIDATE], data_loader=open_data(DATA), labels=LABELS, metric="top1")
    reference, candidate = comparator.compare().accuracy
    print(f"accuracy: {reference.runner} {reference.value:.2%}, {candidate.runner} {candidate.value:.2%}")
    assert candidate.difference is not None
    assert candidate.difference >= -0.005, f"decides otherwise on {candidate.disagreements} of {candidate.samples}"


if __name__ == "__main__":
    test_the_candidate_agrees_with_the_reference()
    test_the_candidate_is_as_accurate()
    print("ready to deploy")
