"""A runner in a process of its own: what it is given there is what can be pickled, and nothing else."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

from layerdiff.graph.model import Model
from layerdiff.runners.contract.runner import Runner

from support import trt_standin
from support.paths import SUPPORT


def elsewhere(runner: Runner, model: Model, feed, tensorrt: str | None = None) -> dict:
    """What ``runner`` gives for ``feed`` on a piece that is the whole of ``model``, in a fresh process.

    Args:
        runner: The configuration, which is pickled.
        model: The model.
        feed: Its inputs.
        tensorrt: A version of TensorRT that the stand-in is to be there; None: none.

    Returns:
        ``outputs``, and of the stand-in ``pins``: the formats that layers were held to.
    """
    job = pickle.dumps((runner, model.serialized(), feed, tensorrt))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(SUPPORT.parent), os.environ.get("PYTHONPATH")))),
    }
    done = subprocess.run(
        [sys.executable, "-m", "support.elsewhere"], input=job, capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return pickle.loads(done.stdout)


def run(runner: Runner, serialized: bytes, feed, tensorrt: str | None) -> dict:
    """What `elsewhere` returns, here."""
    import onnx

    pins = []
    if tensorrt is not None:
        from layerdiff.runners.trt import cuda

        module, fake = trt_standin.make(tensorrt), trt_standin.FakeCuda()
        sys.modules["tensorrt"] = module
        cuda.gpu, cuda.runtime = lambda: "Stand-in GPU", lambda: fake
    model = Model(onnx.ModelProto.FromString(serialized))
    with runner.open(model.derive(model.proto)) as session:
        outputs = session.infer(feed)
    if tensorrt is not None:
        pins = [call[2].name for call in module.calls if call[:2] == ("ILayer", "precision")]
    return {"outputs": outputs, "pins": pins}


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(run(*pickle.load(sys.stdin.buffer))))
