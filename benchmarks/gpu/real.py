"""Trained networks on TensorRT with real inputs: verdict, error and expected error of every output.

    python -m benchmarks.gpu.real FOLDER [--names nudenet ...] [--modes fp32 tf32 fp16] [--layers] [--out FILE]
        [--limit SECONDS]

FOLDER holds NAME/model.onnx and NAME/data for each network, as ``python -m benchmarks.gpu.real FOLDER --fetch`` copies
them out of `benchmarks.trained` on a machine with a network, or ``--export`` writes the architectures of
`benchmarks.exported` there, by the older of PyTorch's exporters or, where that cannot, by the newer one. Each result
is one line of JSON in FILE as soon as it is there; a table is printed last. The reference is ONNX Runtime on the CPU,
in FP32.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

from layerdiff import Comparator, EmulateRunner, OnnxrtRunner, Runner, TrtRunner
from layerdiff.dataloaders import as_source

from benchmarks.kit.pages import table
from benchmarks.kit.results import Results, add_options

from .networks import MODES, Told

NAMES = (
    *("nudenet", "ppocr-v4-rec", "ppocr-v4-det", "ppocr-cls", "face-landmarks", "blazeface", "magika"),
    *("open-nsfw", "voice-encoder", "wakeword-embedding", "dnsmos", "plcmos", "basic-pitch"),
)
COLUMNS = ("network", "mode", "output", "verdict", "rel_l2", "expected", "ratio", "use", "culprits")


def fetch(folder: Path, names: list[str]) -> None:
    """Copies networks and their inputs."""
    from benchmarks import trained

    for name in names:
        files = trained.fetch(name)
        (folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(files.model, folder / name / "model.onnx")
        shutil.copytree(files.data, folder / name / "data", dirs_exist_ok=True)


def export(folder: Path) -> list[str]:
    """Writes the networks of `benchmarks.exported`, with random weights, and returns their names."""
    import numpy as np

    from benchmarks.exported.architectures import ARCHITECTURES
    from benchmarks.exported.conversions import exported

    names = []
    for architecture in ARCHITECTURES:
        names.append(architecture.name.replace(", ", "-").replace(" ", "-"))
        target, feed = folder / names[-1], architecture.feed()
        (target / "data").mkdir(parents=True, exist_ok=True)
        np.savez(target / "data" / "0.npz", **feed)
        try:
            exported(architecture, feed, target / "model.onnx", dynamo=False)
        except Exception as error:
            print(f"{names[-1]}: {type(error).__name__} in the older exporter")
            exported(architecture, feed, target / "model.onnx", dynamo=True)
    return names


def run(name: str, mode: str, folder: Path, runner: Runner, layers: bool) -> list[dict]:
    """One network in one mode: a result for each output.

    Raises:
        RuntimeError: The candidate failed.
    """
    report = Comparator(
        folder / name / "model.onnx",
        [OnnxrtRunner(), runner],
        data_loader=as_source(folder / name / "data"),
        layers="guilty" if layers else None,
        progress=Told(f"{name} {mode}"),
    ).compare()
    errors = [r.error for r in report.runners if r.error]
    if errors:
        raise RuntimeError(errors[0])
    found = []
    for output in report.outputs:
        metrics, expected = output.metrics or {}, output.expected or {}
        found.append(
            {
                "network": name,
                "mode": mode,
                "output": output.tensor,
                "verdict": output.verdict,
                "rel_l2": metrics.get("rel_l2"),
                "expected": expected.get("rel_l2"),
                "ratio": expected.get("rms_z"),
                "use": output.use,
                "culprits": " ".join(f"{c.node}:{c.cause}" for c in report.culprits),
                "reason": output.reason,
                "statistics": expected.get("statistics"),
                "evidence": [c.evidence for c in report.culprits],
                "notices": list(report.warnings),
            }
        )
    return found


def row(result: dict) -> list[str]:
    """A result as cells."""
    return [f"{v:.2g}" if isinstance(v := result[c], float) else str(v) for c in COLUMNS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fetch", action="store_true", help="copy the networks into FOLDER, and run nothing")
    parser.add_argument("--export", action="store_true", help="write exports into FOLDER, and run nothing")
    parser.add_argument("--names", nargs="+", default=list(NAMES))
    parser.add_argument("--modes", nargs="+", default=["fp32", "tf32", "fp16"], choices=list(MODES))
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("real.jsonl"))
    add_options(parser, limit=540)
    parser.add_argument("--runner", choices=["trt", "emulate"], default="trt", help="emulate: to rehearse, in FP16")
    arguments = parser.parse_args()
    if arguments.fetch:
        fetch(arguments.folder, arguments.names)
        return
    if arguments.export:
        print(*export(arguments.folder))
        return
    trt = TrtRunner(tactic_sources=arguments.tactic_sources, optimization_level=arguments.optimization_level)
    results = Results(arguments.out, arguments.limit)
    for name in arguments.names:
        for mode in arguments.modes:
            runner = replace(trt, **MODES[mode]) if arguments.runner == "trt" else EmulateRunner(format="fp16")

            def keep(name: str = name, mode: str = mode, runner: Runner = runner) -> None:
                for result in run(name, mode, arguments.folder, runner, arguments.layers):
                    results.add(result)
                    print(*row(result), (result["reason"] or "")[:90], sep=" | ", flush=True)

            results.attempt(f"{name} {mode}", keep)
    print(table(COLUMNS, map(row, results.kept)))


if __name__ == "__main__":
    main()
