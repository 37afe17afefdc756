"""What ONNX Runtime on the CPU makes of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort

Feed = dict[str, np.ndarray]


def session(proto: onnx.ModelProto, optimize: bool = False, threads: int = 1) -> ort.InferenceSession:
    """A session, by default without graph optimizations and with one thread: the same bytes at every run."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(proto: onnx.ModelProto, feeds: Sequence[Feed], optimize: bool = False, threads: int = 1) -> list[Feed]:
    """Every output for every feed."""
    opened = session(proto, optimize, threads)
    names = [o.name for o in opened.get_outputs()]
    return [dict(zip(names, opened.run(names, feed), strict=True)) for feed in feeds]


def observe(
    proto: onnx.ModelProto, feeds: Sequence[Feed], names: Sequence[str], optimize: bool = False, threads: int = 1
) -> list[Feed]:
    """Tensors for every feed, whether or not they are outputs; graph inputs too."""
    given = {i.name for i in proto.graph.input}
    made = [n for n in dict.fromkeys(names) if n not in given]
    marked = onnx.ModelProto()
    marked.CopyFrom(proto)
    outputs = {o.name for o in marked.graph.output}
    marked.graph.output.extend(onnx.ValueInfoProto(name=n) for n in made if n not in outputs)
    opened = session(marked, optimize, threads)
    found = [dict(zip(made, opened.run(made, feed), strict=True)) if made else {} for feed in feeds]
    return [{n: values.get(n, feed.get(n)) for n in names} for values, feed in zip(found, feeds, strict=True)]
