"""ONNX models of networks whose packages hold weights, or a model of another kind."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from . import checkpoints
from .packages import Unavailable

IR_VERSION = 8
OPSET = 17


def from_text(text: str, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """A model from the body of a graph in ONNX's textual form; of the weights, those that it uses are added."""
    model = onnx.parser.parse_model(f'<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>\n{text}')
    for node in model.graph.node:
        node.name = f"{node.output[0]}_{node.op_type}"
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items() if name in used
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def bert(path: Path, *, heads: int) -> onnx.ModelProto:
    """The encoder whose weights, by the names of the library transformers, are in a safetensors file.

    The graph is the one that exporters write: weights folded into (in, out), the mask extended to
    ``(1 - mask) * finfo(float32).min``, GELU by Erf.

    Inputs: ``input_ids``, ``attention_mask``, ``token_type_ids``, int64 of shape (batch, sequence). Output:
    ``last_hidden_state``, float32 of shape (batch, sequence, width).
    """
    weights = {}
    for name, value in checkpoints.safetensors(path).items():
        folded = name.endswith("dense.weight") or (".self." in name and name.endswith("weight"))
        weights[name.replace(".", "_")] = value.T if folded else value
    layers = sum(name.endswith("output_dense_weight") and "attention" not in name for name in weights)
    width = weights["embeddings_LayerNorm_weight"].size
    weights["scale"] = np.float32(np.sqrt(width // heads))
    weights["lowest"] = np.finfo(np.float32).min
    weights |= {"one": np.float32(1), "half": np.float32(0.5), "root2": np.float32(np.sqrt(2))}
    weights |= {"split": np.array([0, 0, heads, width // heads]), "join": np.array([0, 0, width])}
    weights |= {"zero1": np.array([0]), "one1": np.array([1]), "two1": np.array([2]), "inner": np.array([1, 2])}
    return from_text(
        f"""
        bert (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask,
              int64[batch, sequence] token_type_ids) => (float[batch, sequence, {width}] last_hidden_state) {{
          {_EMBEDDINGS}
          {"".join(_layer(i, "last_hidden_state" if i == layers - 1 else f"h{i + 1}") for i in range(layers))}
        }}
        """,
        weights,
    )


_EMBEDDINGS = """
          mask4 = Unsqueeze (attention_mask, inner)
          maskf = Cast <to = 1> (mask4)
          masked = Sub (one, maskf)
          bias = Mul (masked, lowest)
          words = Gather (embeddings_word_embeddings_weight, input_ids)
          types = Gather (embeddings_token_type_embeddings_weight, token_type_ids)
          typed = Add (words, types)
          shape = Shape (input_ids)
          length = Slice (shape, one1, two1)
          ids = Slice (embeddings_position_ids, zero1, length, one1)
          positions = Gather (embeddings_position_embeddings_weight, ids)
          summed = Add (typed, positions)
          h0 = LayerNormalization <epsilon = 1e-12> (summed, embeddings_LayerNorm_weight, embeddings_LayerNorm_bias)
"""


def _layer(i: int, output: str) -> str:
    w, s = f"encoder_layer_{i}", f"l{i}"
    heads = "".join(
        f"""
          {s}_{x}_product = MatMul (h{i}, {w}_attention_self_{name}_weight)
          {s}_{x}_sum = Add ({s}_{x}_product, {w}_attention_self_{name}_bias)
          {s}_{x}_split = Reshape ({s}_{x}_sum, split)
          {s}_{x} = Transpose <perm = {perm}> ({s}_{x}_split)
        """
        for x, name, perm in (("q", "query", [0, 2, 1, 3]), ("k", "key", [0, 2, 3, 1]), ("v", "value", [0, 2, 1, 3]))
    )
    return f"""
          {heads}
          {s}_products = MatMul ({s}_q, {s}_k)
          {s}_scaled = Div ({s}_products, scale)
          {s}_biased = Add ({s}_scaled, bias)
          {s}_attention = Softmax <axis = -1> ({s}_biased)
          {s}_context4 = MatMul ({s}_attention, {s}_v)
          {s}_context3 = Transpose <perm = [0, 2, 1, 3]> ({s}_context4)
          {s}_context = Reshape ({s}_context3, join)
          {s}_o_product = MatMul ({s}_context, {w}_attention_output_dense_weight)
          {s}_o = Add ({s}_o_product, {w}_attention_output_dense_bias)
          {s}_r = Add ({s}_o, h{i})
          {s}_n = LayerNormalization <epsilon = 1e-12>
            ({s}_r, {w}_attention_output_LayerNorm_weight, {w}_attention_output_LayerNorm_bias)
          {s}_up_product = MatMul ({s}_n, {w}_intermediate_dense_weight)
          {s}_up = Add ({s}_up_product, {w}_intermediate_dense_bias)
          {s}_g_div = Div ({s}_up, root2)
          {s}_g_erf = Erf ({s}_g_div)
          {s}_g_one = Add ({s}_g_erf, one)
          {s}_g_mul = Mul ({s}_up, {s}_g_one)
          {s}_g = Mul ({s}_g_mul, half)
          {s}_down_product = MatMul ({s}_g, {w}_output_dense_weight)
          {s}_down = Add ({s}_down_product, {w}_output_dense_bias)
          {s}_s = Add ({s}_down, {s}_n)
          {output} = LayerNormalization <epsilon = 1e-12>
            ({s}_s, {w}_output_LayerNorm_weight, {w}_output_LayerNorm_bias)
    """


def voice_encoder(path: Path) -> onnx.ModelProto:
    """Resemblyzer's: three LSTMs over mel frames, a projection of the last state, rectified and of length one.

    Input: ``mels``, float32 of shape (batch, frames, 40). Output: ``embedding``, float32 of shape (batch, 256).
    """
    state = checkpoints.torch_legacy(path)["model_state"]
    weights = {
        "zero1": np.array([0]),
        "one1": np.array([1]),
        "head_weight": state["linear.weight"],
        "head_bias": state["linear.bias"],
    }
    layers = []
    for i in range(3):
        weights |= _lstm(f"l{i}", state, [f"_l{i}"])
        layers.append(f"""
          y{i}, last{i} = LSTM <hidden_size = 256> (x{i}, l{i}_W, l{i}_R, l{i}_B)
          x{i + 1} = Squeeze (y{i}, one1)
        """)
    return from_text(
        f"""
        voice_encoder (float[batch, frames, 40] mels) => (float[batch, 256] embedding) {{
          x0 = Transpose <perm = [1, 0, 2]> (mels)
          {"".join(layers).replace("x3 = Squeeze (y2, one1)", "hidden = Squeeze (last2, zero1)")}
          projected = Gemm <transB = 1> (hidden, head_weight, head_bias)
          positive = Relu (projected)
          norm = ReduceL2 <axes = [1], keepdims = 1> (positive)
          embedding = Div (positive, norm)
        }}
        """,
        weights,
    )


def pronunciation(path: Path) -> onnx.ModelProto:
    """g2pM's: an LSTM in both directions over the characters of a sentence, and a classifier of one of them.

    Inputs: ``characters``, int64 of shape (batch, length), and ``position``, int64 of shape (batch, 1), which of
    them is asked for. Output: ``scores``, float32 of shape (batch, 876), of the pronunciations.
    """
    state = checkpoints.numpy_pickle(path)
    weights = {name.replace(".", "_"): value.astype(np.float32) for name, value in state.items()}
    weights |= _lstm("lstm", state, ["_l0", "_l0_reverse"])
    weights |= {"both": np.array([0, 0, -1])}
    return from_text(
        """
        g2pm (int64[batch, length] characters, int64[batch, 1] position) => (float[batch, 876] scores) {
          embedded = Gather (embedding_weight, characters)
          x = Transpose <perm = [1, 0, 2]> (embedded)
          y = LSTM <hidden_size = 32, direction = "bidirectional"> (x, lstm_W, lstm_R, lstm_B)
          rows = Transpose <perm = [2, 0, 1, 3]> (y)
          joined = Reshape (rows, both)
          target = GatherND <batch_dims = 1> (joined, position)
          hidden = Gemm <transB = 1> (target, logit_layer_0_weight, logit_layer_0_bias)
          positive = Relu (hidden)
          scores = Gemm <transB = 1> (positive, logit_layer_2_weight, logit_layer_2_bias)
        }
        """,
        weights,
    )


def _lstm(name: str, state: Mapping[str, np.ndarray], directions: Sequence[str]) -> dict[str, np.ndarray]:
    """W, R and B of ONNX's LSTM, with gates in the order i, o, f, c, from PyTorch's weights in the order i, f, c, o."""

    def gates(value: np.ndarray) -> np.ndarray:
        i, f, c, o = np.split(np.asarray(value, np.float32), 4)
        return np.concatenate([i, o, f, c])

    def stacked(*kinds: str) -> np.ndarray:
        return np.stack([np.concatenate([gates(state[f"lstm.{kind}{d}"]) for kind in kinds]) for d in directions])

    w, r, b = stacked("weight_ih"), stacked("weight_hh"), stacked("bias_ih", "bias_hh")
    return {f"{name}_W": w, f"{name}_R": r, f"{name}_B": b}


def word_boundaries(path: Path) -> onnx.ModelProto:
    """Deepcut's: convolutions of twelve widths over 21 characters, the greatest of their results, two dense layers.

    Inputs: ``characters`` and ``kinds``, int64 of shape (batch, 21). Output: ``begins``, float32 of shape (batch, 1):
    the probability that a word begins at the last of these characters (`texts.around`).
    """
    state = checkpoints.keras_h5(path)
    weights = {name.replace("/", "_"): value for name, value in state.items()}
    widths = range(1, 13)
    for i in widths:
        weights[f"conv1d_{i}_kernel"] = weights[f"conv1d_{i}_kernel"].transpose(2, 1, 0)
    convolutions = "".join(
        f"""
          c{i} = Conv (normal, conv1d_{i}_kernel, conv1d_{i}_bias)
          p{i} = Relu (c{i})
          t{i} = Transpose <perm = [0, 2, 1]> (p{i})
          d{i} = MatMul (t{i}, time_distributed_{i}_kernel)
          s{i} = Add (d{i}, time_distributed_{i}_bias)
          w{i} = Pad (s{i}, pad{i})
        """
        for i in widths
    )
    weights |= {f"pad{i}": np.array([0, 0, 0, 0, i - 1, 0]) for i in widths}

    def normalized(x: str, i: int) -> str:
        names = (f"batch_normalization_{i}_{kind}" for kind in ("gamma", "beta", "moving_mean", "moving_variance"))
        return f"BatchNormalization <epsilon = 1e-3> ({x}, {', '.join(names)})"

    return from_text(
        f"""
        deepcut (int64[batch, 21] characters, int64[batch, 21] kinds) => (float[batch, 1] begins) {{
          embedded = Gather (embedding_1_embeddings, characters)
          channels = Transpose <perm = [0, 2, 1]> (embedded)
          normal = {normalized("channels", 1)}
          {convolutions}
          greatest = Max ({", ".join(f"w{i}" for i in widths)})
          greatest_channels = Transpose <perm = [0, 2, 1]> (greatest)
          kind = Gather (embedding_2_embeddings, kinds)
          kind_channels = Transpose <perm = [0, 2, 1]> (kind)
          all = Concat <axis = 1> (normal, greatest_channels, kind_channels)
          scaled = {normalized("all", 2)}
          rows = Transpose <perm = [0, 2, 1]> (scaled)
          flat = Flatten (rows)
          product = MatMul (flat, dense_13_kernel)
          sum = Add (product, dense_13_bias)
          hidden = Relu (sum)
          last = MatMul (hidden, dense_14_kernel)
          logit = Add (last, dense_14_bias)
          begins = Sigmoid (logit)
        }}
        """,
        weights,
    )


def from_tflite(path: Path) -> onnx.ModelProto:
    """A TensorFlow Lite file, converted by tf2onnx."""
    try:
        import tensorflow  # noqa: F401 - tf2onnx needs it
        import tf2onnx.convert
    except ImportError as error:
        raise Unavailable(f"{path.name} is converted by TensorFlow and tf2onnx: {error}") from error
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    model, _ = tf2onnx.convert.from_tflite(str(path), opset=OPSET)
    return model


def with_open_shapes(path: Path) -> onnx.ModelProto:
    """The model in a file for images of any number and size, which its exporter had fixed: (N, C, H, W)."""
    model = onnx.load(str(path))
    weights = {weight.name for weight in model.graph.initializer}  # in IR 3, they were inputs too
    for infos, names in ((model.graph.input, "NCHW"), (model.graph.output, "Nchw")):
        for info in infos:
            for axis in (0, 2, 3) if info.name not in weights else ():
                info.type.tensor_type.shape.dim[axis].dim_param = names[axis]
    del model.graph.value_info[:]
    return model
