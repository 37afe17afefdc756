"""Reports as values, without a run: one of each kind, and large ones."""

from __future__ import annotations

import math
from dataclasses import replace

from layerdiff import Report
from layerdiff.compare.causes.diagnosis import Remark
from layerdiff.compare.report.history import Provenance
from layerdiff.compare.report.inputs import DataInfo, ModelInfo
from layerdiff.compare.report.model import (
    AccuracyResult,
    Cause,
    Culprit,
    Enclosing,
    Fidelity,
    LayerResult,
    Notice,
    OutputResult,
    RunnerResult,
    ToleranceUsed,
)

METRICS = {"count": 4, "mismatched": 1, "max_abs": 0.5, "rel_l2": 1e-3, "snr_db": 60.0, "nan": [0, 0], "inf": [0, 0]}
PLACE = {"value": 0.5, "sample": 1, "index": (0, 3), "reference": 1.0, "candidate": 1.5}
ENCLOSING = Enclosing("loop", "Loop", "body", 10, 4, 2)
LAYER = LayerResult(
    candidate="emulate:fp16",
    tensor="/l/conv/Conv_output_0",
    node="/l/conv/Conv",
    nodes=("/l/conv/Conv", "/l/relu/Relu"),
    op="Conv",
    index=12,
    piece=3,
    local={**METRICS, "max_abs": None},
    cumulative=METRICS,
    expected={"rms_z": 40.0, "gain_sigma": None, "bound_use": 3.1},
    contribution=0.93,
    verdict="culprit",
    cause=Cause.OVERFLOW,
    candidate_node="Conv_7",
    inside=(ENCLOSING,),
    quantized=("/l/conv/Conv",),
)
CULPRIT = Culprit(
    candidate="emulate:fp16",
    node="/l/conv/Conv",
    op="Conv",
    tensors=("/l/conv/Conv_output_0",),
    cause=Cause.OVERFLOW,
    local=METRICS,
    contribution=0.93,
    facts=(Remark("70,000 > 65,504"), Remark("1 of 4 is infinite")),
    candidate_node="Conv_7",
    inside=(ENCLOSING,),
    deployed=False,
)


def output(verdict="pass", candidate="emulate:fp16", tensor="y", count=4, **more) -> OutputResult:
    reason = {"pass": None}.get(verdict, f"{tensor} is {verdict}")
    return OutputResult(
        candidate, tensor, verdict, **{"reason": reason, "metrics": {**METRICS, "count": count}, **more}
    )


def report(*outputs: OutputResult, runners=("onnxrt", "emulate:fp16"), errors=None, **more) -> Report:
    given = {
        "model": ModelInfo("m.onnx", 2, lambda: "0" * 64),
        "data": DataInfo(2, 0, "2 random samples, seed 0", False),
        "provenance": Provenance("0.1.0", "2026-01-02T03:04:05+00:00"),
        **more,
    }
    results = tuple(RunnerResult(name, error=(errors or {}).get(name)) for name in runners)
    return Report(reference="onnxrt", runners=results, outputs=outputs, **given)


def full() -> Report:
    """A report with something in every field."""
    everything = output(
        "fail",
        holds="z",
        exchanged=True,
        transposed=(0, 2, 1),
        tolerance=ToleranceUsed(1e-3, math.inf),
        ties=2,
        worst_sample=1,
        use=math.inf,
        values={"max_abs": PLACE, "histogram": {"-3": 4}},
        decided_by="top1",
        expected={"explained": False, "draws": 4},
    )
    found = report(
        everything,
        output("undecided", tensor="z"),
        candidate_model=ModelInfo("other.onnx", None, lambda: "1" * 64),
        layers=(LAYER, replace(LAYER, inside=(), quantized=(), cause=None, verdict="ok", expected=None)),
        culprits=(CULPRIT, replace(CULPRIT, facts=(), deployed=None, inside=(), contribution=None)),
        fidelity=(Fidelity("emulate:fp16", "y", 1e-3, None, None, False),),
        notices=(Notice("left-out", "tf", "tf is left out."),),
        saved=("worst.npz",),
        accuracy=(AccuracyResult("onnxrt", "top1", 0.5, None, 10, None),),
        provenance=Provenance("0.1.0", "2026-01-02T03:04:05+00:00", "compare m.onnx", {"rtol": 0.1}),
        data=DataInfo(2, None, "2 samples of x.npz", True, ("a note",), lambda: "2" * 64),
    )
    host = {"min": 1.0, "mean": 1.5, "median": 1.4, "p99": 3.0}
    timed = {"host": host, "gpu": None, "device": None, "throughput": 10.0}
    runners = tuple(
        replace(r, options={"a": 1}, versions={"v": "1"}, open_seconds=0.5, latency=timed, notes=("slow",))
        for r in found.runners
    )
    return replace(found, runners=runners)


def many_layers(number: int, outputs: int = 1, culprits: int = 1, name: str = "/encoder/layer.{}/MatMul") -> Report:
    """A report with so many layers."""
    names = [name.format(i) for i in range(number)]
    layers = tuple(
        replace(
            LAYER,
            node=node,
            nodes=(node,),
            tensor=f"{node}_output_0",
            index=i,
            inside=(),
            local={**METRICS, "rel_l2": 1e-4 * (1 + math.sin(i))},
            cumulative={**METRICS, "rel_l2": 1e-3 * (1 + i)},
            verdict="culprit" if i < culprits else "ok",
        )
        for i, node in enumerate(names)
    )
    guilty = tuple(replace(CULPRIT, node=node, tensors=(f"{node}_output_0",), inside=()) for node in names[:culprits])
    bad = tuple(output("fail", tensor=f"out{i}") for i in range(outputs))
    return report(*bad, layers=layers, culprits=guilty)
