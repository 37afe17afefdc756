"""What ``--resume`` costs, and what a second run then costs: writes a section of docs/resume.md.

Each command is a process of its own, imports included: without ``--resume``, with it in an empty folder, and once more
in the same folder. The three take turns, and the fastest turn of each is told. With ``--kills N``, commands are killed
N times instead, and what they then end in is told (see `kills`).
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.kit.pages import DOCS, machine, table, write_section
from benchmarks.kit.resnet50 import resnet50
from benchmarks.resume import kills

COMMANDS = {
    "ResNet-50, batch 8, 8 samples": "resnet50.onnx --onnxrt --emulate fp16 --samples 8",
    "ResNet-50, batch 8, 2 samples, every layer": "resnet50.onnx --onnxrt --emulate fp16 --samples 2 --layers=all",
    "1,000 products and Relus, 4 samples, every layer": "chain.onnx --onnxrt --emulate fp16 --samples 4 --layers=all",
    "digits, `--fix`": "digits.onnx --onnxrt --emulate fp16 --data heldout.npz --rtol 0 --atol 1e-3 --fix plan.json",
}


def chain(path: Path, nodes: int = 1000, width: int = 64) -> None:
    """Writes a deep chain of products with random weights, and Relus."""
    rng, made, weights, last = np.random.default_rng(0), [], [], "x"
    for number in range(nodes // 2):
        weight = (rng.standard_normal((width, width)) * np.sqrt(2 / width)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        made.append(helper.make_node("MatMul", [last, f"w{number}"], [f"m{number}"], f"matmul{number}"))
        made.append(helper.make_node("Relu", [f"m{number}"], [f"r{number}"], f"relu{number}"))
        last = f"r{number}"
    ends = [helper.make_tensor_value_info(name, 1, [8, width]) for name in ("x", last)]
    graph = helper.make_graph(made, "chain", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def seconds(folder: Path, words: list[str]) -> float:
    """Time of one command."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "layerdiff", "-q", *words], cwd=folder, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    return time.perf_counter() - start


def measured(folder: Path, words: list[str], turns: int) -> list[str]:
    """The cells of a row."""
    journal, times = folder / "journal", []
    for _ in range(turns):
        kept = [*words, "--resume", "journal"]
        times.append((seconds(folder, words), seconds(folder, kept), seconds(folder, kept)))
        size = sum(file.stat().st_size for file in journal.rglob("*") if file.is_file())
        shutil.rmtree(journal)
    plain, first, second = map(min, zip(*times, strict=True))
    return [f"{plain:.1f}", f"{first:.1f}", f"{first / plain:.2f}", f"{second:.1f}", f"{size / 1e6:.1f}"]


def killed(count: int, dry: bool) -> None:
    """Kills commands so many times in all, and writes the section on it."""
    head = ["killed", "times", "same JSON", "seconds undisturbed", "seconds to go on, median"]
    draw, rows = random.Random(0), []
    with tempfile.TemporaryDirectory() as name:
        kills.prepare(Path(name))
        for number, (what, words) in enumerate(kills.COMMANDS.items()):
            share = (count + number) // len(kills.COMMANDS)
            rows.append([what, *kills.killed(Path(name), words.split(), share, draw).cells])
            print(rows[-1], file=sys.stderr, flush=True)
    text = f"On {machine('onnx', 'onnxruntime')}, beside other work.\n\n"
    write_section(DOCS / "resume.md", text + table(head, rows, numbers=True), dry=dry, section="killed")


def main() -> None:
    """Measures, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="how often each command is run (3)")
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kill commands N times, and measure no times")
    given = parser.parse_args()
    if given.kills:
        killed(given.kills, given.dry)
        return
    head = ["", "seconds without", "with, first run", "times", "second run", "MB kept"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        resnet50(folder / "resnet50.onnx")
        chain(folder / "chain.onnx")
        for file in ("digits.onnx", "heldout.npz"):
            shutil.copy(DOCS.parent / "examples" / "digits" / file, folder)
        rows = [[what, *measured(folder, words.split(), given.turns)] for what, words in COMMANDS.items()]
    text = f"On {machine('onnx', 'onnxruntime')}; the fastest of {given.turns} turns, imports included.\n\n"
    write_section(DOCS / "resume.md", text + table(head, rows, numbers=True), dry=given.dry)


if __name__ == "__main__":
    main()
