"""Healthy networks: those that faults are planted in, outputs that are hard on a tolerance, and the onnx package's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.kit.networks import network
from benchmarks.kit.runtime import Feed

from .running import run

BUILT = ("resnet", "mobilenet", "densenet", "bert", "vit", "lstm", "unet", "mixed")
LIGHT = (
    "squeezenet",
    "shufflenet",
    "resnet50",
    "inception_v1",
    "inception_v2",
    "densenet121",
    "bvlc_alexnet",
)
"""Of the onnx package's light networks: a quarter of the faults of zfnet512 or vgg19 takes more than twenty minutes."""
SAMPLES = 3


@dataclass(frozen=True)
class Network:
    """A network and a few feeds for it."""

    name: str
    proto: onnx.ModelProto
    feeds: list[Feed]


def makers(light: bool = True) -> dict[str, Callable[[], Network]]:
    """What makes each network, by its name."""
    found: dict[str, Callable[[], Network]] = {}
    for name in BUILT:
        found[name] = partial(_built, name)
        for head in HEADS.get(name, {}):
            found[f"{name} + {head}"] = partial(_built, name, head)
    found["resnet, batch 64"] = _batch
    found.update({f"light {name}": partial(light_network, name) for name in LIGHT if light})
    return found


def _built(name: str, head: str = "") -> Network:
    made = network(name)
    if not head:
        return Network(name, made.proto, made.samples(77, SAMPLES))
    proto = onnx.ModelProto()
    proto.CopyFrom(made.proto)
    HEADS[name][head](proto, made.samples(77, 1)[0])
    return Network(f"{name} + {head}", proto, made.samples(77, SAMPLES))


def _batch() -> Network:
    made = network("resnet")
    stacked = np.concatenate([f["input"] for f in made.samples(78, 64)])
    return Network("resnet, batch 64", made.proto, [{"input": stacked}])


# -- heads --------------------------------------------------------------------------------------------------------


def _append(proto: onnx.ModelProto, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], output: str) -> None:
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items())
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))


def softmax(proto: onnx.ModelProto, feed: Feed) -> None:
    """Probabilities over the channels: classes that are nowhere have tiny ones everywhere."""
    sharpen(proto, "Softmax")


def sigmoid(proto: onnx.ModelProto, feed: Feed) -> None:
    """Independent scores: mostly far below one half."""
    sharpen(proto, "Sigmoid")


def sharp(proto: onnx.ModelProto, feed: Feed) -> None:
    """Probabilities of a network that is certain of them."""
    sharpen(proto, "Softmax", 20)


def dead(proto: onnx.ModelProto, feed: Feed) -> None:
    """Channels of which one value in a thousand survives a Relu; of vectors, values that it nearly clamps."""
    logits = proto.graph.output[0].name
    values = run(proto, [feed])[0][logits].astype(np.float64)
    high = np.quantile(values, 0.999, axis=tuple(range(2, values.ndim)), keepdims=True)
    high = high.max(axis=0, keepdims=True) - (0.0 if values.ndim > 2 else 0.01 * values.std())
    nodes = [
        helper.make_node("Sub", [logits, "head.high"], ["head.low"], name="/head/Sub"),
        helper.make_node("Relu", ["head.low"], ["head.output"], name="/head/Relu"),
    ]
    _append(proto, nodes, {"head.high": high.astype(np.float32)}, "head.output")


def sharpen(proto: onnx.ModelProto, op: str, deviation: float = 4) -> None:
    """Logits of the size that trained networks have (deviation 4, mean of each class between -6 and 2), then ``op``."""
    logits = proto.graph.output[0].name
    spec = proto.graph.output[0].type.tensor_type.shape
    rank, channels = len(spec.dim), spec.dim[1].dim_value
    shape = [1, channels] + [1] * (rank - 2)
    offset = np.linspace(-6, 2, channels, dtype=np.float32).reshape(shape)
    nodes = [
        helper.make_node("Mul", [logits, "head.scale"], ["head.scaled"], name="/head/Mul"),
        helper.make_node("Add", ["head.scaled", "head.offset"], ["head.logits"], name="/head/Add"),
        helper.make_node(
            op, ["head.logits"], ["head.output"], name=f"/head/{op}", **({"axis": 1} if op == "Softmax" else {})
        ),
    ]
    _append(proto, nodes, {"head.scale": np.array(deviation, np.float32), "head.offset": offset}, "head.output")


def detection(proto: onnx.ModelProto, feed: Feed) -> None:
    """Boxes in the hundreds of pixels and scores below one in one tensor, as YOLO has them."""
    features = proto.graph.output[0].name
    channels = proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    rng = np.random.default_rng(5)

    def conv(name: str, width: int) -> tuple[onnx.NodeProto, dict[str, np.ndarray]]:
        weight = (rng.standard_normal((width, channels, 1, 1)) / np.sqrt(channels)).astype(np.float32)
        bias = rng.uniform(-6, -2, width).astype(np.float32) if name == "scores" else np.zeros(width, np.float32)
        node = helper.make_node(
            "Conv", [features, f"{name}.w", f"{name}.b"], [f"{name}.raw"], name=f"/head/{name}/Conv"
        )
        return node, {f"{name}.w": weight, f"{name}.b": bias}

    boxes, box_weights = conv("boxes", 4)
    scores, score_weights = conv("scores", 20)
    nodes = [
        boxes,
        scores,
        helper.make_node("Sigmoid", ["boxes.raw"], ["boxes.unit"], name="/head/boxes/Sigmoid"),
        helper.make_node("Mul", ["boxes.unit", "size"], ["boxes"], name="/head/boxes/Mul"),
        helper.make_node("Sigmoid", ["scores.raw"], ["scores"], name="/head/scores/Sigmoid"),
        helper.make_node("Concat", ["boxes", "scores"], ["head.both"], axis=1, name="/head/Concat"),
        helper.make_node("Reshape", ["head.both", "rows"], ["head.rows"], name="/head/Reshape"),
        helper.make_node("Transpose", ["head.rows"], ["head.output"], perm=[0, 2, 1], name="/head/Transpose"),
    ]
    weights = {**box_weights, **score_weights, "size": np.array(640, np.float32), "rows": np.array([0, 24, -1])}
    _append(proto, nodes, weights, "head.output")


HEADS: dict[str, dict[str, Callable[[onnx.ModelProto, Feed], None]]] = {
    "resnet": {"softmax": softmax, "sharp softmax": sharp, "dead Relu": dead},
    "densenet": {"dead Relu": dead},
    "bert": {"dead Relu": dead},
    "unet": {
        "softmax": softmax,
        "sharp softmax": sharp,
        "sigmoid": sigmoid,
        "detection": detection,
        "dead Relu": dead,
    },
}


# -- the onnx package's -------------------------------------------------------------------------------------------


def light_network(name: str, seed: int = 0) -> Network:
    """One of the networks that the onnx package carries without weights: drawn here, scaled so that logits are alive.

    Its weights are ConstantOfShape nodes of 0.02. Products get He's deviation, normalizations statistics near
    0 and 1, and the last product is scaled to logits of deviation 2.
    """
    import onnx.backend.test

    path = Path(onnx.backend.test.__file__).parent / "data" / "light" / f"light_{name}.onnx"
    proto = onnx.load(str(path))
    rng = np.random.default_rng(seed)
    _draw(proto, rng)
    given = {t.name for t in proto.graph.initializer}
    (image,) = (i for i in proto.graph.input if i.name not in given)
    shape = [d.dim_value for d in image.type.tensor_type.shape.dim]
    feeds = [{image.name: rng.standard_normal(shape).astype(np.float32)} for _ in range(2)]
    _tame(proto, feeds[0])
    return Network(f"light {name}", proto, feeds)


def _draw(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    graph = proto.graph
    known = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    shapes = {n.output[0]: known[n.input[0]] for n in graph.node if n.op_type == "ConstantOfShape"}
    drawn = {name: rng.uniform(-0.1, 0.1, shape) for name, shape in shapes.items()}
    view: dict[str, str] = {}  # outputs of Unsqueeze and Reshape of a weight -> the weight
    for node in graph.node:
        if node.op_type in ("Unsqueeze", "Reshape") and (node.input[0] in known or node.input[0] in shapes):
            view[node.output[0]] = node.input[0]
        sources = [view.get(i, i) for i in node.input]
        roles: dict[str, np.ndarray] = {}
        shape_of = {
            s: tuple(shapes[s]) if s in shapes else known[s].shape for s in sources if s in shapes or s in known
        }
        if node.op_type in ("Conv", "Gemm") and sources[1] in shape_of:
            shape = shape_of[sources[1]]
            fan = int(np.prod(shape[1:])) if node.op_type == "Conv" else shape[1]
            roles[sources[1]] = rng.standard_normal(shape) * np.sqrt(2 / fan)
        elif node.op_type == "BatchNormalization":
            for source, low, high in zip(sources[1:], (0.5, -0.1, -0.1, 0.8), (0.9, 0.1, 0.1, 1.2), strict=True):
                roles[source] = rng.uniform(low, high, shape_of[source])
        elif node.op_type == "Mul":
            roles = {s: rng.uniform(0.7, 1.3, shape_of[s]) for s in sources if s in shape_of}
        for source, values in roles.items():
            drawn[source] = values
    keep = [n for n in graph.node if n.op_type != "ConstantOfShape"]
    del graph.node[:]
    graph.node.extend(keep)
    others = [t for t in graph.initializer if t.name not in drawn]
    del graph.initializer[:]
    graph.initializer.extend(others)
    graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), k) for k, v in drawn.items())
    given = {t.name for t in graph.initializer} | set(drawn)
    listed = [i for i in graph.input if i.name not in given]
    del graph.input[:]
    graph.input.extend(listed)
    proto.ir_version = 8  # IR 3 wants every initializer among the inputs


def _tame(proto: onnx.ModelProto, feed: Feed) -> None:
    """Scales the last product so that what it makes has deviation 2."""
    graph = proto.graph
    last = next(n for n in reversed(graph.node) if n.op_type in ("Gemm", "Conv"))
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    del watched.graph.output[:]
    watched.graph.output.append(helper.make_tensor_value_info(last.output[0], onnx.TensorProto.FLOAT, None))
    factor = 2 / float(np.std(run(watched, [feed])[0][last.output[0]]))
    moved = {n.output[0]: n.input[0] for n in graph.node if n.op_type in ("Reshape", "Unsqueeze")}
    weights = [moved.get(i, i) for i in last.input[1:]]
    for tensor in graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
