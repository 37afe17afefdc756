"""What shares, merging, suites and a cluster cost: writes a section of docs/scale.md.

Commands are processes of their own, imports included. Told are CPU seconds, which other work on the machine changes
little, and of Ray, whose processes are not the command's, seconds; of each the least of several turns. What one sample
of large outputs costs is the difference between runs on few and on more of them: imports and loading do not count.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx
import onnx.parser

from benchmarks.kit.pages import DOCS, machine, table, write_section

from .two_gpus import Size, write_chain

CHECKS = 20
WAIT = 1.0
WAITS = f"""
import time
from dataclasses import dataclass

from layerdiff import EmulateRunner


@dataclass(frozen=True)
class Waits(EmulateRunner):
    flag = ""

    def open(self, model, **more):
        time.sleep(0 if model.derived else {WAIT})
        return super().open(model, **more)
"""
"""A runner whose builds take time and no core of this machine."""
ELEMENTS = 4 << 20
"""Of the large output: 16 MiB on each of two sides."""
LARGE = f"g (float[{ELEMENTS}] x) => (float[{ELEMENTS}] y) {{ y = Add(x, x) }}"
SUITE = '[[check]]\nname = "{}"\nmodel = "digits.onnx"\ndata = "heldout.npz"\nrunners = ["onnxrt", "emulate=fp16"]\n'


class Bench:
    """A folder with networks, in which commands are timed."""

    def __init__(self, folder: Path, turns: int) -> None:
        self.folder, self.turns = folder, turns

    def cpu(self, *words: str) -> float:
        """The least CPU seconds of several runs of a command."""
        return min(self._once(words)[0] for _ in range(self.turns))

    def seconds(self, *words: str) -> float:
        """The least seconds of several runs of a command."""
        return min(self._once(words)[1] for _ in range(self.turns))

    def _once(self, words: tuple[str, ...]) -> tuple[float, float]:
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "layerdiff", *words, "-q"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{' '.join(words)}: {done.stderr}")
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
        return cpu, time.perf_counter() - start

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return (self.folder / name).stat().st_size


def suites(bench: Bench, ray_too: bool) -> list[tuple[str, str]]:
    """A check of a small network, alone and among others, in one process and on a cluster."""
    check = ("digits.onnx", "--onnxrt", "--emulate", "fp16", "--data", "heldout.npz")
    alone = bench.cpu(*check)
    one, many = (bench.cpu("--suite", f"{count}.toml", "--json", f"suite{count}.json") for count in (1, CHECKS))
    size = (bench.size(f"suite{CHECKS}.json") - bench.size("suite1.json")) // (CHECKS - 1)
    rows = [
        (
            "a comparison of the digits network as a command, on 360 images, imports included",
            f"{alone:.2f} CPU s",
        ),
        (f"each further check of the same in a suite ({CHECKS} of them)", f"{(many - one) / (CHECKS - 1):.3f} CPU s"),
        ("its report as JSON, without layers", f"{size / 1e3:.1f} kB"),
    ]
    if not ray_too:
        return rows
    at_once, on_one, on_many = (
        bench.seconds("--suite", f"{count}.toml", *ray) for count, ray in ((1, ()), (1, ["--ray"]), (CHECKS, ["--ray"]))
    )
    rows.append(
        ("a local cluster started and stopped, and a first task in a fresh worker", f"{on_one - at_once:.1f} s")
    )
    rows.append((f"{CHECKS - 1} further checks on it", f"{on_many - on_one:.1f} s"))
    return rows


def search(bench: Bench) -> list[tuple[str, str]]:
    """A search for a plan in one process and on a cluster: of runs that fill the cores, and of builds that wait."""
    rows = []
    words = ("chain.onnx", "--onnxrt", "--samples", "1", "--rtol", "0", "--atol", "2e-4", "--isolate", "off")
    for what, runner in (
        ("emulated runs, which fill the cores", ("--emulate", "fp16")),
        (f"builds that wait {WAIT:g} s and compute nothing, as if elsewhere", ("--runner", "waits:Waits=fp16")),
    ):
        found = []
        for name, ray in (("one.json", ()), ("ray.json", ("--ray",))):
            bench.seconds(*words, *runner, "--fix", name, *ray)
            found.append(json.loads((bench.folder / name).read_text()))
        one, many = (plan["seconds"] for plan in found)
        made = f"{found[0]['probes']} probes and {found[0]['runs']} runs"
        rows.append((f"a search of {made}, {what}: in one process", f"{one:.1f} s"))
        rows.append(("the same on a cluster of two workers, their start included", f"{many:.1f} s"))
        if {**found[0], "seconds": 0}.keys() != found[1].keys() or found[0]["keep"] != found[1]["keep"]:
            raise RuntimeError("another plan on the cluster")
    return rows


def shares(bench: Bench) -> list[tuple[str, str]]:
    """Large outputs: in one run, as a share, and merged."""
    words = ("large.onnx", "--onnxrt", "--emulate", "fp16", "--rtol", "0.01", "--atol", "0.01")
    size = ELEMENTS * 4 * 2
    rows = []
    few, more = 2, 6
    whole = [bench.cpu(*words, "--samples", str(n)) for n in (few, more)]
    share = []
    merged = []
    for count in (few, more):
        names = [f"{index}of2.json" for index in (1, 2)]
        for index, name in enumerate(names, 1):
            spent = bench.cpu(*words, "--samples", str(count), "--shard", f"{index}/2", "--json", name)
        share.append(spent)  # of the second, whose size is the first's
        merged.append(bench.cpu("merge", *names, "-o", "all.json"))
    half, mb = (more - few) // 2, size / 1e6
    for what, spent in (
        ("run and compared in one run", (whole[1] - whole[0]) / (more - few)),
        ("run and written into a share's report", (share[1] - share[0]) / half),
        ("read by `layerdiff merge` and judged", (merged[1] - merged[0]) / (more - few)),
    ):
        rows.append(
            (f"a sample of {mb:.0f} MB of outputs on both sides, {what}", f"{spent * 1e9 / size:.1f} CPU s a GB")
        )
    rows.append(("bytes of a share's report for a byte of outputs", f"{bench.size(names[0]) / (size * more / 2):.2f}"))
    return rows


def prepare(folder: Path) -> None:
    """Writes the networks and the suites."""
    for name in ("digits.onnx", "heldout.npz"):
        shutil.copy(DOCS.parent / "examples" / "digits" / name, folder)
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {LARGE}'), folder / "large.onnx")
    write_chain(folder, Size(64, 64, 40))
    (folder / "waits.py").write_text(WAITS)
    for count in (1, CHECKS):
        (folder / f"{count}.toml").write_text("".join(SUITE.format(number) for number in range(count)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="start clusters, too, on a machine without other work")
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/scale.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        bench = Bench(Path(folder), options.turns)
        rows = [*shares(bench), *suites(bench, options.ray), *(search(bench) if options.ray else ())]
    head = f"On {machine('numpy', 'onnxruntime')}; the least of {options.turns} turns."
    write_section(DOCS / "scale.md", f"{head}\n\n{table(('', 'measured'), rows)}", dry=options.dry)


if __name__ == "__main__":
    main()
