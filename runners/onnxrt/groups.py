"""What ONNX Runtime fuses: which nodes of a model share a kernel in the program that it runs.

ONNX Runtime can write its optimized graph. A tensor of the model that is still computed there ends a group: its group
is every node that has no such tensor between itself and this one.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from ...graph.errors import BuildError
from .loading import build, import_onnxruntime
from .runner import OnnxrtRunner

if TYPE_CHECKING:
    import onnx

    from ...graph.index import GraphIndex
    from ...graph.model import Model

_NCHWC = "com.microsoft.nchwc"
_ACTIVATIONS = {"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid"}


def optimized_groups(model: Model, runner: OnnxrtRunner | None = None) -> list[tuple[int, ...]]:
    """The nodes of ``model`` as ONNX Runtime groups them.

    A node that is computed before the first run (constant folding) or dropped (Identity) stands in the group of the
    node that reads it.

    Args:
        model: The model.
        runner: Its provider and optimization level count.

    Returns:
        Positions in ``graph.node``, ascending inside a group; every node in one group, in order of the last node of
        each.

    Raises:
        RunnerError: As `OnnxrtRunner.open` does.
    """
    index = model.index
    groups: dict[str, list[int]] = {}
    ends = computed_tensors(model, runner)
    group_of: dict[int, str] = {}
    outputs = set(index.outputs)
    for position in range(len(index.nodes) - 1, -1, -1):
        node = index.nodes[position]
        end = next((name for name in node.output if name in ends or name in outputs), None)
        if end is None:
            readers = [r for name in node.output for r in index.consumers.get(name, ())]
            end = group_of[min(readers)] if readers else node.output[0]
        group_of[position] = end
        groups.setdefault(end, []).append(position)
    return sorted((tuple(sorted(group)) for group in groups.values()), key=lambda group: group[-1])


def computed_tensors(model: Model, runner: OnnxrtRunner | None = None) -> set[str]:
    """Tensors of ``model`` that the optimized graph still computes: everything else lives inside a kernel, or nowhere.

    Raises:
        RunnerError: As `OnnxrtRunner.open` does.
    """
    import onnx

    runner = runner or OnnxrtRunner()
    with tempfile.TemporaryDirectory(prefix="layerdiff-ort-") as folder:
        path = os.path.join(folder, "optimized.onnx")
        loaded = build(runner, import_onnxruntime(runner), model, (), optimized=path)
        del loaded
        try:
            optimized = onnx.load(path, load_external_data=False)
        except (OSError, ValueError) as error:
            raise BuildError(
                f"{runner.name}: {model.source}: ONNX Runtime wrote no optimized graph: {error}"
            ) from error
    index = model.index
    by_name = {node.name: node for node in index.nodes if node.name}
    found: set[str] = set()
    for node in optimized.graph.node:
        kept = [name for name in node.output if name in index.producer]
        if node.domain == _NCHWC and node.name.removesuffix("_nchwc") in index.producer:
            found.add(_blocked(node, index))
        elif not kept and node.name in by_name and by_name[node.name].op_type == node.op_type:
            found.add(by_name[node.name].output[0])  # moved into the blocked layout as it is: a Concat
        found.update(kept)
    return found


def _blocked(node: onnx.NodeProto, index: GraphIndex) -> str:
    """The tensor that a node in ONNX Runtime's blocked layout computes.

    Its outputs have new names; its own name is that of the tensor it was made for. An addition (its fourth input) and
    an activation that it took in afterwards follow that tensor.
    """
    name = str(node.name).removesuffix("_nchwc")
    steps = [{"Add", "Sum"}] if len(node.input) > 3 and node.input[3] else []
    maker = index.nodes[index.producer[name]].op_type
    if any(a.name == "activation" for a in node.attribute) and maker not in _ACTIVATIONS:
        steps.append(_ACTIVATIONS)
    for step in steps:
        readers = index.consumers.get(name, [])
        following = [r for r in readers if index.nodes[r].op_type in step]
        if len(following) == 1:
            name = index.nodes[following[0]].output[0]
    return name
