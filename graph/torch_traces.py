"""What PyTorch's exporters leave of the program in an ONNX file: module paths, names of nodes, lines of source.

The exporter of today (``dynamo=True``) writes metadata beside every node, ``pkg.torch.onnx.*``. The older one leaves
the path of the module in the node's name, ``/layer1/layer1.0/conv1/Conv``.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

import onnx

_PREFIX = "pkg.torch.onnx."
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in ([\w<>]+)')
_INSIDE_TORCH = re.compile(r"[/\\]torch[/\\](nn|_|ops|functional|utils|onnx|fx|export)")
"""Files of PyTorch itself: a convolution is computed there, and written elsewhere."""


@dataclass(frozen=True)
class Trace:
    """Where an ONNX node comes from.

    Attributes:
        path: The module that it computes a part of, ``encoder.layers.0.fc``; empty for the outermost.
        name: The node of the exported program (``torch.export``), ``linear_3``; empty where that is not known.
        line: The line of the user's program, ``net.py:18 in forward``; empty where that is not known.
    """

    path: str
    name: str = ""
    line: str = ""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.path, self.line)))


def trace_of(node: onnx.NodeProto) -> Trace | None:
    """Where a node comes from; None where no exporter of PyTorch's tells."""
    told = {p.key: p.value for p in node.metadata_props}
    stack = next((value for key, value in told.items() if key.endswith(".stack_trace")), "")
    scopes = _scopes(told.get(f"{_PREFIX}name_scopes", ""))
    if scopes:
        path = scopes[-2] if len(scopes) > 1 else ""
        return Trace(path, scopes[-1], _line(stack))
    if stack:
        return Trace("", line=_line(stack))
    parts = node.name.split("/")
    return Trace(_joined(parts[1:-1])) if node.name.startswith("/") and len(parts) > 1 else None


def _scopes(text: str) -> list[str]:
    """``['', 'body', 'body.0', 'conv2d']``: the modules from the outermost to the innermost, then the node."""
    try:
        found = ast.literal_eval(text) if text else []
    except (ValueError, SyntaxError):
        return []
    return found if isinstance(found, list) and all(isinstance(scope, str) for scope in found) else []


def _line(stack: str) -> str:
    """The innermost line that is not PyTorch's own; of a stack of these alone the innermost."""
    frames = _FRAME.findall(stack)
    own = [frame for frame in frames if not _INSIDE_TORCH.search(frame[0])] or frames
    return "{}:{} in {}".format(*own[-1]) if own else ""


def _joined(scopes: list[str]) -> str:
    """``layer1/layer1.0/conv1`` as ``layer1.0.conv1``: an item of a list is called by the list's name too."""
    path: list[str] = []
    for scope in scopes:
        if path and scope.startswith(f"{path[-1]}."):
            path.pop()
        path.append(scope)
    return ".".join(path)
