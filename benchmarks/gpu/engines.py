"""Engines as models and several profiles, on the digits network: runs the command and prints what it said.

    python -m benchmarks.gpu.engines OUT [OPTION...]

OUT takes the engines, and a timing cache that all commands share. Options go to every command (``--tactic-sources
...``). Prints each command with its exit status, the expected one, its seconds and its output. After two minutes no
further command is begun. Exits with 1 if a status was not the expected one or a command was not begun.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
LIMIT = 120.0
"""Seconds after which no further command is begun."""


def commands(out: Path) -> list[tuple[int, list[str]]]:
    """What is run, with the exit status that is expected."""
    model, data = str(out / "digits.onnx"), ["--data", str(DIGITS / "heldout.npz")]
    fp16, int8, many, damaged, changed = (
        str(out / f"{name}.engine") for name in ("fp16", "int8", "many", "damaged", "changed")
    )
    accuracy = ["--labels", str(DIGITS / "labels.npy"), "--metric", "top1"]
    shapes = ["image:1x8x8x1", "image:2x8x8x1..8x8x8x1..16x8x8x1", "image:17x8x8x1..64x8x8x1..360x8x8x1"]
    profiles = [word for shape in shapes for word in ("--shape", shape)]
    quick = ["--trt-optimization-level", "1"]
    timings = [*quick, "--timing-cache", str(out / "timings")]
    return [
        (0, [model, "--trt=fp16", "--onnxrt", *data, "--save-engine", fp16, *timings]),
        (0, [fp16, "--trt", "--onnxrt", *data, "--layers", "-v", *timings]),
        (0, [fp16, "--trt", "--trt", *data]),
        (0, [fp16, "--trt", "--onnxrt", *data, "--latency", "100"]),
        (
            0,
            [
                *(model, "--trt=fp16", "--onnxrt", "--data", str(out / "batches"), *profiles),
                *("--layers", "-v", "--save-engine", many, *timings),
            ],
        ),
        (0, [many, "--trt", "--onnxrt", *data]),
        (3, [many, "--trt", "--onnxrt", "--shape", "image:361x8x8x1"]),
        (3, [damaged, model, "--trt", "--onnxrt", *data]),
        (2, [fp16, "--trt=int8", "--onnxrt", *data]),
        (0, [model, "--trt=int8", "--onnxrt", *data, *accuracy, "--save-engine", int8, *timings]),
        (1, [int8, "--trt", "--onnxrt", *data, "--layers", *timings]),  # undecided: INT8 asks for a tolerance
        (0, [fp16, int8, "--trt", *data, "--rtol", "0.1", "--atol", "0.05"]),
        (0, [model, "--trt=fp16", "--trt=fp16", "--timing-cache", "off", *data, *quick]),
        (2, [changed, "--trt", "--onnxrt", *data]),  # last: it changes the model
    ]


def prepare(out: Path, words: list[str]) -> None:
    """Makes the files that a command needs."""
    needed = {Path(word).name for word in words if word.startswith(str(out))}
    if "digits.onnx" in needed and not (out / "digits.onnx").is_file():
        shutil.copy(DIGITS / "digits.onnx", out / "digits.onnx")
    if "batches" in needed:
        (out / "batches").mkdir(exist_ok=True)
        (images,) = np.load(DIGITS / "heldout.npz").values()
        for size in (1, 8, 64):
            np.savez(out / "batches" / f"{size}.npz", image=images[:size])
    if "damaged.engine" in needed:
        (out / "damaged.engine").write_bytes((out / "fp16.engine").read_bytes()[:5000])
    if "changed.engine" in needed:
        for name in ("fp16.engine", "fp16.engine.json"):
            shutil.copy(out / name, out / name.replace("fp16", "changed"))
        with (out / "digits.onnx").open("ab") as file:
            file.write(b"\x3a\x00")  # an empty doc string: the same network in another file


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    arguments, options = parser.parse_known_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    wrong, left, begin = 0, 0, time.perf_counter()
    for expected, words in commands(out):
        start = time.perf_counter()
        if start - begin > LIMIT:
            left += 1
            continue
        prepare(out, words)
        command = [sys.executable, "-m", "layerdiff", *words, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wrong += done.returncode != expected
        seconds = time.perf_counter() - start
        mark = "" if done.returncode == expected else f" INSTEAD OF {expected}"
        print(f"$ compare {' '.join(words)}\n# exit status {done.returncode}{mark}, {seconds:.1f} s")
        print(done.stdout + ("" if done.returncode in (0, 1) else done.stderr[-1500:]), flush=True)
    print(f"{wrong} of {len(commands(out))} commands had another exit status than expected, {left} were not begun")
    return int(wrong + left > 0)


if __name__ == "__main__":
    sys.exit(main())
