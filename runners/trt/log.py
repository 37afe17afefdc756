"""TensorRT's log, kept instead of printed: failures are explained from it."""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from functools import cache
from typing import Any

from ..contract.session import STEPS

steps = logging.getLogger(STEPS)
_PARSING = "Parsing node: "
"""What the parser says before each node, and its operator in brackets behind it."""


class _Kept:
    """What was logged since `begin`: the last errors and warnings, and which node is being parsed."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=100)
        self.warnings: deque[str] = deque(maxlen=1000)
        self.parsing = ""


@cache
def log_of(trt: Any) -> Any:
    """The one logger of this process: TensorRT keeps the first it is given and complains about a second."""

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps what this thread is told since it called ``begin``; what threads of TensorRT's own say is told to the
        thread that called it last."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._own = threading.local()
            self._last = _Kept()

        @property
        def kept(self) -> _Kept:
            found: _Kept = getattr(self._own, "kept", self._last)
            return found

        @property
        def errors(self) -> deque[str]:
            return self.kept.errors

        @property
        def warnings(self) -> deque[str]:
            return self.kept.warnings

        @property
        def parsing(self) -> str:
            return self.kept.parsing

        def begin(self) -> None:
            self._own.kept = self._last = _Kept()

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(msg)
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(msg)
            elif severity == trt.ILogger.VERBOSE and msg.startswith(_PARSING):
                self.kept.parsing = msg.removeprefix(_PARSING).rpartition(" [")[0]
                steps.debug("parsing %s", msg.removeprefix(_PARSING))

    return Log()


_FAILED_NODES = (
    re.compile(r"Cannot compile operation '(.+?)' for "),
    re.compile(r"\(I[\w/]+Layer ([^\s:]+)(?:: | has )"),
    re.compile(r"(\S+) has no runners that implement it"),
    re.compile(r"\(Tensor (\S+) has datatype "),
    re.compile(r"Could not find any implementation for node (.+?)(?:\.\)?(?:\s|$)| due to |$)"),
    re.compile(r"(?:in|building|of) (?:node|layer) ([^\s:,]+(?: \+ [^\s:,]+)*)"),
)
_FAILED_OPERATOR = re.compile(r"\b([A-Z]\w+) operation was not supported")
_PREFIX = re.compile(r"^(?:\d+: |\[[^\]]*\]\s*|Error Code \d+: |IBuilder::\w+: |Myelin \(\[[^\]]*\] )+")


_SOURCE = re.compile(r"\.? \(?In \w+ at /\S+.*$")
"""Where in TensorRT's own source an error was raised."""


def failed_node(errors: list[str]) -> str:
    """The layer that the builder could not build, or its tensor, as its log names it; empty if it names none.

    A fused layer's name is made of its ONNX nodes: ``conv1 + relu1``, ``{ForeignNode[a...b]}``.
    """
    for pattern in _FAILED_NODES:
        for text in errors:
            found = pattern.search(text)
            if found:
                return found.group(1)
    return ""


def failed_operator(errors: list[str]) -> str:
    """The operator that the builder could not build, where its log names that alone; empty if it does not."""
    found = next((match for text in errors if (match := _FAILED_OPERATOR.search(text))), None)
    return found.group(1) if found else ""


def reason(errors: list[str]) -> str:
    """The most telling line of a failure: the first error, without the source locations around it."""
    for text in errors:
        line = text.strip().splitlines()[0]
        short = _SOURCE.sub("", _PREFIX.sub("", line)).strip()
        if short:
            return short[:400].rstrip(".")
    return "it gave no reason"


_UNLOADABLE = (
    (re.compile(r"magic tag", re.I), "it is no TensorRT engine, or a damaged one"),
    (
        re.compile(r"expecting library version (\S+) got ([^\s,]+)", re.I),
        "it was built by TensorRT {1}, and this is {0}",
    ),
    (re.compile(r"version tag does not match|not compatible with this version", re.I), "another version built it"),
    (
        re.compile(r"expecting compute (\S+) got compute ([^\s,]+)", re.I),
        "it was built for a GPU of compute capability {1}, and this one has {0}",
    ),
    (re.compile(r"incompatible device", re.I), "it was built for another GPU"),
)


def why_unloadable(errors: list[str]) -> str:
    """Why an engine cannot be deserialized: the version, the GPU, or what else TensorRT says."""
    for pattern, text in _UNLOADABLE:
        for error in errors:
            found = pattern.search(error)
            if found:
                return text.format(*found.groups())
    return f"it is no engine, or cut short: {reason(errors)}"


_WEIGHT_NOTES = (
    (
        "less than smallest positive",
        "{n} weights held values below FP16's smallest subnormal: TensorRT lifted them to it.",
    ),
    ("greater than largest", "{n} weights held values above FP16's largest: TensorRT clamped them to it."),
    ("infinit", "{n} weights overflow FP16: {text}."),
    ("subnormal", "{n} weights hold values that are subnormal in FP16."),
)


def weight_notes(warnings: list[str]) -> tuple[str, ...]:
    """What narrow formats did to weights (counted in tensors), from the builder's warnings.

    TensorRT 8.6 sums them up at the end: ``- 16 weights are affected by this issue: Detected values less than smallest
    positive FP16 subnormal value and converted them to the FP16 minimum subnormalized value.``
    """
    notes = {}
    for warning in warnings:
        found = re.search(r"(\d+) weights? (?:is|are) affected by this issue:\s*(.+)", warning)
        if found:
            text = found.group(2).strip().rstrip(".")
            words = next((w for key, w in _WEIGHT_NOTES if key in text.lower()), "{n} weights: {text}.")
            notes[text] = words.format(n=found.group(1), text=text)
    return tuple(notes.values())
