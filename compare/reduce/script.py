"""The script of a bundle: shows the difference with the runtimes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...graph.errors import UsageError
from ...runners.emulate import EmulateRunner
from ...runners.onnxrt.config import LEVELS, OnnxrtConfig
from ...runners.trt.runner import TrtRunner
from ...runners.trt.trt_rtx import RtxRunner

if TYPE_CHECKING:
    from ...runners.contract.runner import Runner

HEAD = '''\
"""{title}

{needs}
"""

import sys
from pathlib import Path

import numpy as np
{imports}
HERE = Path(__file__).parent
ALLOWED = {allowed!r}  # {test}
inputs = dict(np.load(HERE / "inputs.npz"))

'''
ORT = """
def onnxruntime_on(file, level, providers=(), without=()):
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    providers = [*providers, "CPUExecutionProvider"]
    session = ort.InferenceSession(str(HERE / file), options, providers, disabled_optimizers=list(without))
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    feed = {i.name: inputs[i.name].astype(types.get(i.type, inputs[i.name].dtype)) for i in session.get_inputs()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed)))

"""
TENSORRT = """
def tensorrt_on(file, type=None, **settings):
    builder, network, parser = network_from_onnx_path(str(HERE / file))
    for layer in network if type else ():  # a small network would run in FP32, which is faster for it
        for i in range(layer.num_outputs):
            if layer.get_output(i).dtype == trt.float32 and layer.type != trt.LayerType.CONSTANT:
                layer.precision = type
                layer.set_output_type(i, type)
        settings["precision_constraints"] = "prefer"
    profile = Profile()
    for name, array in inputs.items():
        profile.add(name, array.shape, array.shape, array.shape)
    config = CreateConfig(profiles=[profile], **settings)
    with TrtRunner(EngineFromNetwork((builder, network, parser), config)) as runner:
        return {name: np.array(array) for name, array in runner.infer(inputs).items()}

"""
NARROW = {"fp16": "float16", "bf16": "bfloat16"}
IMPORTS = {
    "onnxruntime_on": "import onnxruntime as ort\n",
    "tensorrt_on": "import tensorrt as trt\n"
    "from polygraphy.backend.trt import CreateConfig, EngineFromNetwork, Profile, TrtRunner\n"
    "from polygraphy.backend.trt import network_from_onnx_path\n",
}
TAIL = """
expected = {reference}
found = {candidate}
failed = False
for name, array in expected.items():
    if array.shape != found[name].shape:
        print(f"{{name}}: shape {{array.shape}} expected, {{found[name].shape}} found")
        failed = True
        continue
    a, b = array.astype(np.float64), found[name].astype(np.float64)
    difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, b - a)
    error = np.linalg.norm(difference) / (np.linalg.norm(a[np.isfinite(a)]) or 1)
    worst = np.unravel_index(np.nanargmax(np.abs(difference)), a.shape) if np.isfinite(error) else ()
    if np.isfinite(error):
        print(f"{{name}}: relative L2 error {{error:.3g}}, allowed {{ALLOWED:.3g}}")
    else:
        print(f"{{name}}: {{np.sum(~np.isfinite(difference)):,}} of {{a.size:,}} values differ by infinity or NaN")
    for place in [worst] if worst else np.argwhere(~np.isfinite(difference))[:3]:
        print(f"  at {{[int(i) for i in place]}}: {{a[tuple(place)]}} expected, {{b[tuple(place)]}} found")
    failed = failed or not error <= ALLOWED
print("DIFFERENT" if failed else "the same")
sys.exit(failed)
"""


def script(
    title: str,
    allowed: float,
    test: str,
    reference: Runner | None,
    candidate: Runner,
    same: bool,
    narrow: str = "",
) -> str:
    """A script that runs both sides on files beside it, prints how they differ, and exits with 1 if they do.

    Args:
        title: One sentence on what it shows.
        allowed: The relative L2 error that is no difference.
        test: Where that number comes from.
        reference: What runs ``reference.onnx``; None: what it gave is in ``expected.npz``.
        candidate: What runs ``candidate.onnx``.
        same: Whether the candidate runs ``reference.onnx``, too.
        narrow: The number format that TensorRT's layers are to run in and to give; empty: what TensorRT chooses.

    Raises:
        UsageError: The candidate is a runner that no script can name.
    """
    one = 'dict(np.load(HERE / "expected.npz"))' if reference is None else _call(reference, "reference.onnx")
    other = _call(candidate, "reference.onnx" if same else "candidate.onnx", narrow)
    used = [name for name in IMPORTS if f"{name}(" in one + other]
    needs = {"onnxruntime_on": "onnxruntime", "tensorrt_on": "tensorrt, polygraphy (which calls it)"}
    head = HEAD.format(
        title=title,
        needs=f"Needs numpy, {' and '.join(needs[name] for name in used)}.",
        imports="".join(IMPORTS[name] for name in used),
        allowed=float(f"{allowed:.3g}"),
        test=test,
    )
    bodies = {"onnxruntime_on": ORT, "tensorrt_on": TENSORRT}
    return head + "\n".join(bodies[name] for name in used) + TAIL.format(reference=one, candidate=other)


def runs(runner: Runner) -> bool:
    """Whether a script can run ONNX files as a runner does."""
    return isinstance(runner, (OnnxrtConfig, EmulateRunner, TrtRunner)) and not isinstance(runner, RtxRunner)


def narrowest(runner: Runner) -> str:
    """The format of 16 bits that TensorRT may use beside FP32: small networks do not use it unless they are told to."""
    modes = runner.modes if isinstance(runner, TrtRunner) else ()
    return next((mode for mode in ("fp16", "bf16") if mode in modes), "")


def _call(runner: Runner, file: str, narrow: str = "") -> str:
    """The expression that gives a runner's outputs on a file."""
    if isinstance(runner, EmulateRunner):  # the casts are in the file
        from ...runners.emulate import UNFUSED

        return f"onnxruntime_on({file!r}, 'ORT_ENABLE_ALL', without={list(UNFUSED)})"
    if isinstance(runner, OnnxrtConfig):
        told = [repr(file), repr(LEVELS[runner.optimization])]
        if runner.providers:
            told.append(repr(runner.providers))
        if runner.disabled_optimizers:
            told.append(f"without={list(runner.disabled_optimizers)}")
        return f"onnxruntime_on({', '.join(told)})"
    if isinstance(runner, TrtRunner) and not runner.strongly_typed and not {"int8", "fp8"} & {*runner.modes}:
        settings = [f"{mode}=True" for mode in runner.modes]
        if runner.tactics:
            settings.append(f"tactic_sources=[{', '.join(f'trt.TacticSource.{name}' for name in runner.tactics)}]")
        if runner.optimization_level is not None:
            settings.append(f"builder_optimization_level={runner.optimization_level}")
        if narrow:
            settings.insert(0, f"trt.{NARROW[narrow]}")
        return f"tensorrt_on({', '.join([repr(file), *settings])})"
    raise UsageError(f"{runner.name} cannot be run by a script of its own.")
