"""What a second GPU is worth: samples over both against one, and two builds of engines at once.

    python -m benchmarks.scale.two_gpus OUT_FILE [--sides onnxrt+torch|none] [--ways alone shards ray-one ray]
        [--builder trt|emulate|none] [--seconds 60] [--limit 540]

Every measurement is a command of its own, start-up included. ``alone`` runs on the first GPU, ``shards`` as two
processes on one GPU each, whose reports ``layerdiff merge`` puts together, ``ray-one`` and ``ray`` on a cluster of one
GPU and of two. Each way is run on a few samples and on many: a second GPU can halve what a sample takes, not what it
takes to start (``--ways alone shards --seconds 240`` takes so long that starting hardly counts). The reports have to
be the same but for times, and it is said whether they are.

A search for a plan (``--fix``) is run in one process and on the cluster; without Ray, a build by itself and two at
once on a GPU each. ``--sides emulate --builder emulate`` rehearses all of it on a CPU with a small network.

Each result is one line of JSON in OUT_FILE as soon as it is there; a table is printed last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.kit.pages import table
from benchmarks.kit.resnet50 import resnet50
from benchmarks.kit.results import Results

SIDES = {
    "onnxrt+torch": ("--onnxrt=cuda", "--torch=chain:build", "--torch-device", "cuda", "--isolate", "off"),
    "onnxrt": ("--onnxrt=cuda", "--onnxrt=cuda,optimization=disable"),
    "torch": ("--torch=chain:build,device=cuda", "--torch=chain:build,device=cuda,tf32", "--isolate", "off"),
    "emulate": ("--onnxrt", "--emulate", "bf16"),
}
"""What is compared: two sides that compute on the GPU, or on a CPU."""
WAYS = ("alone", "shards", "ray-one", "ray")
FEW = 2
"""Samples of the run that tells what starting takes: one for each GPU."""
BAR = 1.8
"""The speed-up that a second GPU has to give."""
TIMES = ("date", "seconds", "command", "open_seconds", "infer_seconds")
PROGRAM = """
import numpy as np
import torch


class Chain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        weights = np.load("chain.npz")
        self.first, self.step = (torch.nn.Parameter(torch.from_numpy(weights[n])) for n in ("first", "step"))
        self.layers = {layers}

    def forward(self, x):
        h = torch.relu(x @ self.first)
        for _ in range(self.layers):
            h = torch.relu(h @ self.step)
        return h.mean(0, keepdim=True)


def build():
    return Chain().eval()
"""


@dataclass(frozen=True)
class Size:
    """How large the network of the samples is: products of (rows x width) and (width x width), FP32."""

    rows: int
    width: int
    layers: int


GPU, CPU = Size(16384, 4096, 24), Size(256, 256, 8)
"""13 TFLOP a sample on each side, and a rehearsal."""


def write_chain(folder: Path, size: Size) -> None:
    """Writes the network as ONNX and as a PyTorch module: much arithmetic, little to load, to compare and to keep."""
    rng = np.random.default_rng(0)
    first = (rng.standard_normal((64, size.width)) * np.sqrt(2 / 64)).astype(np.float32)
    step = (rng.standard_normal((size.width, size.width)) * np.sqrt(2 / size.width)).astype(np.float32)
    np.savez(folder / "chain.npz", first=first, step=step)
    (folder / "chain.py").write_text(PROGRAM.replace("{layers}", str(size.layers)))
    nodes = []
    last = "x"
    for number in range(size.layers + 1):
        weight = "step" if number else "first"
        nodes.append(helper.make_node("MatMul", [last, weight], [f"m{number}"], f"m{number}"))
        nodes.append(helper.make_node("Relu", [f"m{number}"], [f"h{number}"], f"h{number}"))
        last = f"h{number}"
    nodes.append(helper.make_node("ReduceMean", [last], ["y"], "y", axes=[0], keepdims=1))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "chain",
        [info("x", TensorProto.FLOAT, [size.rows, 64])],
        [info("y", TensorProto.FLOAT, [1, size.width])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(step, "step")],
    )
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), folder / "chain.onnx"
    )


class Commands:
    """Commands of the package in a folder, each within the time that is left.

    Args:
        folder: Where they run.
        results: What knows how much time is left.
        gpus: How many GPUs are shown to a command that may use all.
    """

    def __init__(self, folder: Path, results: Results, gpus: int = 2) -> None:
        self.folder, self.results, self.gpus = folder, results, gpus

    def start(self, *words: str, gpu: int | None = None) -> subprocess.Popen[str]:
        """Starts one on one GPU, or on all of them."""
        shown = ",".join(map(str, range(self.gpus))) if gpu is None else str(gpu)
        variables = {**os.environ, "CUDA_VISIBLE_DEVICES": shown, "PYTHONPATH": self._path()}
        command = [sys.executable, "-m", "layerdiff", *words, "-q"]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=variables, stdout=pipe, stderr=pipe, text=True)

    def finish(self, *started: subprocess.Popen[str]) -> None:
        """Waits for commands that were started at once.

        Raises:
            RuntimeError: One came to no verdict, or the time is over.
        """
        try:
            for process in started:
                left = max(1.0, self.results.limit - self.results.spent)
                _, said = process.communicate(timeout=left)
                if process.returncode not in (0, 1):
                    raise RuntimeError(f"exit status {process.returncode}: {said.strip().splitlines()[-1:]}")
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"ended after {self.results.spent:.0f} s, when the time was over") from None
        finally:
            for process in started:
                process.kill()

    def seconds(self, *commands: Sequence[str], gpus: Sequence[int | None]) -> float:
        """How long commands take that are started at once, on these GPUs."""
        start = time.perf_counter()
        self.finish(*(self.start(*words, gpu=gpu) for words, gpu in zip(commands, gpus, strict=True)))
        return time.perf_counter() - start

    def _path(self) -> str:
        before = (os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)
        return os.pathsep.join([str(self.folder), *before])


def sampled(commands: Commands, way: str, words: Sequence[str], samples: int) -> tuple[float, Path]:
    """Runs samples one way.

    Returns:
        Seconds, and the report.
    """
    report = f"{way}{samples}.json"
    line = [*words, "--samples", str(samples)]
    if way == "alone":
        taken = commands.seconds([*line, "--json", report], gpus=[0])
    elif way == "shards":
        names = [f"{way}{samples}.{index}.json" for index in (1, 2)]
        shares = [[*line, "--shard", f"{index}/2", "--json", name] for index, name in enumerate(names, 1)]
        taken = commands.seconds(*shares, gpus=[0, 1])
        taken += commands.seconds(["merge", *names, "-o", report], gpus=[0])
    else:
        taken = commands.seconds([*line, "--ray", "--json", report], gpus=[0 if way == "ray-one" else None])
    return taken, commands.folder / report


def timeless(path: Path) -> Any:
    """A report without its times."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(item) for key, item in value.items() if key not in TIMES}
        return [without(item) for item in value] if isinstance(value, list) else value

    return without(json.loads(path.read_text()))


def differing(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two reports differ, with both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = [(key, one.get(key), other.get(key)) for key in dict.fromkeys((*one, *other))]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(index, *both) for index, both in enumerate(zip(one, other, strict=True))]
    else:
        return [] if one == other else [f"{path}: {one!r:.60} and {other!r:.60}"]
    return [found for key, a, b in pairs for found in differing(a, b, f"{path}/{key}")]


def measure_samples(commands: Commands, options: argparse.Namespace) -> None:
    """Samples over two GPUs against one, each way on a few and on many."""
    results, folder = commands.results, commands.folder
    write_chain(folder, CPU if options.sides == "emulate" else GPU)
    words = ["chain.onnx", *SIDES[options.sides], "--range", "x:-1,1", "--rtol", "0.01", "--atol", "0.01"]
    many, needed, known = options.samples, 0.0, None
    if not many:
        few, more = (sampled(commands, "alone", words, samples)[0] for samples in (FEW, 5 * FEW))
        each = max((more - few) / (4 * FEW), 1e-3)
        many = max(10 * FEW, int(options.seconds / each) // 2 * 2)
        results.add({"what": "samples", "way": "sizing", "few": few, "a_sample": each, "samples": many})
        needed, known = few + many * each, few
    reports: dict[str, Any] = {}
    for way in options.ways:

        def work(way: str = way) -> None:
            few = known
            if options.few and not (way == "alone" and known is not None):
                few = sampled(commands, way, words, FEW)[0]
            taken, report = sampled(commands, way, words, many)
            found = timeless(report)
            where = differing(reports.setdefault("first", found), found)
            results.add(
                {"what": "samples", "way": way, "sides": options.sides, "samples": many, "few": few, "many": taken,
                 "verdict": found["verdict"], "same_report": not where, "differs": where}
            )  # fmt: skip
            print(*row(results.kept[-1], results.kept), where[:6], sep=" | ", flush=True)

        results.attempt(f"samples, {way}", work, needed * (0.6 if way in ("shards", "ray") else 1.0))


def measure_builds(commands: Commands, options: argparse.Namespace) -> None:
    """A search for a plan in one process and on the cluster, and builds by themselves."""
    results, folder = commands.results, commands.folder
    fp16 = ("--emulate", "fp16") if options.builder == "emulate" else ("--trt=fp16",)
    words = ["chain.onnx", "--onnxrt", *fp16, "--range", "x:-1,1", "--samples", "1"]
    if options.builder == "trt":
        resnet50(folder / "resnet50.onnx")
        words = ["resnet50.onnx", "--onnxrt", *fp16, "--shape", "x:8x3x224x224", "--samples", "1"]
        words += ["--trt-optimization-level", "2", *options.builder_options]
    else:
        write_chain(folder, CPU)

    def alone() -> None:
        results.add(
            {"what": "builds", "way": "alone", "many": commands.seconds([*words, "--json", "one.json"], gpus=[0])}
        )

    def at_once() -> None:
        two = [[*words, "--json", f"{gpu}.json"] for gpu in (0, 1)]
        results.add({"what": "builds", "way": "two at once", "many": commands.seconds(*two, gpus=[0, 1])})

    def search(way: str) -> None:
        errors = [o["metrics"]["max_abs"] for o in json.loads((folder / "one.json").read_text())["outputs"]]
        plan = folder / f"{way}.plan.json"
        line = [*words, "--rtol", "0", "--atol", str(0.6 * max(errors)), "--fix", plan.name]
        line += ["--fix-budget", str(options.budget)]
        ray = [] if way == "alone" else ["--ray"]
        taken = commands.seconds([*line, *ray], gpus=[0 if way != "ray" else None])
        found, first = json.loads(plan.read_text()), folder / "alone.plan.json"
        results.add(
            {"what": "search", "way": way, "many": found["seconds"], "command": taken, "runs": found["runs"],
             "probes": found["probes"], "status": found["status"], "same_report": timeless(plan) == timeless(first)}
        )  # fmt: skip

    results.attempt("a build by itself", alone)
    results.attempt("two builds at once", at_once)
    for way in options.ways:
        if way != "shards":
            results.attempt(f"a search, {way}", lambda way=way: search(way))  # type: ignore[misc]


def speed_up(result: Mapping[str, Any], kept: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """How much faster than the same on one GPU: the whole command, and each sample beside what starting takes."""
    base = "ray-one" if result["way"] == "ray" else "alone"
    one = next((r for r in kept if r["what"] == result["what"] and r["way"] == base), None)
    if one is None or result["way"] in ("alone", "ray-one", "sizing"):
        return None, None
    if result["what"] == "builds":  # two, where the other is one
        return 2 * one["many"] / result["many"], None
    whole = one["many"] / result["many"]
    if one.get("few") is None or result.get("few") is None:
        return whole, None
    beside = result["many"] - result["few"]
    return whole, (one["many"] - one["few"]) / beside if beside > 0 else None


HEAD = ("what", "way", "start and few, s", "all, s", f"times as fast (bar {BAR})", "beside starting", "same report")


def row(result: Mapping[str, Any], kept: Sequence[Mapping[str, Any]]) -> list[str]:
    """A result, in the columns of `HEAD`."""

    def told(value: float | None, form: str) -> str:
        return "" if value is None else f"{value:{form}}"

    same = {True: "yes", False: "no"}.get(result.get("same_report"), "")
    speed = [told(value, ".2f") for value in speed_up(result, kept)]
    return [
        result["what"],
        result["way"],
        told(result.get("few"), ".1f"),
        told(result.get("many"), ".1f"),
        *speed,
        same,
    ]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sides", choices=(*SIDES, "none"), default="onnxrt+torch")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS, help="without Ray: alone shards")
    parser.add_argument("--samples", type=int, default=0, help="0: as many as take --seconds on one GPU")
    parser.add_argument("--few", type=int, default=1, help="0: leave out the runs on a few samples")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--builder", choices=("trt", "emulate", "none"), default="none")
    parser.add_argument("--builder-options", nargs="*", default=(), help="--trt's: name=value without the dashes")
    parser.add_argument("--budget", type=int, default=8, help="most engines that a search may build")
    parser.add_argument("--limit", type=float, default=540, help="seconds after which nothing more is begun")
    options = parser.parse_args(words)
    options.builder_options = [f"--{text}" for text in options.builder_options]
    results = Results(options.out, options.limit)
    with tempfile.TemporaryDirectory() as folder:
        commands = Commands(Path(folder), results)
        if options.ways and options.sides != "none":
            results.attempt("samples", lambda: measure_samples(commands, options))
        if options.builder != "none":
            results.attempt("builds", lambda: measure_builds(commands, options))
    print(table(HEAD, [row(result, results.kept) for result in results.kept]))


if __name__ == "__main__":
    main()
