"""Engines as models and several profiles, on the digits network: runs the command and prints what it said.

    python benchmarks/gpu/engines.py OUT [OPTION...]

OUT takes the engines. Options go to every command (``--tactic-sources ...``). Prints each command with its exit status,
the expected one, its seconds and its output; exits with 1 if a status was not the expected one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


def commands(out: Path) -> list[tuple[int, list[str]]]:
    """What is run, with the exit status that is expected."""
    model, data = out / "digits.onnx", ["--data", str(DIGITS / "heldout.npz")]
    fp16, int8, many = (str(out / f"{name}.engine") for name in ("fp16", "int8", "many"))
    accuracy = ["--labels", str(DIGITS / "labels.npy"), "--metric", "top1"]
    shapes = ["image:1x8x8x1", "image:2x8x8x1..8x8x8x1..16x8x8x1", "image:17x8x8x1..64x8x8x1..360x8x8x1"]
    profiles = [word for shape in shapes for word in ("--shape", shape)]
    damaged = str(out / "damaged.engine")
    return [
        (0, [str(model), "--trt=fp16", "--onnxrt", *data, "--save-engine", fp16]),
        (0, [fp16, "--trt", "--onnxrt", *data]),
        (0, [fp16, "--trt", "--onnxrt", *data, "--layers", "-v"]),
        (0, [fp16, "--trt", "--trt", *data]),
        (0, [fp16, "--trt", "--onnxrt", *data, "--latency", "100"]),
        (0, [str(model), "--trt=int8", "--onnxrt", *data, *accuracy, "--save-engine", int8]),
        (0, [int8, "--trt", "--onnxrt", *data, *accuracy]),
        (1, [int8, "--trt", "--onnxrt", *data, "--layers"]),
        (0, [fp16, int8, "--trt", *data, "--rtol", "0.1", "--atol", "0.05"]),
        (2, [fp16, "--trt=int8", "--onnxrt", *data]),
        (0, [str(model), "--trt=fp16", "--onnxrt", *profiles, "--save-engine", many]),
        (0, [many, "--trt", "--onnxrt", *data]),
        (3, [many, "--trt", "--onnxrt", "--shape", "image:361x8x8x1"]),
        (0, [str(model), "--trt=fp16", "--onnxrt", *profiles, "--layers"]),
        (0, [str(model), "--trt=fp16", "--trt=fp16", "--timing-cache", "off", *data]),
        (3, [damaged, str(model), "--trt", "--onnxrt", *data]),
        (2, [str(out / "changed.engine"), "--trt", "--onnxrt", *data]),
    ]


def prepare(out: Path, done: int) -> None:
    """Makes the files that later commands need."""
    if done == 0:
        shutil.copy(DIGITS / "digits.onnx", out / "digits.onnx")
    if done == 15:
        (out / "damaged.engine").write_bytes((out / "fp16.engine").read_bytes()[:5000])
        for name in ("fp16.engine", "fp16.engine.json"):
            shutil.copy(out / name, out / name.replace("fp16", "changed"))
    if done == 16:
        with (out / "digits.onnx").open("ab") as file:
            file.write(b"\x3a\x00")  # an empty doc string: the same network in another file


def main() -> int:
    out, options = Path(sys.argv[1]), sys.argv[2:]
    out.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for number, (expected, words) in enumerate(commands(out)):
        prepare(out, number)
        start = time.perf_counter()
        command = [sys.executable, "-m", "layerdiff", *words, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wrong += done.returncode != expected
        seconds = time.perf_counter() - start
        mark = "" if done.returncode == expected else f" INSTEAD OF {expected}"
        print(f"$ compare {' '.join(words)}\n# exit status {done.returncode}{mark}, {seconds:.1f} s")
        print(done.stdout + ("" if done.returncode in (0, 1) else done.stderr[-1500:]), flush=True)
    print(f"{wrong} of {len(commands(out))} commands had another exit status than expected")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
