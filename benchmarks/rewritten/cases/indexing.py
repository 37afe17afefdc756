"""Places, shapes and axes."""

from __future__ import annotations

import numpy as np
import onnx

from ..expectation import Pair, fault
from ..writing import Drawn, inputs, network, pair


def _ties(last: int) -> onnx.ModelProto:
    drawn = Drawn()
    text = f"""ties (float[16,16,8] x) => (y) {{
      h = MatMul(x, w1)
      r = Relu(h)
      mean = ReduceMean<axes = [2], keepdims = 0>(r)
      score = Floor(mean)
      best = ArgMax<axis = 1, keepdims = 1, select_last_index = {last}>(score)
      row = Gather(table, best)
      y = MatMul(row, w2)
    }}"""
    return network(text, w1=drawn.weight(8, 8), table=drawn.normal(16, 8), w2=drawn.weight(8, 5))


@fault("best", causes="attribute")
def last_of_the_greatest() -> Pair:
    """The last of several greatest values for the first"""
    return pair(_ties(0), _ties(1), inputs(16, 16, 8))


def _scattered(reduction: str) -> onnx.ModelProto:
    drawn = Drawn()
    text = f"""scatter (float[64,8] x) => (y) {{
      sums = ScatterElements<axis = 0, reduction = "{reduction}">(nothing, places, x)
      y = MatMul(sums, w)
    }}"""
    places = np.random.default_rng(7).integers(0, 16, (64, 8))
    return network(text, nothing=np.zeros((16, 8), np.float32), places=places, w=drawn.weight(8, 8))


@fault("sums", causes="attribute")
def scattered_without_adding() -> Pair:
    """What falls on one place is not added up"""
    return pair(_scattered("add"), _scattered("none"), inputs(64, 8))


def _rows(*, mixed: bool) -> onnx.ModelProto:
    drawn = Drawn()
    text = f"""batch (float[4,6,16] x) => (y) {{
      h = MatMul(x, w1)
      shaped = Reshape(h, shape)
      turned = Transpose<perm = [{"1, 0, 2" if mixed else "0, 1, 2"}]>(shaped)
      s = Softmax<axis = 1>(turned)
      y = MatMul(s, w2)
    }}"""
    shape = np.array([6, 4, 16] if mixed else [4, 6, 16])
    return network(text, w1=drawn.weight(16, 16), shape=shape, w2=drawn.weight(16, 8))


@fault("shaped", "turned", causes="attribute layout weights")
def batch_and_sequence_mixed() -> Pair:
    """Batch and sequence exchanged by a Reshape, and exchanged back by a Transpose"""
    return pair(_rows(mixed=False), _rows(mixed=True), inputs(4, 6, 16))


def _sampled(corners: int) -> onnx.ModelProto:
    drawn = Drawn()
    text = f"""sampled (float[1,4,16,16] x) => (y) {{
      c1 = Conv<pads = [1, 1, 1, 1]>(x, w1)
      flow = Conv<pads = [1, 1, 1, 1]>(c1, w2)
      last = Transpose<perm = [0, 2, 3, 1]>(flow)
      grid = Tanh(last)
      warped = GridSample<align_corners = {corners}, mode = "bilinear">(c1, grid)
      y = Conv<pads = [1, 1, 1, 1]>(warped, w3)
    }}"""
    weights = {"w1": drawn.weight(8, 4, 3, 3), "w2": drawn.weight(2, 8, 3, 3), "w3": drawn.weight(4, 8, 3, 3)}
    return network(text, **weights)


@fault("warped", causes="attribute")
def grid_with_aligned_corners() -> Pair:
    """A picture sampled with aligned corners"""
    return pair(_sampled(0), _sampled(1), inputs(1, 4, 16, 16))


def _shares(opset: int) -> onnx.ModelProto:
    drawn = Drawn()
    text = """shares (float[2,8,16] x) => (y) {
      h = MatMul(x, w1)
      share = Softmax<axis = 1>(h)
      y = MatMul(share, w2)
    }"""
    return network(text, opset, w1=drawn.weight(16, 16), w2=drawn.weight(16, 8))


@fault("share", causes="wrong-op attribute")
def softmax_of_an_older_version() -> Pair:
    """A Softmax over all axes from the first on, taken over to a version where it is over that axis alone"""
    return pair(_shares(11), _shares(13), inputs(2, 8, 16))


def _hashed(*, narrow: bool) -> onnx.ModelProto:
    drawn = Drawn()
    casts = "short = Cast<to = 6>(words)  product = Mul(short, factor)  hash = Cast<to = 7>(product)"
    text = f"""hashed (int64[1,64] words) => (y) {{
      {casts if narrow else "hash = Mul(words, factor)"}
      bucket = Mod(hash, count)
      row = Gather(table, bucket)
      h = MatMul(row, w1)
      r = Relu(h)
      y = MatMul(r, w2)
    }}"""
    return network(
        text,
        factor=np.array(73856093, np.int32 if narrow else np.int64),
        count=np.array(509),
        table=drawn.normal(509, 32),
        w1=drawn.weight(32, 32),
        w2=drawn.weight(32, 8),
    )


@fault("hash", "product", causes="overflow wrong-op")
def hash_in_32_bits() -> Pair:
    """A hash computed in 32 bits for 64"""
    words = np.random.default_rng(3).integers(0, 50000, (1, 64))
    return pair(_hashed(narrow=False), _hashed(narrow=True), [{"words": words}])
