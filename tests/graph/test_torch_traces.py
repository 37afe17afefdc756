"""What PyTorch's exporters leave in nodes: module path, node of the program, line of source."""

from __future__ import annotations

import pytest
from layerdiff.graph.torch_traces import trace_of
from onnx import helper

STACK = """  File "/home/me/net.py", line 18, in forward
    x = self.body(x)
  File "/home/me/net.py", line 9, in forward
    return x + self.fc(x)
  File "/usr/lib/python3.11/site-packages/torch/nn/modules/linear.py", line 125, in forward
    return F.linear(input, self.weight, self.bias)"""


def node(name="n", **metadata):
    made = helper.make_node("Gemm", ["x"], ["y"], name)
    for key, value in metadata.items():
        made.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
    return made


@pytest.mark.parametrize(
    ("scopes", "path", "name"),
    [
        ("['', 'body', 'body.0', 'body.0.fc', 'linear_2']", "body.0.fc", "linear_2"),
        ("['', 'relu']", "", "relu"),
        ("['relu']", "", "relu"),
    ],
)
def test_name_scopes_tell_the_module_and_the_node_of_the_program(scopes, path, name):
    trace = trace_of(node(name_scopes=scopes, stack_trace=STACK))
    assert (trace.path, trace.name) == (path, name)


@pytest.mark.parametrize("scopes", ["", "[", "{}", "[1, 2]"])
def test_scopes_that_cannot_be_read_leave_the_line(scopes):
    assert str(trace_of(node(name_scopes=scopes, stack_trace=STACK))) == "/home/me/net.py:9 in forward"


def test_the_line_is_the_innermost_that_is_not_pytorchs_own():
    assert trace_of(node(stack_trace=STACK)).line == "/home/me/net.py:9 in forward"


def test_of_a_stack_of_pytorchs_own_lines_it_is_the_innermost():
    own = STACK[STACK.index('  File "/usr') :]
    assert trace_of(node(stack_trace=own)).line.endswith("torch/nn/modules/linear.py:125 in forward")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/fc1/Gemm", "fc1"),
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/layer1/layer1.0/down/down.1/Conv", "layer1.0.down.1"),
        ("/Add", ""),
    ],
)
def test_the_older_exporter_leaves_the_module_in_the_name(name, path):
    assert trace_of(node(name)).path == path


@pytest.mark.parametrize("name", ["", "Gemm_7", "layer/Gemm"])
def test_other_nodes_have_no_trace(name):
    assert trace_of(node(name)) is None


def test_a_trace_in_words():
    trace = trace_of(node(name_scopes="['', 'fc', 'linear']", stack_trace=STACK))
    assert str(trace) == "fc, /home/me/net.py:9 in forward"
