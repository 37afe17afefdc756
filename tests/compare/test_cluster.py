"""``--ray``: shares on a cluster give the report of one run, also when a worker dies; what is refused.

Most of it on a stand-in for Ray, which runs a task when it is waited for; marked `slow`, on a cluster of this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner, TrtRunner, UsageError
from layerdiff.compare.cli.command import main
from layerdiff.compare.cluster import TRIES, gpus_of
from layerdiff.runners.pytorch.runner import TorchRunner

from support import ray_standin
from support.models import parsed
from support.plan_networks import overflowing

TIMES = ("date", "seconds", "command")
NETWORK = """
    net (float[N, 8] x) => (float[N, 4] scores, int64[N] label)
    { h = MatMul(x, w1) r = Relu(h) scores = MatMul(r, w2) label = ArgMax<axis = 1, keepdims = 0>(scores) }
"""
DYING = """
import os
import pathlib
import signal

import onnxruntime as ort

session = ort.InferenceSession("net.onnx")
mark = pathlib.Path("died")


def dies(feed):
    if feed["x"][0, 0] == {number} and not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return dict(zip(["scores", "label"], session.run(["scores", "label"], dict(feed))))
"""
SUITE = """
[defaults]
data = "data"
[[check]]
name = "FP16"
model = "net.onnx"
runners = ["onnxrt", "emulate=fp16"]
[[check]]
name = "without optimization"
model = "net.onnx"
runners = ["onnxrt", "onnxrt=optimization=disable"]
[[check]]
name = "no such file"
model = "none.onnx"
runners = ["onnxrt", "emulate=bf16"]
"""
DYING_CHECK = """
[[check]]
name = "dying"
model = "net.onnx"
runners = ["onnxrt", "runner=dying:dies"]
isolate = "off"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder: a network, seven samples whose first element is their number, labels and a suite."""
    rng = np.random.default_rng(0)
    weights = {"w1": rng.standard_normal((8, 16)), "w2": rng.standard_normal((16, 4))}
    onnx.save(parsed(NETWORK, **{n: w.astype(np.float32) for n, w in weights.items()}), tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    for number in range(7):
        x = rng.standard_normal((5, 8)).astype(np.float32)
        x[0, 0] = number
        np.savez(tmp_path / "data" / f"sample{number}.npz", x=x)
    np.save(tmp_path / "labels.npy", rng.integers(0, 4, 35))
    (tmp_path / "suite.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ray(monkeypatch):
    """A stand-in for Ray on 3 CPUs."""
    return ray_standin.install(monkeypatch)


def untimed(path):
    """A report without its times, and its notices by code."""

    def without(value):
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k not in TIMES}
        return [without(v) for v in value] if isinstance(value, list) else value

    return without(json.loads(path.read_text()))


def apart(report):
    """A report without what is said of workers, and that."""
    said = [n["text"] for n in report["notices"] if n["code"] == "worker-died"]
    report["notices"] = [n for n in report["notices"] if n["text"] not in said]
    report["warnings"] = [text for text in report["warnings"] if text not in said]
    return report, said


COMMANDS = {
    "FP16": ["--emulate", "fp16"],
    "several": ["--emulate=bf16", "--reference-evaluator"],
    "INT8": ["--emulate", "int8", "--labels", "labels.npy", "--metric", "top1", "--metric-output", "scores"],
    "tolerance": ["--emulate", "bf16", "--rtol", "0.001", "--atol", "0.001"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_shares_on_a_cluster_give_the_report_of_one_run(folder, ray, name):
    words = ["net.onnx", "--onnxrt", "--data", "data", *COMMANDS[name]]
    assert main([*words, "--ray", "--json", "ray.json"]) == main([*words, "--json", "one.json"])
    assert untimed(folder / "ray.json") == untimed(folder / "one.json")
    assert ray.started == [{"max_retries": 0, "num_cpus": 1, "num_gpus": 0}] * 3
    assert ray.stopped == 1


@pytest.mark.parametrize("deaths", [(1,), (2, 4)], ids=["once", "twice"])
def test_a_worker_that_dies_costs_nothing_and_is_told(folder, ray, deaths):
    ray.deaths = deaths
    words = ["net.onnx", "--onnxrt", "--emulate", "fp16", "--data", "data"]
    assert main([*words, "--ray", "--json", "ray.json"]) == main([*words, "--json", "one.json"]) == 0
    found, said = apart(untimed(folder / "ray.json"))
    assert found == untimed(folder / "one.json")
    who = "A worker" if len(deaths) == 1 else "2 workers"
    assert said == [f"{who} of the cluster died on share {deaths[0]} of 3, which was run again."]


def test_a_task_that_kills_every_worker_ends_the_run(folder, ray, capsys):
    ray.deaths = range(100)
    assert main(["net.onnx", "--onnxrt", "--emulate", "fp16", "--data", "data", "--ray"]) == 3
    assert f"{TRIES} workers died on one task: " in capsys.readouterr().err
    assert ray.stopped == 1


def test_there_are_no_more_shares_than_samples(folder, ray):
    main(["net.onnx", "--onnxrt", "--emulate", "fp16", "--shape", "x:2x8", "--samples", "2", "--ray"])
    assert len(ray.started) == 2


def test_a_connection_that_there_is_is_kept(folder, ray):
    ray.is_initialized = lambda: True
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    data = [{"x": np.ones((2, 8), np.float32)}] * 3
    assert Comparator("net.onnx", runners, data_loader=data, ray="auto").compare().verdict == "pass"
    assert ray.stopped == 0


def test_checks_of_a_suite_are_tasks(folder, ray):
    ray.deaths = (2,)
    words = ["--suite", "suite.toml"]
    assert main([*words, "--ray", "--json", "ray.json"]) == main([*words, "--json", "one.json"]) == 3
    found, one = untimed(folder / "ray.json"), untimed(folder / "one.json")
    told = []
    for check in found["checks"]:
        if check["report"] is not None:
            check["report"], said = apart(check["report"])
            told += said
    assert found == one
    assert told == ["A worker of the cluster died on without optimization, which was run again."]
    assert len(ray.started) == 4


# ---- the runs of a search for a plan


@pytest.fixture
def chain(folder):
    """A search in a chain of so many layers that blocks of them are probed."""
    onnx.save(overflowing(34), folder / "chain.onnx")
    return ["chain.onnx", "--onnxrt", "--emulate", "fp16", "--samples", "2"]


SEARCHES = {
    "two are kept": ("--layers",),
    "nearly all are kept": ("--rtol", "2e-3", "--atol", "2e-2"),
    "all would have to be kept": ("--rtol", "0", "--atol", "3e-4"),
    "the budget ends": ("--rtol", "2e-3", "--atol", "2e-2", "--fix-budget", "10"),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_on_a_cluster_comes_to_the_same_plan_by_the_same_runs(chain, folder, ray, name):
    words = [*chain, *SEARCHES[name], "--fix"]
    status = main([*words, "plan.json", "--json", "one.json"])
    alone = untimed(folder / "plan.json")
    assert main([*words, "plan.json", "--ray", "--json", "ray.json"]) == status
    assert untimed(folder / "plan.json") == alone
    assert untimed(folder / "ray.json") == untimed(folder / "one.json")
    assert len(ray.started) >= alone["probes"] + alone["runs"] > 4
    assert max(ray.at_once) in (3, 4), "what is asked for waits for nothing that was begun ahead"
    assert ray.stopped == 1


@pytest.mark.parametrize("name", SEARCHES)
def test_on_one_worker_nothing_is_begun_that_is_not_asked_for(chain, folder, ray, name):
    ray.there = {"CPU": 1.0}
    main([*chain, *SEARCHES[name], "--fix", "plan.json", "--ray"])
    plan = untimed(folder / "plan.json")
    assert (len(ray.started), set(ray.at_once)) == (plan["probes"] + plan["runs"], {1})


def test_a_worker_that_dies_in_a_search_costs_nothing_and_is_told(chain, folder, ray):
    ray.deaths = (1, 2, 20)
    main([*chain, "--fix", "plan.json", "--json", "one.json"])
    alone = untimed(folder / "plan.json")
    main([*chain, "--fix", "plan.json", "--json", "ray.json", "--ray"])
    assert untimed(folder / "plan.json") == alone
    found, said = apart(untimed(folder / "ray.json"))
    assert found == untimed(folder / "one.json")
    assert said == ["3 workers of the cluster died on a run of the search for a plan, which was run again."]


def test_ctrl_c_in_a_search_ends_the_cluster_and_leaves_the_verdict(chain, folder, ray, capsys):
    def wait(tasks, num_returns):
        raise KeyboardInterrupt

    ray.wait = wait
    assert main([*chain, "--fix", "plan.json", "--ray", "--json", "ray.json"]) == 130
    report = json.loads((folder / "ray.json").read_text())
    assert (report["verdict"], ray.stopped) == ("fail", 1)
    assert "was interrupted; without --ray, --resume DIR would keep its runs." in capsys.readouterr().out


@pytest.mark.parametrize("deaths", [(), (2,)], ids=["undisturbed", "one dies"])
def test_each_candidate_is_walked_by_a_worker(chain, folder, ray, deaths):
    ray.deaths = deaths
    words = [*chain, "--emulate", "bf16", "--onnxrt=optimization=disable", "--layers"]
    assert main([*words, "--json", "one.json"]) == main([*words, "--ray", "--json", "ray.json"]) == 1
    one, (found, said) = untimed(folder / "one.json"), apart(untimed(folder / "ray.json"))
    assert found == one
    assert {culprit["candidate"] for culprit in one["culprits"]} == {"emulate:fp16"}
    assert said == ["A worker of the cluster died on the layers of emulate:bf16, which was run again."] * len(deaths)
    assert len(ray.started) == 3 + len(deaths)


REFUSED = [
    (["--layers", "--emulate=bf16", "--resume", "kept"], "--resume is for one process"),
    (["--layers"], "--ray runs shares of the samples, and --layers is for a run on all"),
    (["--fix", "plan.json", "--latency", "3"], "runs of --fix, and --latency is for one process"),
    (["--fix", "plan.json", "--resume", "kept"], "--resume is for one process"),
    (["--latency", "3"], "--latency is for a run on all"),
    (["--shard", "1/2"], "--shard is for a run on all"),
    (["--resume", "kept"], "--resume is for a run on all"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=lambda v: v[0] if isinstance(v, list) else None)
def test_what_needs_all_samples_in_one_place_is_refused(folder, ray, capsys, words, said):
    assert main(["net.onnx", "--onnxrt", "--emulate", "fp16", "--data", "data", "--ray", *words]) == 2
    assert said in capsys.readouterr().err
    assert not ray.started


def test_a_suite_that_stops_early_is_refused(folder, ray, capsys):
    (folder / "suite.toml").write_text("stop = true\n" + SUITE)
    assert main(["--suite", "suite.toml", "--ray"]) == 2
    assert "stops at the first check" in capsys.readouterr().err


def test_gpus_that_the_cluster_does_not_have_are_asked_for_in_vain(folder, ray):
    with pytest.raises(UsageError, match="needs 1 GPU, and the cluster has 0"):
        Comparator("net.onnx", [OnnxrtRunner(), OnnxrtRunner(provider="cuda")], ray="auto").compare()


def test_a_cluster_that_is_not_there_is_told_in_one_line(folder, ray, capsys):
    def init(**options):
        raise ConnectionError("Could not find any running Ray instance.\nMore")

    ray.init = init
    assert main(["net.onnx", "--onnxrt", "--emulate", "fp16", "--data", "data", "--ray=auto"]) == 2
    assert "--ray auto: Could not find any running Ray instance.\n" in capsys.readouterr().err


def test_without_ray_its_extra_is_named(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["net.onnx", "--onnxrt", "--emulate", "fp16", "--data", "data", "--ray"]) == 3
    assert "layerdiff[ray]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("runners", "gpus"),
    [
        ([OnnxrtRunner(), EmulateRunner(format="fp16")], 0),
        ([OnnxrtRunner(), OnnxrtRunner(provider="cuda")], 1),
        ([OnnxrtRunner(), TrtRunner(), TrtRunner(fp16=True)], 1),
        ([TorchRunner(program="a.pt2", device="cuda")], 1),
    ],
)
def test_runners_of_a_task_share_its_gpus(runners, gpus):
    assert gpus_of(runners) == gpus


# --- on a cluster of this machine -------------------------------------------------------------------------------------


@pytest.fixture
def two_workers(monkeypatch):
    """Ray itself, with two workers."""
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_one_of_two_workers_is_killed_in_the_middle(folder, two_workers):
    (folder / "dying.py").write_text(DYING.format(number=3))
    words = ["net.onnx", "--onnxrt", "--runner", "dying:dies", "--isolate=off", "--data", "data"]
    status = main([*words, "--ray", "--json", "ray.json"])
    assert (folder / "died").exists(), "no worker died"
    assert status == main([*words, "--json", "one.json"]) == 0
    found, said = apart(untimed(folder / "ray.json"))
    assert found == untimed(folder / "one.json")
    assert said == ["A worker of the cluster died on share 2 of 2, which was run again."]


@pytest.mark.slow
def test_a_search_on_two_workers(chain, folder, two_workers):
    words = [*chain, "--rtol", "2e-3", "--atol", "2e-2", "--fix", "plan.json"]
    main([*words, "--json", "one.json"])
    alone = untimed(folder / "plan.json")
    main([*words, "--ray", "--json", "ray.json"])
    assert untimed(folder / "plan.json") == alone
    assert untimed(folder / "ray.json") == untimed(folder / "one.json")


@pytest.mark.slow
def test_candidates_are_walked_by_two_workers(chain, folder, two_workers):
    words = [*chain, "--emulate", "bf16", "--layers"]
    assert main([*words, "--json", "one.json"]) == main([*words, "--ray", "--json", "ray.json"]) == 1
    assert untimed(folder / "ray.json") == untimed(folder / "one.json")


def busy_workers():
    """Process ids of the workers of the cluster of this process that run something."""
    parents, names = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
            parents[int(stat.parent.name)], names[int(stat.parent.name)] = int(rest.split()[1]), name
    for worker, name in names.items():
        above = worker
        while above in parents and above != os.getpid():
            above = parents[above]
        if name.startswith("ray::_in_folder") and above == os.getpid():
            yield worker


@pytest.mark.slow
def test_a_search_of_which_a_worker_is_killed(chain, folder, two_workers):
    words = [*chain, "--fix", "plan.json"]
    main([*words, "--json", "one.json"])
    alone = untimed(folder / "plan.json")
    killed = threading.Event()

    def kill():
        while not killed.wait(0.02):
            for busy in busy_workers():
                os.kill(busy, signal.SIGKILL)
                killed.set()
                return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        main([*words, "--ray", "--json", "ray.json"])
    finally:
        died = killed.is_set()
        killed.set()
        killer.join()
    assert died, "no worker died"
    assert untimed(folder / "plan.json") == alone
    found, said = apart(untimed(folder / "ray.json"))
    assert found == untimed(folder / "one.json")
    assert said == ["A worker of the cluster died on a run of the search for a plan, which was run again."]


@pytest.mark.slow
def test_a_suite_on_two_workers_of_which_one_is_killed(folder, two_workers):
    (folder / "dying.py").write_text(DYING.format(number=3))
    check = (
        '[[check]]\nname = "dying"\nmodel = "net.onnx"\nrunners = ["onnxrt", "runner=dying:dies"]\nisolate = "off"\n'
    )
    (folder / "suite.toml").write_text(SUITE + check)
    assert main(["--suite", "suite.toml", "--ray", "--json", "ray.json"]) == 3
    assert (folder / "died").exists(), "no worker died"
    assert main(["--suite", "suite.toml", "--json", "one.json"]) == 3
    found, one = untimed(folder / "ray.json"), untimed(folder / "one.json")
    told = []
    for report in (check["report"] for check in found["checks"] if check["report"] is not None):
        told += apart(report)[1]
    assert found == one
    assert told == ["A worker of the cluster died on dying, which was run again."]
