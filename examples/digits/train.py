"""Makes the files of this folder: a small residual CNN for scikit-learn's handwritten digits, in three formats.

::

    pip install 'layerdiff[tf]' scikit-learn
    python examples/digits/train.py            # a quarter of a minute on two cores

writes, beside this script,

- ``digits.keras``  the Keras model,
- ``digits.pb``     the same as a frozen TensorFlow graph, input ``image:0``, output ``probabilities:0``,
- ``digits.onnx``   the frozen graph, converted by tf2onnx to opset 17: input ``image``, output ``probabilities``,
- ``heldout.npz``   the 360 images it was not trained on, as one batch under the input's name ``image``,
- ``labels.npy``    their labels (int64).

The images are real: 8 x 8 pixels with 17 grey levels, from the test set of *Optical Recognition of
Handwritten Digits* (UCI), as scikit-learn ships them.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

SEED = 0
OPSET = 17  # with IR 8: ONNX Runtime 1.15 and TensorRT 8.6 read both
ENOUGH = 0.97


def images_and_labels() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and held-out images (float32, [n, 8, 8, 1], 0 to 1) and labels (int64): four fifths and one fifth."""
    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    split = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=SEED)
    return split[0], split[2], split[1], split[3]


def conv(x: keras.KerasTensor, filters: int, name: str, relu: bool = True) -> keras.KerasTensor:
    """Convolution 3 x 3, batch normalization and, mostly, ReLU."""
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def residual(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Two convolutions around a shortcut."""
    y = conv(conv(x, filters, f"{name}a"), filters, f"{name}b", relu=False)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))


def network() -> keras.Model:
    """The untrained network: 28,698 weights."""
    image = keras.Input((8, 8, 1), name="image")
    x = residual(conv(image, 16, "stem"), 16, "block1")
    x = layers.MaxPooling2D(name="pool")(x)
    x = residual(conv(x, 32, "widen"), 32, "block2")
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dense(10, name="logits")(x)
    return keras.Model(image, layers.Softmax(name="probabilities")(x), name="digits")


def train(images: np.ndarray, labels: np.ndarray) -> keras.Model:
    """The network after 30 epochs, free of the optimizer's state."""
    epochs, batch = 30, 32
    model = network()
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * -(-len(images) // batch))
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, batch, epochs, verbose=2)
    trained = network()
    trained.set_weights(model.get_weights())
    return trained


def readable(name: str) -> str:
    """A node's name without the scopes that Keras numbers: ``stem_conv/...`` for ``digits_1/stem_conv_1/...``."""
    return re.sub(r"^(\^?)digits_\d+/([^/]+?)_\d+/", r"\1\2/", name)


def freeze(model: keras.Model) -> tf.compat.v1.GraphDef:
    """The network as one graph with its weights inside."""

    def digits(image: tf.Tensor) -> tf.Tensor:
        return model(image, training=False)

    function = tf.function(digits).get_concrete_function(tf.TensorSpec((None, 8, 8, 1), tf.float32, name="image"))
    frozen = convert_variables_to_constants_v2(function)
    graph_def = frozen.graph.as_graph_def()
    output = frozen.outputs[0].op.name
    for node in graph_def.node:
        node.name = "probabilities" if node.name == output else readable(node.name)
        node.input[:] = [readable(name) for name in node.input]
    return graph_def


def convert(graph_def: tf.compat.v1.GraphDef) -> onnx.ModelProto:
    """The frozen graph as ONNX, without the ``:0`` in the names of input and output, and with a free batch size."""
    proto, _ = tf2onnx.convert.from_graph_def(
        graph_def,
        name="digits.pb",
        opset=OPSET,
        input_names=["image:0"],
        output_names=["probabilities:0"],
        tensors_to_rename={"image:0": "image", "probabilities:0": "probabilities"},
    )
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    proto.graph.name = "digits"
    onnx.checker.check_model(proto, full_check=True)
    return proto


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=Path(__file__).resolve().parent, help="folder to write to")
    to: Path = parser.parse_args().to
    to.mkdir(parents=True, exist_ok=True)

    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    images, labels, held_images, held_labels = images_and_labels()
    model = train(images, labels)
    accuracy = float((model.predict(held_images, verbose=0).argmax(1) == held_labels).mean())
    print(f"held-out accuracy {accuracy:.2%} on {len(held_labels)} images")
    if accuracy < ENOUGH:
        raise SystemExit(f"that is less than {ENOUGH:.0%}: nothing written")

    model.save(to / "digits.keras")
    graph_def = freeze(model)
    (to / "digits.pb").write_bytes(graph_def.SerializeToString(deterministic=True))
    onnx.save(convert(graph_def), to / "digits.onnx")
    np.savez_compressed(to / "heldout.npz", image=held_images)
    np.save(to / "labels.npy", held_labels)
    for file in [*sorted(to.glob("digits.*")), to / "heldout.npz", to / "labels.npy"]:
        print(f"{file.name:14} {file.stat().st_size:>9,} bytes")


if __name__ == "__main__":
    main()
