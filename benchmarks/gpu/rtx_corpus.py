"""What TensorRT for RTX's parser and builder say of the onnx package's backend models: no GPU is needed.

    PYTHONPATH=FOLDER python -m benchmarks.gpu.rtx_corpus [--format fp16]

Each model is parsed and built in a process that may die. Of every refusal it is counted whether it names a node
or an input of the model. The table goes to standard output, refusals that name neither to standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import numpy as np
from layerdiff import RunnerError
from layerdiff.compare.runs.workers.worker import Worker
from layerdiff.graph.errors import BuildError, LayerdiffError
from layerdiff.graph.model import Model
from layerdiff.runners.contract.workload import Workload
from layerdiff.runners.trt.trt_rtx import RtxRunner

from benchmarks.corpus.models import CorpusModel, corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=("fp16", "bf16"))
    chosen = parser.parse_args().format
    worker, runner = Worker(timeout=120), RtxRunner(**({chosen: True} if chosen else {}))
    found: Counter[str] = Counter()
    for entry in corpus():
        what, why = outcome(entry, runner, worker)
        found[what] += 1
        if what not in ("built", "refused, at a node", "refused, at an input"):
            print(f"{entry.kind}/{entry.name}: {what}: {why}", file=sys.stderr)
    worker.close()
    print("| TensorRT for RTX | models |", "|---|---|", *(f"| {k} | {n:,} |" for k, n in found.most_common()), sep="\n")


def outcome(entry: CorpusModel, runner: RtxRunner, worker: Worker) -> tuple[str, str]:
    """What came of a model, and why."""
    try:
        model = entry.model()
        sample = entry.sample(model)
    except LayerdiffError as error:
        return "not loaded", str(error)
    samples = None if sample is None else lambda: iter([{k: np.asarray(v) for k, v in sample.items()}])
    try:
        worker.open(runner, model, (), Workload(samples=samples), lambda phrase: None).close()
    except BuildError as error:
        return f"refused, {place(str(error), model)}", str(error)
    except RunnerError as error:
        return "the process died" if "process" in str(error) else "failed", str(error)
    except LayerdiffError as error:
        return "refused before", str(error)
    return "built", ""


def place(text: str, model: Model) -> str:
    """What of the model a message names."""
    if any(f"node {name!r}" in text or f"nodes {name!r}" in text for name in model.index.names):
        return "at a node"
    return "at an input" if any(f"input {spec.name!r}" in text for spec in model.inputs) else "at nothing named"


if __name__ == "__main__":
    main()
