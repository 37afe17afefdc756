"""Processes that share an engine, a timing cache and a calibration cache, on the stand-in: nobody reads half of a file,
or one that belongs to another, and nothing is left over."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from layerdiff.graph.engine import Engine
from layerdiff.graph.errors import ModelError, UsageError
from layerdiff.graph.load import load
from layerdiff.runners.contract.workload import Workload
from layerdiff.runners.trt import caches
from layerdiff.runners.trt.caches import keep_calibration
from layerdiff.runners.trt.runner import TrtRunner

from support.trt_cases import OLD, network, samples

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="processes that hold the stand-in are copies of this one"
)
ROUNDS = 10
LARGE = 1 << 20


def at_once(watch: Callable[[], object], *jobs: Callable[[], object]) -> None:
    """Runs jobs in copies of this process, each several times, from one moment on; watches until all of them end."""
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(len(jobs) + 1)

    def work(job: Callable[[], object]) -> None:
        ready.wait()
        for _ in range(ROUNDS):
            job()

    children = [context.Process(target=work, args=(job,)) for job in jobs]
    for child in children:
        child.start()
    ready.wait()
    while any(child.is_alive() for child in children):
        watch()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * len(jobs)


def test_an_engine_stands_beside_its_own_description(tensorrt, tmp_path):
    tensorrt(OLD)
    engine, seen = tmp_path / "net.engine", []

    def saving(name: str, op: str) -> Callable[[], object]:
        onnx.save(network(2, op).proto, tmp_path / name)
        model, runner = load(tmp_path / name), TrtRunner(save_engine=str(engine))
        return lambda: runner.open(model, workload=Workload(samples=samples(2))).close()

    def reading() -> None:
        seen.append(Path(Engine.at(engine).origin[0]).name)

    one, other = saving("one.onnx", "Relu"), saving("other.onnx", "Tanh")
    one()
    at_once(reading, one, other)
    reading()
    assert set(seen) <= {"one.onnx", "other.onnx"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.engine", "net.engine.json", "one.onnx", "other.onnx"]


def test_an_engine_that_was_replaced_since_it_was_looked_at_is_refused(tensorrt, tmp_path):
    tensorrt(OLD)
    engine = tmp_path / "net.engine"
    for op in ("Relu", "Tanh"):
        onnx.save(network(2, op).proto, tmp_path / f"{op}.onnx")
        runner = TrtRunner(save_engine=str(engine))
        runner.open(load(tmp_path / f"{op}.onnx"), workload=Workload(samples=samples(2))).close()
        if op == "Relu":
            model = load(engine)
    with pytest.raises(ModelError, match="another engine has been written there meanwhile"):
        TrtRunner().open(model)


def test_a_timing_cache_is_read_whole(tensorrt, tmp_path):
    module, _ = tensorrt(OLD)
    file, seen = tmp_path / "timings", set()

    def building(letter: bytes) -> Callable[[], object]:
        runner = TrtRunner(timing_cache=str(file))

        def build() -> None:
            module.ITimingCache.serialize = lambda self: letter * LARGE
            runner.open(network(2), workload=Workload(samples=samples(2))).close()

        return build

    def reading() -> None:
        seen.add(caches.kept(str(file))[:: LARGE - 1])

    at_once(reading, building(b"a"), building(b"b"))
    reading()
    assert seen <= {b"", b"aa", b"bb"}
    assert seen - {b""}
    assert [p.name for p in tmp_path.iterdir()] == ["timings"]


def test_a_calibration_cache_is_read_whole(tmp_path):
    file, seen = tmp_path / "calibration", set()

    def calibrating(letter: bytes) -> Callable[[], object]:
        measured = SimpleNamespace(measured=letter * LARGE, skipped=0)
        return lambda: keep_calibration(measured, str(file))

    def reading() -> None:
        content = caches.kept(str(file))
        seen.add((len(content), content[:1], content[-1:]))

    at_once(reading, calibrating(b"a"), calibrating(b"b"))
    reading()
    assert seen <= {(0, b"", b""), (LARGE, b"a", b"a"), (LARGE, b"b", b"b")}
    assert [p.name for p in tmp_path.iterdir()] == ["calibration"]


@pytest.mark.parametrize("what", ["engine", "timing cache"])
def test_a_disk_that_is_full_leaves_what_was_there(what, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"before")

    def writing() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(UsageError, match=f"file: the {what} cannot be written: File too large"):
            caches.write_file(file, b"x" * 2000, what)

    at_once(lambda: None, writing)
    assert file.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
