"""ONNX Runtime's messages, in the words of whoever runs a model."""

from __future__ import annotations

import re

_SPACE = re.compile(r"[ \t\r\n]+")  # no control characters, which names may hold
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_PLACE = re.compile(r"\S*/onnxruntime/\S+:\d+ .*?\) ")
_IN_NODE = re.compile(
    r'In Node, \("(?P<name>[^"]*)", (?P<op>\w+), "(?P<domain>[^"]*)", -?\d+\) : .*? -> .*?,?\) , Error '
)
_WHILE = re.compile(
    r"Non-zero status code returned while running (?P<op>\w+) node\. Name:'(?P<name>[^']*)' Status Message: "
)
_TOO_NEW = re.compile(
    r"guarantees\* support .*?Opset (?P<opset>\d+) is under development.*? for domain (?P<domain>\S+) is till opset "
    r"(?P<known>\d+)"
)


def too_new(error: BaseException) -> tuple[str, int, int] | None:
    """Domain and opset of a model of which ONNX Runtime says that the opset is none that it knows, and the greatest
    that it does; None where it says something else."""
    found = _TOO_NEW.search(_SPACE.sub(" ", str(error)))
    return None if found is None else (found["domain"], int(found["opset"]), int(found["known"]))


def one_line(error: BaseException) -> str:
    """ONNX Runtime's message without its codes and source lines; nodes are named as ``Op 'name'``."""
    text = _SPACE.sub(" ", str(error)).strip()
    text = _CODE.sub("", text)
    text = _IN_NODE.sub(lambda m: f"{m['domain'] + '.' if m['domain'] else ''}{m['op']} '{m['name']}': ", text)
    text = _WHILE.sub(lambda m: f"{m['op']} '{m['name']}': ", text)
    text = _PLACE.sub("", text)
    return text if len(text) <= 400 else text[:397] + "..."
