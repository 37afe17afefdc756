"""Writes a decoder of a language model, small and with random weights, in the layout that exporters give it.

    python examples/tiny_decoder.py FOLDER

``decoder.onnx`` has the inputs and outputs of a Llama that Optimum or ONNX Runtime GenAI exported (``input_ids``,
``attention_mask``, ``position_ids``, ``past_key_values.N.key`` and ``.value``; ``logits``, ``present.N.key`` and
``.value``): RMS normalization, rotary embeddings, a causal mask, a cache, and a gated feed-forward network.
``tokens.txt`` holds prompts as token ids, one a line. With the package ``tokenizers``, ``tokenizer.json`` and
``prompts.txt`` hold them as text.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TEXT = "the a cat dog bird sat ran flew on over under mat tree house and then it was gone ."
WORDS = TEXT.split()


@dataclass(frozen=True)
class Size:
    """How large a decoder is.

    Attributes:
        layers: Number of blocks.
        heads: Heads of the attention.
        width: Width of a head, even.
        vocabulary: Number of tokens.
        context: Longest sequence, which the tables of the rotary embedding are made for.
    """

    layers: int = 2
    heads: int = 2
    width: int = 8
    vocabulary: int = 64
    context: int = 64

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.heads * self.width


TINY = Size()


class Writer:
    """Nodes and weights of a graph on their way into it."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self._rng = np.random.default_rng(seed)

    def add(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        """A node with one output, which gives it its name."""
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, value: object, dtype: type = np.float32) -> str:
        """A constant, stored once."""
        self.weights.setdefault(name, np.asarray(value, dtype))
        return name

    def matrix(self, name: str, rows: int, columns: int, gain: float = 1.0) -> str:
        """A random matrix that keeps the size of what it is multiplied with, times ``gain``."""
        return self.constant(name, self._rng.normal(0, gain * rows**-0.5, (rows, columns)))

    def tensors(self) -> list[onnx.TensorProto]:
        """The weights as the graph holds them."""
        return [numpy_helper.from_array(value, name) for name, value in self.weights.items()]


def decoder(size: Size = TINY, *, seed: int = 0, writer: Writer | None = None) -> onnx.ModelProto:
    """A decoder with random weights.

    Args:
        size: How large it is.
        seed: Of the weights.
        writer: What takes nodes and weights, where the weights are to be kept somewhere else.
    """
    w = writer or Writer(seed)
    half = np.outer(np.arange(size.context), 100.0 ** -np.linspace(0, 1, size.width // 2, endpoint=False))
    angles = np.concatenate([half, half], axis=1)
    for name, table in (("cos", np.cos(angles)), ("sin", np.sin(angles))):
        w.add("Gather", [w.constant(f"{name}_table", table), "position_ids"], f"{name}_rows")
        w.add("Unsqueeze", [f"{name}_rows", w.constant("one", [1], np.int64)], name)
    _mask(w)
    hidden = w.add("Gather", [w.matrix("embedding", size.vocabulary, size.hidden, 4.0), "input_ids"], "embedded")
    for layer in range(size.layers):
        hidden = _block(w, f"layer{layer}", layer, hidden, size)
    last = _norm(w, "final", hidden, size.hidden)
    w.add("MatMul", [last, w.matrix("head", size.hidden, size.vocabulary, 2.0)], "logits")
    return _model(w, size)


def _mask(w: Writer) -> None:
    """What is added to the scores: 0 where a token may look, and a large negative number elsewhere."""
    w.add("Shape", ["attention_mask"], "total_size", start=1, end=2)
    w.add("Shape", ["input_ids"], "new_size", start=1, end=2)
    w.add("Sub", ["total_size", "new_size"], "past_size")
    for name in ("total", "past"):
        w.add("Squeeze", [f"{name}_size"], f"{name}_length")
    zero, step = w.constant("zero", 0, np.int64), w.constant("step", 1, np.int64)
    keys = w.add("Range", [zero, "total_length", step], "key_places")
    queries = w.add("Range", ["past_length", "total_length", step], "query_places")
    w.add("Unsqueeze", [queries, w.constant("one", [1], np.int64)], "query_column")
    w.add("LessOrEqual", [keys, "query_column"], "causal")
    w.add("Cast", ["attention_mask"], "kept", to=TensorProto.BOOL)
    w.add("Unsqueeze", ["kept", w.constant("one_two", [1, 2], np.int64)], "kept_rows")
    w.add("And", ["causal", "kept_rows"], "visible")
    w.add("Where", ["visible", w.constant("nothing", 0.0), w.constant("much", -1e9)], "bias")


def _block(w: Writer, name: str, layer: int, hidden: str, size: Size) -> str:
    inner = _norm(w, f"{name}.norm1", hidden, size.hidden)
    heads = {}
    for part in ("q", "k", "v"):
        product = w.add("MatMul", [inner, w.matrix(f"{name}.w{part}", size.hidden, size.hidden)], f"{name}.{part}")
        split = w.constant("split", [0, 0, size.heads, size.width], np.int64)
        w.add("Reshape", [product, split], f"{name}.{part}_split")
        heads[part] = w.add("Transpose", [f"{name}.{part}_split"], f"{name}.{part}_heads", perm=[0, 2, 1, 3])
    query, key = (_rotated(w, f"{name}.{part}", heads[part], size.width) for part in ("q", "k"))
    past = f"past_key_values.{layer}"
    keys = w.add("Concat", [f"{past}.key", key], f"present.{layer}.key", axis=2)
    values = w.add("Concat", [f"{past}.value", heads["v"]], f"present.{layer}.value", axis=2)
    w.add("Transpose", [keys], f"{name}.keys_turned", perm=[0, 1, 3, 2])
    w.add("MatMul", [query, f"{name}.keys_turned"], f"{name}.products")
    w.add("Mul", [f"{name}.products", w.constant("scale", size.width**-0.5)], f"{name}.scaled")
    w.add("Add", [f"{name}.scaled", "bias"], f"{name}.scores")
    w.add("Softmax", [f"{name}.scores"], f"{name}.attention", axis=-1)
    w.add("MatMul", [f"{name}.attention", values], f"{name}.context")
    w.add("Transpose", [f"{name}.context"], f"{name}.context_turned", perm=[0, 2, 1, 3])
    w.add("Reshape", [f"{name}.context_turned", w.constant("join", [0, 0, size.hidden], np.int64)], f"{name}.joined")
    w.add("MatMul", [f"{name}.joined", w.matrix(f"{name}.wo", size.hidden, size.hidden)], f"{name}.projected")
    hidden = w.add("Add", [hidden, f"{name}.projected"], f"{name}.attended")
    inner = _norm(w, f"{name}.norm2", hidden, size.hidden)
    w.add("MatMul", [inner, w.matrix(f"{name}.gate", size.hidden, 2 * size.hidden)], f"{name}.gates")
    w.add("Sigmoid", [f"{name}.gates"], f"{name}.open")
    w.add("Mul", [f"{name}.gates", f"{name}.open"], f"{name}.silu")
    w.add("MatMul", [inner, w.matrix(f"{name}.up", size.hidden, 2 * size.hidden)], f"{name}.wide")
    w.add("Mul", [f"{name}.silu", f"{name}.wide"], f"{name}.gated")
    w.add("MatMul", [f"{name}.gated", w.matrix(f"{name}.down", 2 * size.hidden, size.hidden)], f"{name}.narrow")
    return w.add("Add", [hidden, f"{name}.narrow"], f"{name}.out")


def _norm(w: Writer, name: str, hidden: str, width: int) -> str:
    w.add("Mul", [hidden, hidden], f"{name}.squares")
    w.add("ReduceMean", [f"{name}.squares", w.constant("last", [-1], np.int64)], f"{name}.mean", keepdims=1)
    w.add("Add", [f"{name}.mean", w.constant("epsilon", 1e-6)], f"{name}.shifted")
    w.add("Sqrt", [f"{name}.shifted"], f"{name}.root")
    w.add("Div", [hidden, f"{name}.root"], f"{name}.unit")
    return w.add("Mul", [f"{name}.unit", w.constant(f"{name}.weight", np.ones(width))], f"{name}.normed")


def _rotated(w: Writer, name: str, heads: str, width: int) -> str:
    """Rotary embedding: pairs of channels are turned by an angle that grows with the position."""
    first, half, end = (w.constant(f"at{n}", [n], np.int64) for n in (0, width // 2, width))
    axis = w.constant("axis3", [3], np.int64)
    w.add("Slice", [heads, first, half, axis], f"{name}_low")
    w.add("Slice", [heads, half, end, axis], f"{name}_high")
    w.add("Neg", [f"{name}_high"], f"{name}_minus")
    w.add("Concat", [f"{name}_minus", f"{name}_low"], f"{name}_swapped", axis=3)
    w.add("Mul", [heads, "cos"], f"{name}_straight")
    w.add("Mul", [f"{name}_swapped", "sin"], f"{name}_across")
    return w.add("Add", [f"{name}_straight", f"{name}_across"], f"{name}_rotated")


def _model(w: Writer, size: Size) -> onnx.ModelProto:
    batch, new, past, total = "batch_size", "sequence_length", "past_sequence_length", "total_sequence_length"
    whole = [("input_ids", [batch, new]), ("attention_mask", [batch, total]), ("position_ids", [batch, new])]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in whole]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, new, size.vocabulary])]
    for layer in range(size.layers):
        for kind in ("key", "value"):
            for infos, name, length in (
                (inputs, f"past_key_values.{layer}.{kind}", past),
                (outputs, f"present.{layer}.{kind}", total),
            ):
                shape = [batch, size.heads, length, size.width]
                infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    graph = helper.make_graph(w.nodes, "decoder", inputs, outputs, w.tensors())
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])


def prompts(count: int = 4, *, seed: int = 0) -> list[list[str]]:
    """Prompts of different lengths, as words."""
    rng = np.random.default_rng(seed)
    return [[WORDS[i] for i in rng.integers(0, len(WORDS), 8 + 3 * number)] for number in range(count)]


def write(folder: Path) -> None:
    """Writes the files."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(decoder(), folder / "decoder.onnx")
    texts = prompts()
    ids = [" ".join(str(WORDS.index(word)) for word in words) for words in texts]
    (folder / "tokens.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers
    except ImportError:
        return
    (folder / "prompts.txt").write_text("\n".join(map(" ".join, texts)) + "\n", encoding="utf-8")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files go; made if it is not there")
    write(parser.parse_args().folder)
