"""Options belong to a runner: what may stand behind ``--RUNNER=``, and what two runners of a kind are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from layerdiff import EmulateRunner, OnnxrtRunner, Runner, TfliteRunner, TfRunner, TrtRunner, UsageError
from layerdiff.compare.cli.arguments import parse
from layerdiff.graph.options import Choice, Size, Threads, Whole, option
from layerdiff.runners.contract.naming import distinct_names
from layerdiff.runners.contract.options import options_of


@dataclass(frozen=True)
class Mine(Runner):
    """A runner with an option of each kind, and an open-ended value."""

    flag: ClassVar[str] = "mine"
    value_field: ClassVar[str] = "where"

    where: str = "here"
    level: str = option("low", "--mine-level", "how much", Choice("low", "high"))
    loud: bool = option(False, "--mine-loud", "say it loudly")
    runs: int = option(1, "", "how often", Whole(1))
    room: int | None = option(None, "--mine-room", "how much room", Size())
    shift: int = option(0, "", "a whole number, as its default is")
    scale: float = option(1.0, "", "a number, as its default is")
    files: tuple[str, ...] = option((), "--mine-file", "a file; may be repeated")

    def open(self, model):
        raise NotImplementedError


VALUES = [
    (None, {}),
    ("there", {"where": "there"}),
    ("/a/B:c", {"where": "/a/B:c"}),
    ("where=a=b", {"where": "a=b"}),
    ("where=a,,b", {"where": "a,b"}),
    ("where=,,", {"where": ","}),
    ("level=HIGH", {"level": "high"}),
    ("Level=high", {"level": "high"}),
    ("loud", {"loud": True}),
    ("LOUD", {"loud": True}),
    ("loud=no", {"loud": False}),
    ("loud=True", {"loud": True}),
    ("there,loud,runs=3", {"where": "there", "loud": True, "runs": 3}),
    ("runs=3,there", {"where": "there", "runs": 3}),
    ("room=2KiB", {"room": 2048}),
    ("shift=-3,scale=0.5", {"shift": -3, "scale": 0.5}),
    ("files=a", {"files": ("a",)}),
    ("files=a,files=b=c,,d", {"files": ("a", "b=c,d")}),
    ("level=high,level=HIGH", {"level": "high"}),
]


@pytest.mark.parametrize(("value", "fields"), VALUES)
def test_a_value_is_a_list_of_words_and_settings(value, fields):
    assert Mine.from_value(value) == Mine(**fields)


@pytest.mark.parametrize(
    ("kind", "value", "runner"),
    [
        (OnnxrtRunner, "cpu,optimization=disable", OnnxrtRunner(optimization="disable")),
        (OnnxrtRunner, "CUDA,tf32", OnnxrtRunner(provider="cuda", tf32=True)),
        (OnnxrtRunner, "custom-ops=a.so,custom_ops=b.so", OnnxrtRunner(custom_ops=("a.so", "b.so"))),
        (EmulateRunner, "FP16,decomposed", EmulateRunner(decomposed=True)),
        (EmulateRunner, "int8,percentile=99.9", EmulateRunner(format="int8", percentile=99.9)),
        (TfRunner, "gpu,tf32", TfRunner(device="gpu", tf32=True)),
        (TrtRunner, "fp16,int8,calibrator=minmax", TrtRunner(fp16=True, int8=True, calibrator="minmax")),
        (TrtRunner, "fp16+int8,minmax", TrtRunner(fp16=True, int8=True, calibrator="minmax")),
        (TrtRunner, "fp16,keep=conv1,keep=fc", TrtRunner(fp16=True, keep=("conv1", "fc"))),
        (TrtRunner, "workspace=4GiB,plugins=a+b.so", TrtRunner(workspace=4 << 30, plugins=("a+b.so",))),
        (
            TrtRunner,
            "tactic_sources=jit_convolutions,,edge_mask",
            TrtRunner(tactic_sources="jit_convolutions,edge_mask"),
        ),
    ],
)
def test_every_runner_takes_its_options_behind_its_name(kind, value, runner):
    assert kind.from_value(value) == runner


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "lvel=high",
            "--mine=lvel=high: there is no option 'lvel'; did you mean level? The options are where, level, ",
        ),
        ("level=mid", "--mine=level=mid: expected low or high."),
        ("level=hihg", "--mine=level=hihg: expected low or high; did you mean high?"),
        ("loud=perhaps", "--mine=loud=perhaps: expected true or false."),
        ("runs=0", "--mine=runs=0: expected a whole number, 1 or more."),
        ("room=lots", "--mine=room=lots: expected a size such as 512MB or 2GiB."),
        ("loud,runs=x", "--mine=loud,runs=x: runs=x: expected a whole number"),
        (
            "level=low,level=high",
            "--mine=level=low,level=high: level is given twice, as low and high. Name two runners.",
        ),
        ("here,there", "where is given twice, as here and there"),
        ("", "--mine=: expected loud. Further options: level, runs, room, shift, scale, files."),
    ],
)
def test_what_means_nothing_is_refused_with_the_nearest_and_the_list(value, message):
    with pytest.raises(UsageError) as refused:
        Mine.from_value(value)
    assert message.rstrip() in str(refused.value)


def test_an_unknown_word_is_refused_with_the_values_and_the_nearest():
    with pytest.raises(
        UsageError, match=r"--onnxrt=cdua: expected cpu, cuda, tensorrt, openvino, .*; did you mean cuda\? Further opt"
    ):
        OnnxrtRunner.from_value("cdua")


def test_options_of_a_class_that_is_no_dataclass_are_not_lost():
    class Careless(Runner):
        level: int = option(1, "--level", "how much")

        def open(self, model):
            raise NotImplementedError

    with pytest.raises(
        UsageError, match=r"Careless.level is an option: write @dataclass\(frozen=True\) above the class"
    ):
        options_of(Careless)


def runners(line: str) -> tuple[Runner, ...]:
    return parse(["m.onnx", *line.split()]).runners


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "--onnxrt=optimization=disable --onnxrt=optimization=all",
            (OnnxrtRunner(optimization="disable"), OnnxrtRunner()),
        ),
        (
            "--onnxrt --ort-optimization Basic --onnxrt=optimization=all",
            (OnnxrtRunner(optimization="basic"), OnnxrtRunner()),
        ),
        ("--onnxrt --onnxrt --ort-threads 2 --ort-threads 2", (OnnxrtRunner(threads=2), OnnxrtRunner(threads=2))),
        (
            "--onnxrt=custom_ops=a --emulate fp16 --ort-custom-ops b --ort-custom-ops c",
            (OnnxrtRunner(custom_ops=("a",)), EmulateRunner(custom_ops=("b", "c"))),
        ),
        ("--emulate FP16 --emulate=fp16,decomposed", (EmulateRunner(), EmulateRunner(decomposed=True))),
        ("--trt --trt=fp32 --fp16", (TrtRunner(fp16=True), TrtRunner())),
        ("--trt=optimization_level=3 --onnxrt --fp16", (TrtRunner(fp16=True, optimization_level=3), OnnxrtRunner())),
        (
            "--trt=int8,minmax --trt=int8 --int8-qdq max",
            (TrtRunner(int8=True, calibrator="minmax"), TrtRunner(int8=True, int8_qdq="max")),
        ),
    ],
)
def test_a_long_option_is_the_default_of_all_runners_of_its_kind(line, expected):
    assert runners(line) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--onnxrt --onnxrt --ort-optimization basic --ort-optimization all",
            "--ort-optimization is given twice, as basic and all. For two runners: --onnxrt=optimization=basic "
            "--onnxrt=optimization=all.",
        ),
        (
            "--onnxrt --emulate fp16 --fp16",
            "--fp16 is for --trt or --trt-rtx, and no runner was named that it applies to.",
        ),
        (
            "--onnxrt --trt=fp16 --int8",
            "--int8: every --trt here says what it takes. Write it there: --trt=...,int8.",
        ),
        (
            "--onnxrt=threads=2 --onnxrt=threads=3 --ort-threads 4",
            "--ort-threads: every --onnxrt here says what it takes. Write it there: --onnxrt=...,threads=N.",
        ),
        ("--onnxrt --ort-threads x", f"--ort-threads x: expected {Threads().expected}."),
        ("--trt=minmax --onnxrt", "--trt=minmax is a way to INT8; write --trt=int8,minmax."),
    ],
)
def test_a_long_option_that_contradicts_or_applies_to_nobody_is_refused(line, message):
    with pytest.raises(UsageError) as refused:
        runners(line)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("--onnxrt --onnxrt", ["onnxrt", "onnxrt#2"]),
        ("--onnxrt=optimization=disable --onnxrt=optimization=all", ["onnxrt:optimization=disable", "onnxrt"]),
        (
            "--onnxrt=optimization=disable --onnxrt=optimization=basic,threads=2",
            ["onnxrt:optimization=disable", "onnxrt:optimization=basic,threads=2"],
        ),
        (
            "--onnxrt=threads=2,optimization=disable --onnxrt=threads=2",
            ["onnxrt:optimization=disable", "onnxrt"],
        ),
        ("--onnxrt=cuda,tf32 --onnxrt=cuda --onnxrt", ["onnxrt:cuda,tf32", "onnxrt:cuda", "onnxrt"]),
        ("--emulate fp16 --emulate=fp16,decomposed", ["emulate:fp16", "emulate:fp16,decomposed"]),
        ("--trt=fp16 --trt=fp16,keep=a,,b", ["trt:fp16", "trt:fp16,keep=a,,b"]),
        (
            "--onnxrt=optimization=disable --onnxrt --onnxrt=optimization=disable",
            ["onnxrt:optimization=disable", "onnxrt", "onnxrt:optimization=disable#2"],
        ),
    ],
)
def test_two_of_a_kind_are_told_apart_by_the_options_in_which_they_differ(line, names):
    assert distinct_names(runners(line)) == names


def test_a_setting_in_a_name_is_what_the_command_line_takes():
    runner = TrtRunner(fp16=True, keep=("a,b", "c=d"))
    name = distinct_names([TrtRunner(fp16=True), runner])[1]
    assert TrtRunner.from_value(name.removeprefix("trt:")) == runner


def test_runners_of_two_classes_with_one_name_are_no_determinism_check():
    class Other(Mine):
        pass

    mine, other = (f"{cls.__module__}:{cls.__qualname__}" for cls in (Mine, Other))
    assert distinct_names([Mine(), Other(), Mine()]) == [mine, other, f"{mine}#2"]


@pytest.mark.parametrize("runner", [OnnxrtRunner, EmulateRunner, TfliteRunner])
def test_more_threads_than_a_machine_can_run_are_refused(runner):
    runner(threads=64)
    with pytest.raises(UsageError, match=r"expected a whole number from 0 to .* on a machine of .* cores"):
        runner(threads=100_000)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: TrtRunner(tactic_sources=("a", "b")), "tactic_sources=('a', 'b'): expected a text."),
        (lambda: TrtRunner(engine=3), "engine=3: expected a text."),
        (lambda: OnnxrtRunner(custom_ops=(1,)), "custom_ops=(1,): expected texts."),
        (lambda: Mine(shift="3"), "shift='3': expected a whole number."),
        (lambda: Mine(scale="3"), "scale='3': expected a number."),
        (lambda: Mine(files=(1, 2)), "files=(1, 2): expected texts."),
    ],
)
def test_a_value_of_another_type_is_refused_as_the_runner_is_made(make, told):
    with pytest.raises(UsageError) as refused:
        make()
    assert str(refused.value) == told


def test_values_of_the_declared_types_and_paths_are_taken():
    assert TrtRunner(tactic_sources="a,b", engine=Path("a.plan")).tactics == ("A", "B")
    assert Mine(shift=np.int64(3), scale=2, files=Path("a")).files == ("a",)
