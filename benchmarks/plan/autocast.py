"""The planted faults through ModelOpt's AutoCast: ``python -m benchmarks.plan.autocast PYTHON``.

``PYTHON`` is an interpreter with ``nvidia-modelopt[onnx]``, which brings PyTorch and stays in its own environment.
AutoCast decides by rules and by the values of one sample; nothing is run afterwards. Its files are judged here as
their types say.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from layerdiff.graph.errors import LayerdiffError

from benchmarks.kit.pages import DOCS, table, write_section, written_by

from ..faults.case import Case
from .beside import by_types
from .faults import SMALL, cases


def converted(case: Case, python: str) -> tuple[str, float | None, float]:
    """How many nodes AutoCast kept of how many, the error of its file on a device, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        model, data, made = (str(Path(folder) / name) for name in ("model.onnx", "data.npz", "mixed.onnx"))
        onnx.save(case.reference, model)
        feeds = case.feeds()
        np.savez(data, **feeds[0])
        words = [python, "-m", "modelopt.onnx.autocast", "--onnx_path", model, "--output_path", made]
        words += ["--low_precision_type", "fp16", "--keep_io_types", "--calibration_data", data]
        start = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if not Path(made).exists():
            return "gave up", None, seconds
        counts = re.search(r"Converted (\d+)/(\d+) nodes", done.stdout + done.stderr)
        kept = "-" if counts is None else f"{int(counts[2]) - int(counts[1])} of {counts[2]}"
        try:
            return kept, by_types(case.reference, onnx.load(made), feeds), seconds
        except LayerdiffError:
            return "a file that does not run", None, seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan.autocast", description=__doc__)
    parser.add_argument("python", metavar="PYTHON")
    parser.add_argument("--dry", action="store_true", help="print the section instead of writing it")
    arguments = parser.parse_args()
    version = [arguments.python, "-c", "import modelopt; print(modelopt.__version__)"]
    found = subprocess.run(version, capture_output=True, text=True, check=True).stdout.split()[-1]
    rows, good = [], 0
    for case in cases():
        kept, error, seconds = converted(case, arguments.python)
        print(f"{case.id}: {kept}, {error}", file=sys.stderr)
        good += error is not None and error <= SMALL
        told = f"{error:.2%}" if error is not None else "not finite" if " of " in kept else ""
        rows.append((case.id, kept, told, f"{seconds:.0f}"))
    text = f"""{written_by("benchmarks.plan.autocast")}

### Beside ModelOpt's AutoCast

The same faults through AutoCast {found}, with the first sample as its calibration data. It never runs what it writes:
{good} of {len(rows)} files err by 1.6 % or less where their types are law.

{table(("case", "nodes kept", "error on a device", "seconds"), rows, numbers=True)}"""
    write_section(DOCS / "plan.md", text, dry=arguments.dry, section="autocast")
    return 0


if __name__ == "__main__":
    sys.exit(main())
