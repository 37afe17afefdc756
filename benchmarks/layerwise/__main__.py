"""Layer by layer beside Polygraphy: ``python -m benchmarks.layerwise`` writes docs/layerwise.md.

*Polygraphy* runs one file twice with all tensors marked; it can neither emulate a format nor judge a layer, so that
rows of an emulation are held against the same run. *layerdiff* gives local and cumulative error of every layer, judged,
diagnosed, with contributions: of two files that differ in one weight (late, or in the first block, behind which no
tensor is the same on both sides), of every tensor; and of a file against its own emulation, of every fused group.
*Floor*: what no comparison can do without, with ONNX Runtime and NumPy alone: both models are loaded and run, the
candidate's twice (on its own values and on the reference's), and all tensors of both sides are read once at memory
speed; graph optimizations are on where fused groups are observed, and off where every tensor is. Each is a process of
its own, run in turns; seconds are the fastest turn, imports included, from modules that are compiled to bytecode, as
pip leaves them. *Passes* are counted in a turn of their own: nodes Conv, Gemm and MatMul that ran, over those of the
network, with all draws and probes of rounding noise; *sessions* are those of ONNX Runtime that were opened.
"""

from __future__ import annotations

import argparse
import compileall
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import layerdiff
import numpy as np
import onnx

from benchmarks.kit.pages import DOCS, machine, table, write_page, written_by
from benchmarks.kit.process import Measured, measure
from benchmarks.kit.resnet50 import resnet50

from .counted import PRODUCTS
from .networks import LENGTH, WIDTH, changed, emulated, encoder, tensor_bytes

MEMORY, OVER_FLOOR = 1 / 4, 2.5
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Load:
    """A network on samples of one shape: what Polygraphy runs.

    Attributes:
        name: What it is called in the table.
        network: File of the network.
        shape: Shape of its input x.
        samples: How many.
    """

    name: str
    network: str
    shape: tuple[int, ...]
    samples: int = 1

    @property
    def polygraphy(self) -> list[str]:
        """Polygraphy's program and arguments."""
        sizes = ",".join(map(str, self.shape))
        words = ["run", self.network, "--onnxrt", "--onnxrt", "--onnx-outputs", "mark", "all"]
        return [
            str(HERE / "polygraphy_run.py"),
            *words,
            "--input-shapes",
            f"x:[{sizes}]",
            "--iterations",
            str(self.samples),
        ]


RESNET = Load("ResNet-50, batch 8", "resnet.onnx", (8, 3, 224, 224))
SAMPLES = Load("ResNet-50, batch 2, 4 samples", "resnet.onnx", (2, 3, 224, 224), 4)
ENCODER = Load("encoder, batch 8", "encoder.onnx", (8, LENGTH, WIDTH))


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        load: The network and its samples.
        what: What is compared.
        words: layerdiff's arguments behind the network.
        candidate: File of the candidate, as the floor runs it.
        weight: The weight that differs, empty in an emulation.
        faster: Times faster than Polygraphy that are aimed at.
    """

    load: Load
    what: str
    words: tuple[str, ...]
    candidate: str
    weight: str = ""
    faster: float | None = None

    @property
    def layerdiff(self) -> list[str]:
        """layerdiff's module and arguments."""
        shape = f"x:{'x'.join(map(str, self.load.shape))}"
        words = [*self.words, "--samples", str(self.load.samples), "--shape", shape]
        return ["-m", "layerdiff", self.load.network, *words]

    def floor(self, size: int) -> list[str]:
        """The command of the floor."""
        level = "ORT_DISABLE_ALL" if self.weight else "ORT_ENABLE_ALL"
        feed = f"{self.load.network}{self.load.samples}.npz"
        models = [self.load.network, level, "1", self.candidate, level, "2"]
        return [sys.executable, str(HERE / "floor.py"), feed, str(size * self.load.samples), *models]


def _files(load: Load, what: str, weight: str, faster: float | None = None) -> Case:
    other = f"{load.network}-{weight}.onnx"
    return Case(load, f"two files, {what}", (other, "--onnxrt", "--layers=all"), other, weight, faster)


def _emulation(load: Load, fmt: str, faster: float | None = None) -> Case:
    words = ("--onnxrt", "--emulate", fmt, "--layers")
    return Case(load, f"emulated {fmt.upper()}", words, f"{load.network}-{fmt}.onnx", faster=faster)


CASES = (
    _files(RESNET, "a late weight", "s2b2.3.w", 15),
    _files(RESNET, "a weight of the first block", "s1b0.1.w", 15),
    _emulation(RESNET, "fp16", 10),
    _emulation(RESNET, "bf16"),
    _emulation(RESNET, "int8"),
    _files(SAMPLES, "a weight of the first block", "s1b0.1.w"),
    _emulation(SAMPLES, "fp16"),
    _files(ENCODER, "a weight of the first block", "l0.o.w"),
    _emulation(ENCODER, "fp16"),
)


class Turns:
    """The turns of one way."""

    def __init__(self) -> None:
        self.turns: list[Measured] = []

    def take(self, words: list[str], folder: Path) -> None:
        """Runs a command once more."""
        found = measure(words, folder=folder)
        if found.status not in (0, 1):
            raise RuntimeError(f"{' '.join(words)} ended with {found.status}: {found.stderr[-2000:]}")
        self.turns.append(found)

    @property
    def seconds(self) -> float:
        """Wall-clock time of the fastest turn."""
        return min(turn.seconds for turn in self.turns)

    @property
    def cpu(self) -> float:
        """Seconds of CPU of the turn that took fewest."""
        return min(turn.cpu for turn in self.turns)

    @property
    def memory(self) -> int:
        """Bytes of the turn that took most."""
        return max(turn.peak for turn in self.turns)


@dataclass(frozen=True)
class Counts:
    """What a program asked of ONNX Runtime (`counted`)."""

    passes: float
    sessions: int


@dataclass(frozen=True)
class Row:
    """What was measured of one case.

    Attributes:
        case: The case.
        ours, theirs, floor: layerdiff, Polygraphy, and the floor.
        counts: layerdiff's passes and sessions.
        layers: How many layers were compared.
        right: Whether the changed weight's layer is the one culprit; of an emulation, whether there is none.
    """

    case: Case
    ours: Turns
    theirs: Turns
    floor: Turns
    counts: Counts
    layers: int
    right: bool

    @property
    def missed(self) -> list[str]:
        """The bars that this row misses."""
        faster, memory = self.theirs.seconds / self.ours.seconds, self.ours.memory / self.theirs.memory
        over, aim = self.ours.seconds / self.floor.seconds, self.case.faster
        bars = {
            f"{aim:g} times faster" if aim else "": aim is None or faster >= aim,
            "a quarter of the memory": memory <= MEMORY,
            f"{OVER_FLOOR} times the floor": over <= OVER_FLOOR,
        }
        return [bar for bar, met in bars.items() if not met]

    @property
    def cells(self) -> list[str]:
        """As a row of the table."""
        ours, theirs = self.ours, self.theirs
        return [
            f"{self.case.load.name}: {self.case.what}",
            *(f"{ours.seconds:.1f} s", f"{ours.cpu:.1f} s", f"{ours.memory / 1e9:.2f} GB"),
            f"{theirs.seconds / ours.seconds:.1f} ({theirs.cpu / ours.cpu:.1f})",
            f"{ours.memory / theirs.memory:.2f}",
            f"{ours.seconds / self.floor.seconds:.1f} ({ours.cpu / self.floor.cpu:.1f})",
            *(f"{self.counts.passes:.1f}", self.counts.sessions, self.layers, "yes" if self.right else "**no**"),
            ", ".join(self.missed) or "none",
        ]


def prepare(folder: Path, cases: Sequence[Case]) -> dict[Case, str]:
    """Writes all files. Returns the node that reads the changed weight, for each case that has one."""
    nodes: dict[Case, str] = {}
    for write, network in ((resnet50, RESNET.network), (encoder, ENCODER.network)):
        if any(case.load.network == network for case in cases):
            write(folder / network)
    for case in cases:
        load, rng = case.load, np.random.default_rng(0)
        network, candidate = folder / load.network, folder / case.candidate
        feeds = [rng.random(load.shape, np.float32) for _ in range(load.samples)]
        np.savez(folder / f"{load.network}{load.samples}.npz", **{f"{n}/x": feed for n, feed in enumerate(feeds)})
        if case.weight:
            nodes[case] = changed(network, candidate, case.weight)
        else:
            emulated(network, candidate, case.words[2], {"x": feeds[0]})
    return nodes


def counted(words: Sequence[str], load: Load, folder: Path) -> Counts:
    """Passes over a network and sessions of a Python program."""
    Turns().take([sys.executable, str(HERE / "counted.py"), "counts.json", *words], folder)
    found = json.loads((folder / "counts.json").read_text())
    nodes = onnx.load(folder / load.network, load_external_data=False).graph.node
    products = sum(node.op_type in PRODUCTS for node in nodes)
    return Counts(found["products"] / products / load.samples, found["sessions"])


def run(case: Case, folder: Path, turns: int, node: str) -> Row:
    """One case, in turns."""
    ours, theirs, floor = Turns(), Turns(), Turns()
    size = tensor_bytes(folder / case.load.network, case.load.shape)
    for _ in range(turns):
        floor.take(case.floor(size), folder)
        ours.take([sys.executable, *case.layerdiff], folder)
        theirs.take([sys.executable, *case.load.polygraphy], folder)
    # once more, not timed, for what it found and what it ran: Polygraphy writes no report either
    counts = counted([*case.layerdiff, "--json", "report.json"], case.load, folder)
    report = json.loads((folder / "report.json").read_text())
    named = [c["node"] for c in report["culprits"]]
    return Row(case, ours, theirs, floor, counts, len(report["layers"]), named == ([node] if node else []))


def main() -> int:
    """Runs all in turns and writes the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layerwise", description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3, help="turns (default: 3)")
    parser.add_argument("--only", default="", help="run the cases whose names match this pattern, and print the table")
    parser.add_argument("--output", type=Path, default=DOCS / "layerwise.md", help="file to write")
    options = parser.parse_args()
    cases = [c for c in CASES if re.search(options.only, f"{c.load.name}: {c.what}")]
    if not cases:
        parser.error(f"no case matches {options.only!r}")
    compileall.compile_dir(Path(layerdiff.__file__).parent, quiet=2)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nodes = prepare(folder, cases)
        for case in cases:
            rows.append(run(case, folder, options.turns, nodes.get(case, "")))
            print(*rows[-1].cells, sep=" | ", file=sys.stderr, flush=True)
        loads = dict.fromkeys(case.load for case in cases)
        polygraphy = {load: counted(load.polygraphy, load, folder) for load in loads}
    text = page(rows, polygraphy)
    write_page(options.output, text, dry=bool(options.only))
    return 0 if all(row.right and not row.missed for row in rows) else 1


def page(rows: Sequence[Row], polygraphy: Mapping[Load, Counts]) -> str:
    """The page, as Markdown."""
    told = (__doc__ or "").split("\n\n", 1)[1].strip()
    head = [
        *("", "time", "CPU time", "memory", "times faster than Polygraphy (in CPU time)", "share of its memory"),
        *("times the floor (in CPU time)", "passes", "sessions", "layers", "right", "bars missed"),
    ]
    beside = [
        [
            f"{row.case.load.name}: {row.case.what}",
            *(f"{row.theirs.seconds:.1f} s", f"{row.theirs.cpu:.1f} s", f"{row.theirs.memory / 1e9:.2f} GB"),
            *(f"{polygraphy[row.case.load].passes:.1f}", polygraphy[row.case.load].sessions),
            *(f"{row.floor.seconds:.1f} s", f"{row.floor.cpu:.1f} s"),
        ]
        for row in rows
    ]
    return f"""# Layer by layer, beside Polygraphy

{written_by("benchmarks.layerwise")}

{told}

{machine("polygraphy", "onnxruntime", "numpy")}. Other programs may have run on the machine at the same time: compare
CPU times where seconds scatter.

## layerdiff

{table(head, [row.cells for row in rows])}

*Right*: the changed weight's layer is the one culprit, and an emulation of a sound network has none; Polygraphy names
no culprit. Bars: two files 15 times and emulated FP16 10 times faster than Polygraphy (ResNet-50, batch 8), a quarter
of its memory, {OVER_FLOOR} times the floor.

## What they are held against

Polygraphy with all tensors of one file, twice, and the floor, both run in the same turns.

{table(["", "Polygraphy", "CPU time", "memory", "passes", "sessions", "floor", "CPU time"], beside)}"""


if __name__ == "__main__":
    sys.exit(main())
