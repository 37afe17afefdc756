"""The network, and the parser that makes it of ONNX."""

from __future__ import annotations

from pathlib import Path

import onnx

from .objects import ONNX_TYPES, fresh


class INetworkDefinition:
    def get_input(self, index):
        return self._inputs[index]

    def get_output(self, index):
        return self._outputs[index]

    def get_layer(self, index):
        return self._layers[index]

    def mark_output(self, tensor):
        self._outputs.append(tensor)

    def mark_unfused_tensors_as_debug_tensors(self):
        self._debug = True
        return True


class ILayer:
    def get_output(self, index):
        return self._outputs[index]

    def set_output_type(self, index, dtype):
        pass


class OnnxParser:
    def init(self, network, logger):
        self._network, self._errors = network, []
        self._values["num_errors"] = 0

    def parse(self, model, path=None):
        return parse(self, onnx.ModelProto.FromString(bytes(model)), str(Path(path).parent) if path else "")

    def parse_from_file(self, model):
        return parse(self, onnx.load(model, load_external_data=False), str(Path(model).parent))

    def get_error(self, index):
        return self._errors[index]


def tensor(trt, name, elem_type, shape):
    tensor = fresh(trt, "ITensor")
    kind = ONNX_TYPES[elem_type]
    if kind == "INT64" and kind not in trt.DataType.__members__:
        kind = "INT32"
    tensor._values.update(name=name, dtype=trt.DataType[kind], shape=shape, is_shape_tensor=False)
    return tensor


def shape(info):
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in info.type.tensor_type.shape.dim)


def sizes_of_one_name(network, profiles):
    """A name of dimensions of inputs that a profile gives two ranges."""
    for profile in profiles:
        found = {}
        for info in network._proto.graph.input:
            for axis, dim in enumerate(info.type.tensor_type.shape.dim):
                if dim.dim_param and info.name in profile._shapes:
                    sizes = tuple(shape[axis] for shape in profile._shapes[info.name])
                    if found.setdefault(dim.dim_param, sizes) != sizes:
                        return dim.dim_param
    return None


def parse(parser, proto, folder):
    trt, network = parser._trt, parser._network
    for position, node in enumerate(proto.graph.node):
        assert node.name, "TensorRT would invent a name for this node"
        if node.op_type == "NonMaxSuppression":
            error = fresh(trt, "ParserError")
            error._position, error._operator = position, node.op_type
            parser._errors.append(error)
            parser._values["num_errors"] = 1
            return False
    typed = onnx.shape_inference.infer_shapes(proto)
    infos = {i.name: i for i in (*typed.graph.value_info, *typed.graph.output, *typed.graph.input)}
    weights = {t.name for t in proto.graph.initializer}
    network._proto, network._folder = proto, folder
    network._inputs = [
        tensor(trt, i.name, i.type.tensor_type.elem_type, shape(i)) for i in proto.graph.input if i.name not in weights
    ]
    inputs, outputs = {t.name: t for t in network._inputs}, {o.name for o in proto.graph.output}
    for node in proto.graph.node:
        if node.op_type in ("Identity", "Dropout") and node.input[0] in inputs and node.output[0] in outputs:
            inputs[node.input[0]].name = f"__{node.output[0]}"  # an input cannot be an output: the parser renames it
    renamed = {n.input[0] for n in proto.graph.node if n.op_type == "Dropout" and n.output[0] in outputs}  # one tensor
    network._outputs = [
        tensor(trt, o.name, o.type.tensor_type.elem_type, shape(infos[o.name]))
        for o in proto.graph.output
        if o.name not in renamed
    ]
    network._layers = []
    kinds = trt.LayerType
    for node in proto.graph.node:
        if node.op_type == "LSTM":
            network._layers.extend(recurrence(trt, len(network._layers), [n for n in node.input if n in weights]))
        layer = fresh(trt, "ILayer")
        layer._outputs = [
            tensor(trt, n, infos[n].type.tensor_type.elem_type, shape(infos[n])) for n in node.output if n in infos
        ]
        kind = {"Constant": kinds.CONSTANT, "Shape": kinds.SHAPE, "Conv": kinds.CONVOLUTION}.get(
            node.op_type, kinds.ACTIVATION
        )
        layer._values.update(
            name=node.name, type=kind, num_outputs=len(layer._outputs), metadata=f"[ONNX Layer: {node.name}]"
        )
        network._layers.append(layer)
    network._values.update(
        num_inputs=len(network._inputs), num_outputs=len(network._outputs), num_layers=len(network._layers)
    )
    return True


def recurrence(trt, number, weights):
    """The layers that the parser puts before the named one: constants by their weights' names, and nameless ones."""
    named = [(name, trt.LayerType.CONSTANT, "") for name in weights]
    kinds = ("RECURRENCE", "MATRIX_MULTIPLY", "ACTIVATION", "LOOP_OUTPUT")
    nameless = [("", trt.LayerType[kind], kind.title().replace("_", "")) for kind in kinds]
    for at, (name, kind, text) in enumerate(named + nameless, number):
        layer = fresh(trt, "ILayer")
        name = name or f"(Unnamed Layer* {at}) [{text}]"
        layer._outputs = [tensor(trt, f"{name}_output", 1, (1,))]
        layer._values.update(name=name, type=kind, num_outputs=1, metadata="")
        yield layer


class ParserError:
    def node(self):
        return self._position

    def desc(self):
        return f"No importer registered for op: {self._operator}."
