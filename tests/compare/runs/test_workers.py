"""Sessions in processes of their own: what they give is the same, and whatever they do, the report is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import psutil
import pytest
from layerdiff import Comparator, EmulateRunner, FunctionRunner, OnnxrtRunner, RunnerError, UsageError
from layerdiff.compare.cli.command import main
from layerdiff.compare.comparison import Rules
from layerdiff.compare.report.json import to_json
from layerdiff.compare.runs.workers.arena import Arena
from layerdiff.compare.runs.workers.isolation import wanted
from layerdiff.compare.runs.workers.worker import Worker
from layerdiff.graph.model import Model
from layerdiff.runners.contract.workload import Workload
from layerdiff.runners.trt.runner import TrtRunner

from support.models import parsed

RELU = "g (float[4] x) => (float[4] y) { y = Relu(x) }"
X = np.array([-1, 0, 1, 2], np.float32)

MODULE = """
import ctypes, logging, os, signal, sys, time
import numpy as np
from layerdiff import Runner, Session
from layerdiff.runners.contract.session import STEPS

def relu(feed): return {"y": np.maximum(feed["x"], 0)}
def off(feed): return {"y": np.maximum(feed["x"], 0) + 1}
def segfault(feed): sys.stderr.write("about to fall\\n"); sys.stderr.flush(); ctypes.string_at(0)
def abort(feed): os.abort()
def killed(feed): os.kill(os.getpid(), signal.SIGKILL)
def exits(feed): ctypes.CDLL(None)._exit(0)
def leaves(feed): os._exit(0)
def hangs(feed): ctypes.CDLL(None).sleep(1000)
def closes(feed): os.closerange(0, 64); return relu(feed)
def moves(feed): os.chdir("/"); return relu(feed)
def raises(feed): np.seterr(all="raise"); return {"y": np.float32(1e30) * feed["x"] * np.float32(1e30)}
def writes(feed): ctypes.memset(feed["x"].ctypes.data, 0, feed["x"].nbytes); return {"y": np.zeros(4, np.float32)}
def forks(feed):
    if not os.fork(): time.sleep(1000)
    ctypes.string_at(0)

class AtOpen(Runner):
    def open(self, model): os.abort()

class Parses(Runner):
    def open(self, model):
        logging.getLogger(STEPS).debug("parsing %s", "y [Relu]")
        os.abort()

class Second(Runner):
    def open(self, model):
        count = []
        def run(feed):
            count.append(1)
            if len(count) == 2: os.abort()
            return relu(feed)
        return run
"""


@pytest.fixture
def risky(tmp_path, monkeypatch) -> Path:
    """A folder with a model and a module of functions that do harm."""
    onnx.save(parsed(RELU), tmp_path / "m.onnx")
    (tmp_path / "risky.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("risky", None)


@pytest.fixture
def worker():
    with_all_its_sessions = Worker()
    yield with_all_its_sessions
    with_all_its_sessions.close()


def report_of(folder: Path, words: str) -> tuple[int, dict]:
    status = main([*words.split(), "--json", str(folder / "report.json")])
    return status, json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("segfault", "SIGSEGV (a segmentation fault)\nit last wrote: about to fall"),
        ("abort", "SIGABRT"),
        ("killed", "SIGKILL (killed, as for want of memory)"),
        ("exits", "its process ended by itself, with status 0"),
        ("leaves", "sample 0: Ended: it called os._exit(0)"),
        ("closes", "its process ended by itself, with status 1"),
        ("AtOpen", "opening: its process was ended by SIGABRT"),
        ("Parses", "opening: its process was ended by SIGABRT (it gave up) while parsing y [Relu]"),
        ("Second", "sample 1: second: running: its process was ended by SIGABRT"),
        ("forks", "SIGSEGV"),
    ],
)
def test_a_runner_that_takes_its_process_along_leaves_the_report(what, said, risky):
    status, found = report_of(risky, f"m.onnx --onnxrt --onnxrt --runner risky:{what} --samples 2")
    assert (status, found["verdict"]) == (3, "error")
    (error,) = [r["error"] for r in found["runners"] if r["error"]]
    assert said in error
    verdicts = {o["candidate"]: o["verdict"] for o in found["outputs"]}
    assert verdicts["onnxrt#2"] == "pass"


def test_a_class_in_the_present_folder_is_found_by_its_process(tmp_path, monkeypatch):
    """A console script does not have the present folder on its path."""
    onnx.save(parsed(RELU), tmp_path / "m.onnx")
    (tmp_path / "own_relu.py").write_text(
        "import numpy as np\nfrom layerdiff import Runner\nclass Own(Runner):\n"
        "    def open(self, model): return lambda feed: {'y': np.maximum(feed['x'], 0)}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder not in ("", str(tmp_path))])
    monkeypatch.delitem(sys.modules, "own_relu", raising=False)
    status, report = report_of(tmp_path, "m.onnx --onnxrt --runner own_relu:Own --isolate=on")
    assert (status, report["outputs"][0]["verdict"]) == (0, "pass")


def test_a_runner_that_hangs_is_ended(risky):
    status, found = report_of(risky, "m.onnx --onnxrt --onnxrt --runner risky:hangs --timeout 3 --samples 1")
    assert status == 3
    assert [r["error"] for r in found["runners"] if r["error"]] == [
        "sample 0: hangs: running: no answer within 3 s (--timeout)"
    ]
    assert {o["candidate"]: o["verdict"] for o in found["outputs"]}["onnxrt#2"] == "pass"


@pytest.mark.parametrize("what", ["moves", "raises", "writes"])
def test_what_a_runner_does_to_its_process_stays_there(what, risky):
    _, found = report_of(risky, f"m.onnx --onnxrt --runner risky:{what} --runner risky:off --samples 1")
    assert Path.cwd() == risky
    (off,) = [o for o in found["outputs"] if o["candidate"] == "off"]
    assert off["values"]["max_abs"]["value"] == pytest.approx(1)


def test_the_report_is_the_one_of_one_process(onnx_file):
    path = onnx_file(
        "g (float[N, 8] x) => (float[N, 4] y) { h = MatMul(x, w) a = Relu(h) y = Softmax <axis = 1> (a) }",
        w=np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32),
    )

    def said(isolate: str, layers: str | None) -> dict:
        runners = OnnxrtRunner(threads=1), EmulateRunner(format="bf16", threads=1)
        found = to_json(Comparator(path, runners, isolate=isolate, layers=layers).compare())
        for runner in found["runners"]:
            runner["seconds"] = None
        return {**found, "date": None, "settings": None}

    for layers in (None, "all"):
        assert said("on", layers) == said("off", layers)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.arange(6, dtype=">i4"),
        np.array(3.5),
        np.zeros((0, 4), np.int8),
        np.array([True, False]),
        np.array([1, 2], ml_dtypes.bfloat16),
        np.array([1, -2], ml_dtypes.int4),
        np.array([1 + 2j], np.complex64),
        np.array(["a", "é", ""], object),
    ],
    ids=lambda v: f"{v.dtype} {v.shape}",
)
def test_an_arena_gives_what_was_put(value):
    arena = Arena.new()
    slots = arena.put({"first": np.zeros(100), "value": value})
    for copy in (True, False):
        found = arena.get(slots, copy=copy)["value"]
        assert (found.dtype, found.shape, found.tolist()) == (value.dtype, value.shape, value.tolist())
    arena.close()


def test_a_view_stays_while_an_arena_grows():
    arena = Arena.new()
    view = arena.get(arena.put({"x": np.arange(4)}), copy=False)["x"]
    arena.put({"x": np.arange(4), "y": np.zeros(1 << 20)})
    assert view.tolist() == [0, 1, 2, 3]


def opened(worker: Worker, function: str, samples=None):
    runner = FunctionRunner(function=function).opened_by(worker)
    return runner.session(Model(parsed(RELU)), workload=Workload(samples=samples))


def test_a_dead_process_is_replaced_for_the_next_session(worker, risky):
    first, other = opened(worker, "risky:abort"), opened(worker, "risky:relu")
    with pytest.raises(RunnerError, match="SIGABRT"):
        first.infer({"x": X})
    with pytest.raises(RunnerError, match="SIGABRT"):
        other.infer({"x": X})
    other.close()
    assert opened(worker, "risky:relu").infer({"x": X})["y"].tolist() == [0, 0, 1, 2]


def test_outputs_are_the_callers(worker, risky):
    session = opened(worker, "risky:relu")
    first = session.infer({"x": X})["y"]
    session.infer({"x": X + 1})
    assert first.tolist() == [0, 0, 1, 2]


def test_nothing_is_left_of_a_worker(risky):
    before = set(os.listdir("/proc/self/fd")), threading.active_count()
    used = Worker()
    opened(used, "risky:relu")
    process = used.pid
    used.close()
    assert not Path(f"/proc/{process}").exists()
    assert (set(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_a_process_can_be_ended_by_several_at_once(risky):
    errors = []

    def end(worker, how):
        try:
            how(worker)
        except Exception as error:  # what a thread raises is lost otherwise
            errors.append(error)

    for _ in range(3):
        used = Worker()
        opened(used, "risky:relu")
        ends = (Worker.kill, Worker.close, Worker.kill, Worker.close)
        threads = [threading.Thread(target=end, args=(used, how)) for how in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_run_that_another_thread_ends_says_so(worker, risky):
    session = opened(worker, "risky:hangs")
    threading.Timer(0.3, worker.kill).start()
    with pytest.raises(RunnerError, match="it was no longer needed"):
        session.infer({"x": X})


def test_calibration_reads_samples_through_the_connection(onnx_file):
    path = onnx_file("g (float[N, 4] x) => (float[N, 4] y) { y = MatMul(x, w) }", w=np.eye(4, dtype=np.float32))
    found = {}
    for isolate in ("on", "off"):
        runners = OnnxrtRunner(), EmulateRunner(format="int8")
        rules = {"isolate": isolate, "rtol": 0.05, "atol": 0.05}
        report = Comparator(path, runners, data_loader=[{"x": np.ones((2, 4), np.float32)}] * 2, **rules).compare()
        found[isolate] = report.verdict, report.outputs[0].metrics
    assert found["on"] == found["off"]


def test_what_cannot_be_sent_is_refused():
    runners = OnnxrtRunner(), FunctionRunner(function=lambda feed: {"y": feed["x"]})
    with pytest.raises(UsageError, match="cannot run in a process of its own: it cannot be pickled"):
        Comparator(parsed(RELU), runners, isolate="on").compare()


def test_what_the_started_program_defines_stays_in_its_process(monkeypatch):
    def own(feed):
        return {"y": feed["x"]}

    main = sys.modules["__main__"]
    own.__module__, own.__qualname__ = "__main__", "own"
    monkeypatch.setattr(main, "own", own, raising=False)
    runner = FunctionRunner(function=own)
    assert not wanted(runner, Rules(isolate="auto"))
    with pytest.raises(UsageError, match="it is defined in the script or notebook itself"):
        wanted(runner, Rules(isolate="on"))


def test_who_is_foreign(risky):
    import risky as module

    assert [
        runner.foreign
        for runner in (
            OnnxrtRunner(),
            EmulateRunner(),
            OnnxrtRunner(custom_ops=("ops.so",)),
            FunctionRunner(function="risky:relu"),
            module.Second(),
        )
    ] == [False, False, True, True, True]


@pytest.mark.parametrize(("reference", "apart"), [("cpu", True), ("cuda", False)])
def test_tensorrt_runs_apart_where_its_outputs_are_downloaded_anyway(reference, apart):
    on_gpu = OnnxrtRunner(provider=reference).gpus > 0
    assert wanted(TrtRunner(), Rules(isolate="auto"), on_gpu) == apart
    assert not wanted(TrtRunner(), Rules(isolate="off"), on_gpu)


IMPORTS = """
import sys
from onnx import parser
from layerdiff import OnnxrtRunner
from layerdiff.compare.runs.workers.worker import Worker
from layerdiff.graph.model import Model
from layerdiff.runners.contract.workload import Workload

sys.path.insert(0, sys.argv[1])
proto = parser.parse_model('<ir_version: 9, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
Worker().open(OnnxrtRunner(), Model(proto), (), Workload(), print)
"""


def test_a_process_that_still_imports_ends_with_the_one_that_started_it(tmp_path):
    (tmp_path / "numpy.py").write_text("import time; time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", IMPORTS, str(tmp_path)]) as parent:
        one, until = psutil.Process(parent.pid), time.monotonic() + 30
        while not (children := one.children()) and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.5)  # it has begun to import
        parent.kill()
    gone, _ = psutil.wait_procs(children, timeout=10)
    assert gone == children


def test_ctrl_c_ends_a_process_that_computes(risky):
    """Native code does not hear it; the near end does, and ends the far one."""
    used = Worker()
    session = opened(used, "risky:hangs")
    process = used.pid
    raised = threading.Timer(0.5, lambda: os.kill(os.getpid(), 2))
    raised.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        session.infer({"x": X})
    assert time.monotonic() - begun < 100
    assert not Path(f"/proc/{process}").exists()
    used.close()
