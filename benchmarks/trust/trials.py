"""The trials: each tries one kind of promise in a folder of its own, and gives its rows."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from onnx import helper

from benchmarks.kit.resnet50 import resnet50
from benchmarks.trust import networks, risky

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "layerdiff"]
BOTH = ["--onnxrt", "--onnxrt"]
TIMED_OUT = -1000
"""Status of a command that was ended."""


@dataclass(frozen=True)
class Row:
    """One promise.

    Attributes:
        promise, how: What never happens, and how that was tried.
        tried, held: How often.
        more: What was measured.
    """

    promise: str
    how: str
    tried: int
    held: int
    more: str = ""

    @property
    def outcome(self) -> str:
        """How often it held, in words."""
        return "held" if self.held == self.tried else f"held {self.held:,} times, failed {self.tried - self.held:,}"


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str
    seconds: float
    cpu: float
    report: dict[str, Any] | None

    @property
    def told(self) -> bool:
        """Whether it ended in a verdict or in one message, without a traceback."""
        return "Traceback" not in self.err and "unexpected error" not in self.err

    @property
    def told_or_judged(self) -> bool:
        """Whether it ended by itself, as `told` says."""
        return self.status in (0, 1, 2, 3) and self.told


def run(
    folder: Path, *words: str, limit: tuple[int, int] | None = None, at_most: float = 300, **environment: str
) -> Done:
    """Runs the command in a folder, with ``report.json`` as its report.

    Args:
        folder: Where.
        words: The command line.
        limit: A limit of the operating system, and its value.
        at_most: Seconds until the command is ended.
        environment: Variables that are set.
    """

    def limited() -> None:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(limit[0], (limit[1], limit[1]))

    (folder / "report.json").unlink(missing_ok=True)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    before, begun = _cpu(), time.perf_counter()
    with subprocess.Popen(
        [*COMMAND, *words, "--json", "report.json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited,
    ) as child:
        try:
            out, err = child.communicate(timeout=at_most)
            status = child.returncode
        except subprocess.TimeoutExpired:
            child.terminate()
            out, err = child.communicate()
            status = TIMED_OUT
    return Done(status, out, err, time.perf_counter() - begun, _cpu() - before, _report(folder))


def _cpu() -> float:
    """Seconds of processor time of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _report(folder: Path) -> dict[str, Any] | None:
    path = folder / "report.json"
    return json.loads(path.read_text()) if path.exists() else None


def runners_that_do_harm(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Each keeps the report on all others, whose verdict is right."""
    onnx.save(networks.relu(), folder / "m.onnx")
    shutil.copy(Path(risky.__file__), folder / "risky.py")
    held = 0
    for name in risky.HARM:
        words = ["m.onnx", *BOTH, "--runner", f"risky:{name}", "--samples", "2"]
        done = run(folder, *words, *(["--timeout", "10"] if name == "hangs" else []))
        found = done.report or {"verdict": "", "outputs": []}
        others = [o["verdict"] for o in found["outputs"] if o["candidate"] == "onnxrt#2"]
        good = done.status == 3 and found["verdict"] == "error" and others == ["pass"] and done.told
        held += good and "\npass" not in done.out and "\x1b" not in done.out
    how = "a runner that exits, crashes, hangs, is killed, returns something else: " + ", ".join(risky.HARM)
    yield Row("a runner costs no report but its own, and never gives status 0", how, len(risky.HARM), held)


def comparisons_of_nothing(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Agreement that proves nothing."""
    shutil.copy(Path(risky.__file__), folder / "risky.py")
    held = 0
    for name, (model, words) in networks.NOTHING.items():
        onnx.save(model, folder / "m.onnx")
        done = run(folder, "m.onnx", *words)
        held += done.status == 1 and done.report is not None and done.report["verdict"] == "undecided"
        if done.status != 1:
            print(name, done.status, done.err, file=sys.stderr)
    how = ", ".join(networks.NOTHING)
    yield Row("nothing compared is no pass", how, len(networks.NOTHING), held)


def weights_outside(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """External data that name files of others."""
    (folder / "secret").write_bytes(networks.W.tobytes())
    inner = folder / "model"
    (inner / "deep").mkdir(parents=True)
    (inner / "link").symlink_to("../secret")
    (inner / "out").symlink_to("..")
    places = [
        str(folder / "secret"),
        "../secret",
        "deep/../../secret",
        "link",
        "out/secret",
        "/etc/passwd",
        "/dev/zero",
    ]
    held = 0
    for place in places:
        (inner / "m.onnx").write_bytes(networks.external(place).SerializeToString())
        done = run(inner, "m.onnx", *BOTH)
        held += done.status == 2 and done.report is None and done.told
    how = "absolute, `..`, links to files and to folders, devices"
    yield Row("weights are read from the model's folder alone", how, len(places), held)


def _heeds_interrupts() -> None:
    """A process that was started in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupts(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """SIGINT, SIGTERM and SIGKILL at random moments, from before the imports to after the last sample."""
    onnx.save(networks.relu(), folder / "m.onnx")
    shutil.copy(Path(risky.__file__), folder / "risky.py")
    draw = random.Random(0)
    words = ["m.onnx", "--onnxrt", "--runner", "risky:slow", "--samples", "20"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "TMPDIR": str(folder / "tmp")}
    whole = [run(folder, *words) for _ in range(2)]
    assert all(done.status == 0 for done in whole), "the run that is to be interrupted does not end by itself"
    usual = min(done.seconds for done in whole)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        held, partial, through = 0, 0, 0
        for _ in range(options.interrupts):
            shutil.rmtree(folder / "tmp", ignore_errors=True)
            (folder / "tmp").mkdir()
            (folder / "report.json").write_text('{"verdict": "stale"}')
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": _heeds_interrupts}
            command = [*COMMAND, *words, "--json", "report.json"]
            with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as child:  # type: ignore[call-overload]
                time.sleep(draw.uniform(0, usual))
                child.send_signal(number)
                child.communicate()
            report = _report(folder) or {"verdict": "none"}
            verdict = report["verdict"]
            found = verdict == "pass" and report["samples"] == 20  # it may be killed behind its report
            through += child.returncode == 0
            partial += child.returncode != 0 and verdict == "error"
            right = found or (child.returncode != 0 and verdict in ("stale", "none", "error"))
            tidy = number == signal.SIGKILL or not list((folder / "tmp").iterdir())
            held += right and tidy and not _left(folder)
        promise = f"{number.name}: no process stays, no report says what was not found"
        promise += "" if number == signal.SIGKILL else ", no temporary file stays"
        more = f"{partial} with a partial report, {through} had ended; a run of {usual:.0f} s"
        yield Row(promise, "at random moments of a run", options.interrupts, held, more)


def _left(folder: Path) -> bool:
    """Whether processes of a command are still there after ten seconds."""
    until = time.monotonic() + 10
    mark = str(folder / "tmp").encode()
    while any(mark in _bytes(path) for path in Path("/proc").glob("[0-9]*/environ")):
        if time.monotonic() > until:
            return True
        time.sleep(0.1)
    return False


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def streams(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Where the command writes is not there, full, closed, or in another encoding."""
    onnx.save(networks.relu("größe"), folder / "m.onnx")
    line = f"{' '.join(COMMAND)} m.onnx {' '.join(BOTH)}"
    cases = {
        "standard error closed": (f"{line} 2>&-", 0),
        "standard error full": (f"{line} 2>/dev/full", 0),
        "reader gone": (f"set -o pipefail; {line} 2>/dev/null | true", 0),
        "ASCII": (f"PYTHONIOENCODING=ascii LC_ALL=C {line} | grep -q '^pass'", 0),
        "no terminal, no input": (f"{line} </dev/null >out 2>err && grep -q '^pass' out", 0),
        "report to a full device": (f"{line} --json /dev/full >out 2>err; test $? -eq 2 && grep -q '^pass' out", 0),
        "report into no folder": (f"{line} --json none/r.json 2>err; test $? -eq 2 && ! grep -q running err", 0),
        "report over the model": (f"{line} --json m.onnx 2>err; test $? -eq 2 && {line} >out", 0),
    }
    held = sum(
        subprocess.run(["bash", "-c", code], cwd=folder, capture_output=True).returncode == status
        for code, status in cases.values()
    )
    yield Row("the verdict is always printed, and nothing is written over", ", ".join(cases), len(cases), held)


def damaged_inputs(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """The fuzz harness of the tests."""
    log = folder / "log"
    log.touch()
    environment = {**os.environ, "LAYERDIFF_FUZZ": str(options.fuzz), "LAYERDIFF_FUZZ_LOG": str(log)}
    words = [sys.executable, "-m", "pytest", "-q", "-n", "2", "tests/fuzz"]
    subprocess.run(words, cwd=ROOT, env=environment, capture_output=True)
    found: dict[str, list[str]] = {}
    for text in log.read_text().splitlines():
        kind, _, _, _, wrong, _ = json.loads(text)
        found.setdefault(kind, []).append(wrong)
    for kind, ends in sorted(found.items()):
        how = f"damaged at random: {kind.replace('_', ' ')}"
        promise = "no traceback, no unexpected error, no crash, no hang over 60 s, no more than 6 GiB, no file outside"
        yield Row(promise, how, len(ends), sum(not wrong for wrong in ends))


KINDS = {
    "outputs": "digits/digits.onnx --onnxrt --onnxrt=optimization=disable",
    "layers in emulated FP16": "digits/digits.onnx --onnxrt --emulate fp16 --layers=all",
    "layers of two files": "digits/digits.onnx digits/broken.onnx --onnxrt --layers",
    "layers in emulated INT8": "digits/digits.onnx --onnxrt --emulate int8 --layers --rtol 0 --atol 0.01",
    "a plan": "digits/digits.onnx --onnxrt --emulate int8 --fix plan.json --rtol 0 --atol 0.05",
}
"""Commands whose reports must not depend on circumstances."""


def determinism(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """The same command, under other hash seeds and numbers of threads and of processors."""
    shutil.copytree(ROOT / "examples" / "digits", folder / "digits")
    cores = sorted(os.sched_getaffinity(0))
    for kind, line in KINDS.items():
        seen = []
        for number in range(options.repeats):
            (folder / "plan.json").unlink(missing_ok=True)
            os.sched_setaffinity(0, cores[: 1 + number % len(cores)])
            environment = {"PYTHONHASHSEED": str(number), "OMP_NUM_THREADS": str(1 + number % 4)}
            seen.append(_without_times(run(folder, *line.split(), "--samples", "2", **environment).report))
        os.sched_setaffinity(0, cores)
        held = sum(found is not None and found == seen[0] for found in seen)
        how = f"{kind}; PYTHONHASHSEED, OMP_NUM_THREADS and the number of cores vary"
        yield Row("the JSON is the same but for times", how, len(seen), held)


def _without_times(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _without_times(value) for key, value in found.items() if key not in ("date", "seconds")}
    return [_without_times(value) for value in found] if isinstance(found, list) else found


def comparator(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """The property tests of the statistics, with more examples."""
    environment = {**os.environ, "LAYERDIFF_PROPERTIES": str(options.properties)}
    words = [sys.executable, "-m", "pytest", "-q", "-n", "2", "tests/compare/statistics/test_properties.py"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed)", done.stdout)}
    tried = sum(counts.values())
    how = "all dtypes, shapes, strides, byte orders, no elements, NaN, infinities; merged in any order"
    more = f"up to {options.properties:,} examples of each property and dtype"
    yield Row(
        "statistics are those of exact arithmetic",
        f"against sums of fractions: {how}",
        tried,
        counts.get("passed", 0),
        more,
    )


def memory(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Networks that ask for more memory, or nodes, than there can be."""
    cases = {
        "2^33 elements made while it runs": (networks.filled(2**33), 3),
        "2^60 elements": (networks.filled(2**60), 3),
        "functions that double 30 times": (networks.doubling(30), 2),
        "functions that double 60 times": (networks.doubling(60), 2),
    }
    held = 0
    for proto, status in cases.values():
        onnx.save(proto, folder / "m.onnx")
        done = run(folder, "m.onnx", *BOTH, limit=(resource.RLIMIT_AS, 8 << 30))
        held += done.status == status and done.told and done.seconds < 60
    yield Row("too large is one message, within 8 GiB and 60 s", ", ".join(cases), len(cases), held)


def disk_full(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """No file may grow beyond 12,000 bytes: writing fails as on a full disk."""
    onnx.save(networks.model([helper.make_node("Relu", ["x"], ["y"])], [1, 4096]), folder / "m.onnx")
    flags = ("--save-outputs saved.json", "--save-outputs saved", "--save-inputs inputs.npz", "--html report.html")
    held = 0
    for flag in flags:
        done = run(folder, "m.onnx", *BOTH, "--samples", "1", *flag.split(), limit=(resource.RLIMIT_FSIZE, 12_000))
        told = (done.out + done.err).count("cannot be written") == 1
        verdict = done.report is not None and "pass: " in done.out
        before = "--save-inputs" in flag and "running" not in done.err  # refused, and nothing was lost
        held += done.status == 2 and told and (verdict or before) and not list(folder.rglob("*.partial"))
    how = ", ".join(f"`{flag}`" for flag in flags)
    yield Row("a full disk: one line, the verdict where something ran, no half file", how, len(flags), held)


def cut_short(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Files that a runner cuts short while the command reads them again and again."""
    draw = np.random.default_rng(0)
    proto = networks.model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [64, 1024], w=draw.random((1024, 1024), "f4")
    )
    shutil.copy(Path(risky.__file__), folder / "risky.py")
    words = ["m.onnx", *BOTH, "--runner", "risky:cuts"]
    held = {"data": 0, "weights": 0}
    for isolate in ("auto", "off"):
        onnx.save(proto, folder / "m.onnx")
        for name in ("x.npy", "x.npz"):
            array = np.ones((64, 1024), np.float32)
            np.save(folder / name, array) if name == "x.npy" else np.savez(folder / name, x=array)
            held["data"] += run(folder, *words, "--data", name, "--isolate", isolate).told_or_judged
            (folder / name).unlink()
        onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
        held["weights"] += run(folder, *words, "--samples", "3", "--isolate", isolate).told_or_judged
    promise = "a file cut short while the command runs is one message, and never a signal"
    yield Row(promise, "data, `.npy` and `.npz`, `--isolate` auto and off", 4, held["data"])
    yield Row(promise, "weights beside the model, `--isolate` auto and off", 2, held["weights"])


def two_at_once(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Two commands that write the same files at the same time."""
    shutil.copytree(ROOT / "examples" / "digits", folder / "digits")
    line = "digits/digits.onnx --onnxrt --emulate int8 --fix plan.json --rtol 0 --atol 0.05 --save-outputs saved.json"
    words = [*COMMAND, *line.split(), "--save-worst", "worst", "--json", "report.json", "-q"]
    held = 0
    for _ in range(options.repeats):
        for path in (folder / "plan.json", folder / "report.json"):
            path.unlink(missing_ok=True)
        both = [subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = [(child.communicate()[1], child.returncode) for child in both]
        whole = all(json.loads((folder / name).read_text()) for name in ("plan.json", "report.json", "saved.json"))
        held += whole and all(status == 0 and "Traceback" not in err for err, status in said)
    how = "`--fix`, `--save-outputs`, `--save-worst` and `--json` onto the same files"
    yield Row("two commands at once: both verdicts, whole files", how, options.repeats, held)


def linear(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Time in proportion to the number of nodes."""
    cases = [("under 30 s", "a chain of 100,000 Sin, outputs alone", networks.sines(100_000), BOTH, 30)]
    for count in (1_000, 2_000, 5_000, 10_000):
        how = f"a chain of {count:,} Sin, emulated FP16, by layers"
        cases.append(("under 60 s", how, networks.sines(count), networks.BY_LAYERS, 60))
    for count in (1_000, 2_000, 10_000):
        how = f"a chain of {count:,} MatMul and Tanh, emulated FP16, by layers"
        cases.append(("under 60 s", how, networks.products(count), networks.BY_LAYERS, 60))
    for promise, how, proto, words, limit in cases:
        onnx.save(proto, folder / "m.onnx")
        done = run(folder, "m.onnx", *words, "-q", at_most=options.patience)
        held = done.status in (0, 1) and done.cpu < limit
        more = f"{done.cpu:.0f} CPU seconds" + (", not through" if done.status == TIMED_OUT else "")
        yield Row(f"{promise} of processor time", how, 1, int(held), more)


def isolation(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """What a process of its own costs."""
    from layerdiff import OnnxrtRunner, load
    from layerdiff.compare.runs.workers.worker import Worker

    resnet50(folder / "m.onnx")
    model = load(folder / "m.onnx")
    x = {"x": np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)}
    worker = Worker()
    with OnnxrtRunner().session(model) as here, OnnxrtRunner().opened_by(worker).session(model) as there:
        times: dict[str, list[float]] = {"here": [], "there": []}
        for _ in range(30):
            for name, session in (("here", here), ("there", there)):
                begun = time.perf_counter()
                session.infer(x)
                times[name].append(time.perf_counter() - begun)
    worker.close()
    ratio = median(times["there"]) / median(times["here"])
    how = "ResNet-50, batch 1, 30 runs in turns, median"
    yield Row("a process of its own costs at most a tenth", how, 1, int(ratio <= 1.1), f"{ratio:.2f} times in-process")


TRIALS = (
    *(runners_that_do_harm, comparisons_of_nothing, comparator, determinism),
    *(weights_outside, damaged_inputs, memory, linear, isolation),
    *(interrupts, streams, disk_full, cut_short, two_at_once),
)
