"""Measures memory and time against the size of what is checked: ``python -m benchmarks.memory``.

Three questions. Can a model of 6 GiB be checked layer by layer in 2 GiB? Does memory stay flat, and time linear, as
samples are added? And as layers are added? Every run is the ``layerdiff`` command in a process of its own, on a pair of
which one layer's weights were rounded to FP16, and must name that layer. The tables go into docs/memory.md, between the
two marks there; ``--dry`` prints them instead. The model is made in ``--folder`` (7 GB) and deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx

from benchmarks.kit.pages import DOCS, machine, table, write_section
from benchmarks.kit.process import Measured, measure, memory_group

from .networks import convolutions, large_pair, with_stale_layer

DOC = DOCS / "memory.md"
LAYERS, WIDTH, STALE = 24, 8192, 13
"""The large model: 24 matrices of 256 MiB."""
LIMIT = 2 << 30
BUDGET = "512MB"
SAMPLES = (1, 2, 4, 8, 16, 32)
DEPTHS = (10, 20, 40, 80, 160, 320)


def check(paths: Sequence[Path], culprit: str, *options: str, group: Path | None = None) -> tuple[Measured, dict]:
    """Runs the command, and makes sure that it found what is wrong.

    Raises:
        RuntimeError: It did not run to its end, blames nobody or another layer.
    """
    command = [os.fspath(Path(sys.executable).with_name("layerdiff")), *map(os.fspath, paths), "--onnxrt", "--layers"]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "report.json"
        found = measure([*command, *options, "--json", os.fspath(result)], group=group)
        if found.status not in (0, 1):  # a layer may be off while the outputs agree
            raise RuntimeError(f"exit status {found.status}:\n{found.stdout[-2000:]}\n{found.stderr[-2000:]}")
        report = json.loads(result.read_text(encoding="utf-8"))
    named = [c["node"] for c in report["culprits"]]
    if named != [culprit]:
        raise RuntimeError(f"{culprit} was expected to be the culprit, not {named}")
    return found, report


def forget(folder: Path) -> None:
    """Has the system drop the files of a folder from its cache, so that they are read from the disk again."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def large(folder: Path) -> str:
    """The table of the model that is larger than the memory it may use."""
    rows = []
    with tempfile.TemporaryDirectory(dir=folder, prefix="layerdiff-large-") as name:
        place = Path(name)
        paths = large_pair(place, layers=LAYERS, width=WIDTH, stale=STALE)
        size = sum(p.stat().st_size for p in place.iterdir())
        for samples in (1, 4):
            forget(place)
            options = ("--memory", BUDGET, "--samples", str(samples))
            rows.append(
                _row(f"no limit, {samples} sample{'s'[: samples > 1]}", check(paths, f"product{STALE}", *options)[0])
            )
        with memory_group(LIMIT) as group:
            label = f"control group of {LIMIT >> 30} GiB"
            if group is None:
                rows.append([label, "none can be had here", "", "", "", ""])
            else:
                forget(place)
                found, _ = check(paths, f"product{STALE}", "--samples", "1", group=group)
                rows.append(_row(f"{label}, 1 sample, no --memory", found))
    text = f"{LAYERS} products of {4 * WIDTH * WIDTH >> 20} MiB; files of {size / 2**30:.2f} GiB, read from the disk."
    return f"{text}\n\n{table(['run', *COLUMNS], rows, numbers=True)}"


def samples(folder: Path) -> str:
    """The table over the number of samples."""
    model = convolutions(layers=24, channels=64, size=56)
    paths = _written(folder, model, "w9")
    rows = [_row(str(n), check(paths, "conv9", "--memory", BUDGET, "--samples", str(n))[0], per=n) for n in SAMPLES]
    return table(["samples", *COLUMNS, "CPU ms per sample"], rows, numbers=True)


def depths(folder: Path) -> str:
    """The table over the number of layers."""
    rows = []
    for n in DEPTHS:
        model = convolutions(layers=n, channels=32, size=28)
        stale = n // 2
        paths = _written(folder, model, f"w{stale}")
        found, report = check(paths, f"conv{stale}", "--memory", BUDGET, "--samples", "2")
        rows.append([str(n), str(report["model"]["nodes"]), *_row("", found, per=n)[1:]])
    return table(["convolutions", "nodes", *COLUMNS, "CPU ms per convolution"], rows, numbers=True)


COLUMNS = ("seconds", "CPU seconds", "peak MiB", "of its own", "of files")


def _row(label: str, found: Measured, per: int = 0) -> list[str]:
    mib = (found.peak >> 20, found.anonymous >> 20, found.files >> 20)
    row = [label, f"{found.seconds:.1f}", f"{found.cpu:.1f}", *map(str, mib)]
    print(*row, sep="\t", file=sys.stderr)
    return [*row, f"{1000 * found.cpu / per:.0f}"] if per else row


def _written(folder: Path, model: onnx.ModelProto, stale: str) -> tuple[Path, Path]:
    paths = folder / "net.onnx", folder / "candidate.onnx"
    onnx.save(model, paths[0])
    onnx.save(with_stale_layer(model, stale), paths[1])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the models are made")
    parser.add_argument("--dry", action="store_true", help="print the tables, leave docs/memory.md alone")
    options = parser.parse_args()
    first = large(options.folder)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="layerdiff-growth-") as folder:
        second, third = samples(Path(folder)), depths(Path(folder))
    text = f"""Measured on {machine("onnxruntime")}.

### 6 GiB of weights in 2 GiB of memory

{first}

### Number of samples

24 convolutions of 64 channels, 56x56, batch 8, `--memory {BUDGET}`.

{second}

### Number of layers

Convolutions of 32 channels, 28x28, batch 8, 2 samples, `--memory {BUDGET}`.

{third}"""
    write_section(DOC, text, dry=options.dry)


if __name__ == "__main__":
    main()
