"""Damaged files of TensorFlow, Keras and TFLite: a verdict, or one line that says what is wrong; never a traceback.

They take seconds each: of ``LAYERDIFF_FUZZ=10000 pytest tests/fuzz``, a hundredth of each kind.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.fuzzing import ASKED, FORKS, damaged_bytes, damaged_message, examples, hold, written_json

pytestmark = pytest.mark.skipif(not FORKS, reason="needs Linux")
pytest.importorskip("tensorflow")
FRESH = "LAYERDIFF_FUZZ_FRESH"

WRITE = """
import sys
import keras, tensorflow as tf
from pathlib import Path
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
folder = Path(sys.argv[1])
keras.utils.set_random_seed(0)
x = keras.Input((4,), batch_size=2, name="x")
h = keras.layers.Dense(8, activation="relu", name="h")(x)
model = keras.Model(x, keras.layers.Dense(3, name="y")(h))
model.save(folder / "m.keras")
model.save(folder / "m.h5")
model.export(folder / "saved", verbose=False)
function = tf.function(model, autograph=False).get_concrete_function(tf.TensorSpec((2, 4), tf.float32, name="x"))
graph = convert_variables_to_constants_v2(function).graph.as_graph_def()
(folder / "m.pb").write_bytes(graph.SerializeToString())
(folder / "m.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved")).convert())
"""
"""Writes one network in every kind of file, in a process of its own: copies of one that has used TensorFlow hang."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with the files, and all that a command imports loaded into this process, unused."""
    folder = tmp_path_factory.mktemp("prepared")
    subprocess.run([sys.executable, "-c", WRITE, str(folder)], check=True, capture_output=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras  # noqa: F401
    import tf2onnx.convert  # noqa: F401

    return folder


def with_tensorflow(name: str, draw: random.Random) -> list[str]:
    return [name, *draw.choice((["--onnxrt", "--tf"], ["--onnxrt", "--onnxrt"], ["--tf", "--emulate", "fp16"]))]


def damage(path: Path, draw: random.Random) -> None:
    path.write_bytes(damaged_bytes(path.read_bytes(), draw))


def saved_models(folder: Path, draw: random.Random) -> list[str]:
    damage(draw.choice(sorted(path for path in (folder / "saved").rglob("*") if path.is_file())), draw)
    return with_tensorflow("saved", draw)


def frozen_graphs(folder: Path, draw: random.Random) -> list[str]:
    from tensorflow.core.framework.graph_pb2 import GraphDef

    path = folder / "m.pb"
    if draw.random() < 0.5:
        damage(path, draw)
    else:
        path.write_bytes(damaged_message(GraphDef.FromString(path.read_bytes()), draw).SerializeToString())
    return with_tensorflow("m.pb", draw)


def keras_files(folder: Path, draw: random.Random) -> list[str]:
    path = folder / "m.keras"
    if draw.random() < 0.5:
        damage(path, draw)
    else:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as whole, zipfile.ZipFile(path, "w") as made:
            for name in whole.namelist():
                content = whole.read(name)
                config = name == "config.json"
                made.writestr(name, written_json(json.loads(content), draw) if config else content)
    return with_tensorflow("m.keras", draw)


def hdf5_files(folder: Path, draw: random.Random) -> list[str]:
    damage(folder / "m.h5", draw)
    return with_tensorflow("m.h5", draw)


def tflite_files(folder: Path, draw: random.Random) -> list[str]:
    damage(folder / "m.tflite", draw)
    return ["m.tflite", "--onnxrt", draw.choice(("--tflite", "--onnxrt"))]


KINDS = {f.__name__: f for f in (saved_models, frozen_graphs, keras_files, hdf5_files, tflite_files)}


@pytest.mark.skipif(FRESH not in os.environ, reason="runs in a process of its own, see below")
@pytest.mark.parametrize("kind", KINDS)
@examples(-(-ASKED // 100), few=2)
@given(seed=st.integers(0, 2**48))
def test_damaged_tensorflow_file(kind, prepared, seed):
    hold(kind, KINDS[kind], prepared, seed)


def test_damaged_files_in_a_process_that_has_not_used_tensorflow():
    """Each attempt is a copy of its process, and copies of one in which another test has used TensorFlow hang."""
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "test_damaged_tensorflow_file",
    ]
    done = subprocess.run(words, env={**os.environ, FRESH: "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(KINDS)} passed" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        "saved --onnxrt --tf",
        "m.pb --onnxrt --tf",
        "m.keras --onnxrt --tf",
        "m.h5 --onnxrt --tf",
        "m.tflite --onnxrt --tflite",
    ],
)
def test_the_files_are_good_before_they_are_damaged(words, prepared, tmp_path):
    folder = tmp_path / "here"
    shutil.copytree(prepared, folder)
    done = subprocess.run([sys.executable, "-m", "layerdiff", *words.split(), "-q"], cwd=folder, capture_output=True)
    assert done.returncode == 0
