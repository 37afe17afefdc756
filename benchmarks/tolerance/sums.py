"""What sums in FP16 cost a healthy network, and what is planted in one: ``python -m benchmarks.tolerance.sums``.

Candidates are emulated with sums in FP16 (`--emulate-fp16-accumulation`). The tables go into docs/tolerance.md,
between their own two marks; ``--dry`` prints them instead. ``--healthy`` leaves out the faults (half a minute instead
of ten). ONNX files, each with its inputs in an ``.npz`` beside it, may be named to be measured too, without faults.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from layerdiff import DataLoader, EmulateRunner, Model
from layerdiff.compare.outputs.emulated_sums import LIKE
from layerdiff.compare.outputs.tolerance import Tolerance, automatic, depths
from layerdiff.graph.formats import FP16, FP32
from layerdiff.graph.index import GraphIndex
from onnx import numpy_helper, parser

from benchmarks.kit.pages import DOCS, table, write_section

from .faults import KINDS, faults
from .networks import LIGHT, Network, light_network, networks
from .running import run
from .shares import DROWNED, Behind, off, use
from .small import small

DIGITS = DOCS.parent / "examples" / "digits"
OUTCOMES = ("within", "like", "unlike", "beyond")
LONG = frozenset(f"light {name}" for name in ("resnet50", "inception_v2", "densenet121", "bvlc_alexnet", "zfnet512"))
"""Networks that no faults are planted in: emulating their sums takes a second or more."""


@dataclass
class Case:
    """A network and what is known of it in FP16.

    Attributes:
        rules: The tolerance of each floating-point output.
        wide, narrow: The greatest share of what is allowed that an element uses, with sums in FP32 and in FP16.
        away: The relative L2 error of the worst sample with sums in FP16.
    """

    network: Network
    reference: list[dict[str, np.ndarray]]
    behind: Behind
    rules: dict[str, Tolerance]
    wide: float
    narrow: float
    away: float

    @property
    def sums(self) -> float:
        """How many times what is allowed sums in FP16 may explain; of several outputs, the least."""
        return min(rule.sums for rule in self.rules.values())

    def share(self, candidate: list[dict[str, np.ndarray]]) -> float:
        """What a candidate uses at most."""
        return max(use(self.reference, candidate, name, rule, self.behind) for name, rule in self.rules.items())

    def verdict(self, candidate: list[dict[str, np.ndarray]]) -> str:
        """What becomes of a candidate that adds in FP16: ``within`` what is allowed, ``like`` the healthy network where
        it exceeds that, ``unlike`` it, or ``beyond`` what such sums may explain."""
        shares = {name: use(self.reference, candidate, name, rule, self.behind) for name, rule in self.rules.items()}
        if any(shares[name] > rule.sums for name, rule in self.rules.items()):
            return "beyond"
        most = max(shares.values())
        return "within" if most <= 1 else "like" if most <= LIKE * self.narrow else "unlike"


def residual(width: int, blocks: int) -> Network:
    """3 x 3 convolutions of one width in residual blocks, pooled and classified; random weights."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(width, 3, 3, 3)) * np.sqrt(2 / 27)}
    nodes = ["a = Conv<pads=[1,1,1,1]>(x, w)", "r0 = Relu(a)"]
    for i in range(blocks):
        for name, gain in (("u", 1.0), ("v", 0.5)):
            weights[f"{name}{i}"] = gain * rng.normal(size=(width, width, 3, 3)) * np.sqrt(2 / (9 * width))
            weights[f"b{name}{i}"] = 0.1 * rng.normal(size=width)
        nodes += [
            f"p{i} = Conv<pads=[1,1,1,1]>(r{i}, u{i}, bu{i})",
            f"q{i} = Relu(p{i})",
            f"s{i} = Conv<pads=[1,1,1,1]>(q{i}, v{i}, bv{i})",
            f"t{i} = Add(s{i}, r{i})",
            f"r{i + 1} = Relu(t{i})",
        ]
    weights["fc"] = 3 * rng.normal(size=(width, 40)) / np.sqrt(width)
    nodes += [f"p = GlobalAveragePool(r{blocks})", "f = Flatten(p)", "y = MatMul(f, fc)"]
    proto = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[1,3,16,16] x) => (float[1,40] y) {{ {" ".join(nodes)} }}'
    )
    proto.graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items())
    feeds = [{"x": rng.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(6)]
    return Network(f"residual, {blocks} blocks of width {width}", proto, feeds)


def cases(files: list[Path]) -> Iterator[Network]:
    """The networks of the other tables, those that are all sums, and the files."""
    digits = onnx.load(DIGITS / "digits.onnx")
    drawn = [dict(feed) for seed in range(8) for feed in DataLoader(seed=seed).bind(Model(digits))]
    yield Network("digits, 32 random batches", digits, drawn)
    held = np.load(DIGITS / "heldout.npz")["image"]
    yield Network("digits, held-out images", digits, [{"image": held[i : i + 72]} for i in range(0, len(held), 72)])
    yield from (residual(64, 4), residual(256, 4))
    yield from (network for network in networks(light=False) if "batch" not in network.name)
    yield from map(light_network, LIGHT)
    yield from small()
    for path in files:
        stored = dict(np.load(path.with_suffix(".npz")))
        rows = min(len(v) for v in stored.values())
        yield Network(path.stem, onnx.load(path), [{k: v[i : i + 1] for k, v in stored.items()} for i in range(rows)])


def emulate(proto: onnx.ModelProto, network: Network, narrow: bool) -> tuple[list[dict[str, np.ndarray]], frozenset]:
    """The outputs in FP16, and the nodes that add in it."""
    with EmulateRunner(fp16_accumulation=narrow).open(Model(proto)) as session:
        return [session.infer(feed) for feed in network.feeds], session.info.fp16_accumulation


def measured(network: Network) -> Case | None:
    """A healthy network; None where nothing adds in FP16."""
    index = GraphIndex(network.proto)
    narrow, nodes = emulate(network.proto, network, narrow=True)
    if not nodes:
        return None
    reference = run(network.proto, network.feeds)
    deep = depths(index, narrow=nodes)
    rules = {
        name: automatic(index, name, [FP32, FP16], value.dtype, depths=deep)
        for name, value in reference[0].items()
        if value.dtype.kind == "f"
    }
    case = Case(network, reference, Behind(network, index, reference), rules, 0.0, 0.0, 0.0)
    case.wide = case.share(emulate(network.proto, network, narrow=False)[0])
    case.narrow = case.share(narrow)
    case.away = max(off(reference, narrow, name) for name in rules)
    return case


def planted(network: Network, found: dict[str, Counter]) -> None:
    """What becomes of each fault, in the first sample of a network whose products add in FP16."""
    case = measured(Network(network.name, network.proto, network.feeds[:1]))
    if case is None:
        return
    for fault in faults(network.proto):
        tally = found[fault.kind]
        try:
            alone = case.share(run(fault.proto, case.network.feeds))
            candidate, _ = emulate(fault.proto, case.network, narrow=True)
        except Exception as error:  # the fault made a graph that ONNX Runtime refuses: no case
            print(f"  {fault.kind} at {fault.node}: {str(error).splitlines()[0][:120]}", file=sys.stderr)
            continue
        kind = "drowned" if alone <= DROWNED * case.narrow else "planted"
        tally[kind] += 1
        tally[kind, case.verdict(candidate)] += 1


def measure(files: list[Path], healthy: bool) -> str:
    """The tables."""
    rows = []
    found: dict[str, Counter] = {kind: Counter() for kind in KINDS}
    for network in cases(files):
        began = time.perf_counter()
        case = measured(network)
        if case is None:
            continue
        first = next(iter(case.rules.values()))
        shares = [f"{value:.2f}" for value in (case.wide, case.narrow, case.sums)]
        rows.append([network.name, str(first.depth), *shares, f"{case.away:.2g}"])
        if not healthy and network.name not in LONG and network.name not in {p.stem for p in files}:
            planted(network, found)
        print(f"{network.name}: {case.narrow:.2f}, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    told = table(["network", "depth", "sums in FP32", "sums in FP16", "t' / t", "rel. L2 error, FP16 sums"], rows)
    if healthy:
        return told
    total: Counter = sum(found.values(), Counter())
    faulty = table(
        ["fault", "planted", *OUTCOMES, "drowned", *OUTCOMES],
        [
            [kind, *(str(tally[key]) for w in ("planted", "drowned") for key in (w, *((w, o) for o in OUTCOMES)))]
            for kind, tally in [*((k, t) for k, t in found.items() if t), ("all", total)]
        ],
    )
    return f"{told}\n\n{faulty}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("files", nargs="*", type=Path)
    options.add_argument("--healthy", action="store_true", help="without faults")
    options.add_argument("--dry", action="store_true", help="print the tables, leave docs/tolerance.md alone")
    chosen = options.parse_args()
    write_section(DOCS / "tolerance.md", measure(chosen.files, chosen.healthy), dry=chosen.dry, section="sums in FP16")


if __name__ == "__main__":
    main()
