"""One trained network on TensorFlow, ONNX Runtime and TensorRT: do they agree?

::

    python examples/seed_talk.py                       # the digits network of this folder
    python examples/seed_talk.py path/to/frozen.pb     # yours: a frozen graph, a SavedModel or a Keras file

TensorRT takes part where it is installed and finds a GPU. Exit status 0 if all agree, 1 if not.
"""

from __future__ import annotations

import sys
from pathlib import Path

from layerdiff import Comparator, DataLoader, OnnxrtRunner, RunnerError, TfRunner, TrtRunner
from layerdiff.runners.trt.library import installed, require_gpu

DIGITS = Path(__file__).resolve().parent / "digits" / "digits.pb"


def tensorrt_is_here() -> bool:
    try:
        require_gpu(installed())
    except RunnerError as reason:
        print(f"without TensorRT: {reason}")
        return False
    return True


def main(frozen: str) -> int:
    runners = [TfRunner(frozen), OnnxrtRunner(frozen)]
    if tensorrt_is_here():
        runners.append(TrtRunner(frozen, fp16=True))
    run_results = Comparator.run(runners, data_loader=DataLoader(int_range=(0, 2), float_range=(0.0, 2.0)))
    report = Comparator.compare_accuracy(run_results)
    for output in report.outputs:
        error = output.metrics["rel_l2"] if output.metrics else None
        print(f"{output.candidate:12} {output.tensor:24} {output.verdict:10} relative L2 error {error}")
    for runner in report.runners:
        if runner.error:
            print(f"{runner.name:12} {runner.error}")
    return 0 if bool(report) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1] if len(sys.argv) > 1 else str(DIGITS)))
