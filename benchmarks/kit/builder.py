"""Writes an ONNX graph node by node, and computes each node at once, so that what follows can be scaled to fit.

Weights drawn blindly give activations that vanish, explode or saturate, and a fault planted in such a network says
nothing about real ones. Here every layer is made with its true input at hand: the statistics of a BatchNormalization
are those of the tensor that it normalizes, the scale of a quantizer is that of the tensor that it quantizes.

Names follow PyTorch's exporter: node ``/layer1/layer1.0/conv1/Conv``, tensor ``/layer1/layer1.0/conv1/Conv_output_0``,
weight ``layer1.0.conv1.weight``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes  # noqa: F401 - registers the NumPy dtypes that ONNX tensors may have
import numpy as np
import onnx
from onnx import helper, numpy_helper

from .runtime import session

IR_VERSION = 8


class Builder:
    """An ONNX graph under construction.

    Attributes:
        values: Every tensor on the calibration samples.
        rng: Where weights come from.
    """

    def __init__(self, name: str, opset: int, seed: int) -> None:
        self.name = name
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.values: dict[str, np.ndarray] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self._names: set[str] = set()

    def input(self, name: str, values: np.ndarray, batch: str | int = "N") -> str:
        """Declares a graph input; ``values`` are the calibration samples, stacked on the first axis."""
        shape: list[str | int] = [batch, *values.shape[1:]]
        self.inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), shape))
        self.values[name] = values
        return name

    def weight(self, name: str, values: np.ndarray) -> str:
        """Adds an initializer; a name that exists already must hold the same values."""
        values = np.asarray(values)
        if name in self.initializers:
            if not np.array_equal(self.initializers[name], values):
                raise ValueError(f"weight {name!r} exists with other values")
            return name
        self.initializers[name] = values
        self.values[name] = values
        return name

    def constant(self, path: str, value: np.ndarray) -> str:
        """Adds a Constant node, as exporters do for scalars."""
        return self.node("Constant", [], path, value=numpy_helper.from_array(np.asarray(value)))

    def node(self, op: str, inputs: Sequence[str], path: str, *, count: int = 1, **attributes: Any) -> Any:
        """Adds and computes a node ``path/Op``. Returns its output, or a list of them where ``count`` > 1."""
        name = base = f"{path}/{op}"
        suffix = 0
        while name in self._names:
            suffix += 1
            name = f"{base}_{suffix}"
        self._names.add(name)
        outputs = [f"{name}_output_{i}" for i in range(count)]
        node = helper.make_node(op, list(inputs), outputs, name=name, **attributes)
        self.nodes.append(node)
        self.values.update(zip(outputs, self._compute(node), strict=True))
        return outputs[0] if count == 1 else outputs

    def _compute(self, node: onnx.NodeProto) -> list[np.ndarray]:
        names = list(dict.fromkeys(i for i in node.input if i))
        weights = [numpy_helper.from_array(self.values[n], n) for n in names if n in self.initializers]
        fed = [n for n in names if n not in self.initializers]
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(self.values[n].dtype), None) for n in fed
        ]
        outputs = [onnx.ValueInfoProto(name=o) for o in node.output]
        graph = helper.make_graph([node], "node", infos, outputs, weights)
        return session(self._model(graph)).run(None, {n: self.values[n] for n in fed})

    def _model(self, graph: onnx.GraphProto) -> onnx.ModelProto:
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=IR_VERSION if self.opset < 21 else 10,
            producer_name="pytorch",
        )

    def finish(self, outputs: dict[str, str], batch: str | int = "N") -> onnx.ModelProto:
        """The model. ``outputs``: name of a graph output -> tensor; the tensor takes the output's name."""
        renamed = {tensor: name for name, tensor in outputs.items()}
        for node in self.nodes:
            node.input[:] = [renamed.get(i, i) for i in node.input]
            node.output[:] = [renamed.get(o, o) for o in node.output]
        infos = []
        for name, tensor in outputs.items():
            value = self.values[tensor]
            shape: list[str | int] = [batch, *value.shape[1:]]
            infos.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape))
        weights = [numpy_helper.from_array(v, n) for n, v in self.initializers.items()]
        model = self._model(helper.make_graph(self.nodes, self.name, self.inputs, infos, weights))
        onnx.checker.check_model(model, full_check=True)
        return model

    # Layers. Each takes the path of the module it stands for and returns its output tensor.

    def std(self, tensor: str) -> float:
        """Standard deviation of a tensor on the calibration samples."""
        return float(np.std(self.values[tensor])) or 1.0

    def conv(
        self,
        x: str,
        path: str,
        channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        pads: int | Sequence[int] | None = None,
        group: int = 1,
        bias: bool = False,
        dilation: int = 1,
        gain: float = 2.0,
        transpose: bool = False,
    ) -> str:
        """Conv or ConvTranspose, He initialization (std^2 = gain / fan-in), channels of unequal norm as trained."""
        fan = self.values[x].shape[1] // group * kernel * kernel
        across = self.rng.lognormal(0.0, 0.25, (channels, 1, 1, 1))
        weight = self.rng.normal(0.0, np.sqrt(gain / fan), (channels, fan // kernel**2, kernel, kernel)) * across
        op = "Conv"
        if transpose:
            op, weight = "ConvTranspose", weight.transpose(1, 0, 2, 3)
        module = module_name(path)
        inputs = [x, self.weight(f"{module}.weight", weight.astype(np.float32))]
        if bias:
            inputs.append(self.weight(f"{module}.bias", self.rng.normal(0, 0.2, channels).astype(np.float32)))
        if pads is None:
            pads = 0 if transpose else dilation * (kernel // 2)
        pads = [pads] * 4 if isinstance(pads, int) else list(pads)
        return self.node(
            op,
            inputs,
            path,
            dilations=[dilation] * 2,
            group=group,
            kernel_shape=[kernel] * 2,
            pads=pads,
            strides=[stride] * 2,
        )

    def batch_norm(self, x: str, path: str, gain: float = 1.0) -> str:
        """BatchNormalization whose mean and variance are those of ``x``."""
        value, module = self.values[x], module_name(path)
        count = value.shape[1]
        axes = (0, *range(2, value.ndim))
        noise = self.rng.normal(0, 0.03, (2, count))
        variance = value.var(axis=axes) * np.exp(noise[0])
        mean = value.mean(axis=axes) + noise[1] * np.sqrt(variance)
        weights = {
            "weight": gain * np.clip(self.rng.normal(1.0, 0.2, count), 0.3, 1.8),
            "bias": self.rng.normal(0.1, 0.25, count),
            "running_mean": mean,
            "running_var": variance + 1e-3,
        }
        names = [self.weight(f"{module}.{k}", v.astype(np.float32)) for k, v in weights.items()]
        return self.node("BatchNormalization", [x, *names], path, epsilon=1e-5, momentum=0.9)

    def linear(self, x: str, path: str, width: int, *, bias: bool = True, gain: float = 1.0) -> str:
        """MatMul + Add, as exporters write a linear layer on more than two axes. Bias first, as PyTorch's do."""
        fan, module = self.values[x].shape[-1], module_name(path)
        weight = self.rng.normal(0, np.sqrt(gain / fan), (fan, width)) * self.rng.lognormal(0, 0.2, (1, width))
        y = self.node("MatMul", [x, self.weight(f"{module}.weight_t", weight.astype(np.float32))], path)
        if not bias:
            return y
        b = self.weight(f"{module}.bias", self.rng.normal(0, 0.1, width).astype(np.float32))
        return self.node("Add", [b, y], path)

    def gemm(self, x: str, path: str, width: int, gain: float = 1.0) -> str:
        """Gemm with a transposed weight: a linear layer on two axes."""
        fan, module = self.values[x].shape[-1], module_name(path)
        weight = self.rng.normal(0, np.sqrt(gain / fan), (width, fan)).astype(np.float32)
        bias = self.rng.normal(0, 0.1, width).astype(np.float32)
        names = [self.weight(f"{module}.weight", weight), self.weight(f"{module}.bias", bias)]
        return self.node("Gemm", [x, *names], path, alpha=1.0, beta=1.0, transB=1)

    def affine(self, path: str, width: int) -> list[str]:
        """gamma (about 1) and beta (about 0) of a normalization."""
        module = module_name(path)
        gamma = np.clip(self.rng.normal(1.0, 0.15, width), 0.4, 1.6).astype(np.float32)
        beta = self.rng.normal(0, 0.15, width).astype(np.float32)
        return [self.weight(f"{module}.weight", gamma), self.weight(f"{module}.bias", beta)]

    def layer_norm(self, x: str, path: str, *, decomposed: bool = False, epsilon: float = 1e-5) -> str:
        """LayerNormalization over the last axis: the operator, or the nine nodes of older exporters."""
        gamma, beta = self.affine(path, self.values[x].shape[-1])
        if not decomposed:
            return self.node("LayerNormalization", [x, gamma, beta], path, axis=-1, epsilon=epsilon)
        mean = self.node("ReduceMean", [x], path, axes=[-1])
        centred = self.node("Sub", [x, mean], path)
        two = self.constant(path, np.float32(2))
        square = self.node("Pow", [centred, two], path)
        variance = self.node("ReduceMean", [square], path, axes=[-1])
        offset = self.node("Add", [variance, self.constant(path, np.float32(epsilon))], path)
        root = self.node("Sqrt", [offset], path)
        normal = self.node("Div", [centred, root], path)
        return self.node("Add", [self.node("Mul", [normal, gamma], path), beta], path)

    def gelu(self, x: str, path: str) -> str:
        """x/2 (1 + erf(x / sqrt 2)), the five nodes of PyTorch's exporter below opset 20, the operator from 20 on."""
        if self.opset >= 20:
            return self.node("Gelu", [x], path, approximate="none")
        root = self.constant(path, np.float32(np.sqrt(2)))
        error = self.node("Erf", [self.node("Div", [x, root], path)], path)
        shifted = self.node("Add", [error, self.constant(path, np.float32(1))], path)
        product = self.node("Mul", [x, shifted], path)
        return self.node("Mul", [product, self.constant(path, np.float32(0.5))], path)

    def reshape(self, x: str, path: str, shape: Sequence[int]) -> str:
        """Reshape to ``shape``; 0 copies a dimension."""
        return self.node("Reshape", [x, self.constant(path, np.asarray(shape, np.int64))], path)


def module_name(path: str) -> str:
    """The PyTorch module that a node path stands for: ``/layer1/layer1.0/conv1`` -> ``layer1.0.conv1``."""
    parts: list[str] = []
    for part in path.strip("/").split("/"):
        if parts and part.startswith(parts[-1] + "."):
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts)
