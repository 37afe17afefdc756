"""TensorFlow and tf2onnx, imported without what they say while they are."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from ..errors import MissingPackage
from ..interrupts import uninterrupted


def import_tensorflow() -> Any:
    """The ``tensorflow`` module, imported without its log lines on stderr.

    Its C++ part writes some of them before it reads ``TF_CPP_MIN_LOG_LEVEL``, so that stderr is held back meanwhile;
    it is given out after all when the import fails.

    Raises:
        MissingPackage: It is not installed, or is installed and broken.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingPackage("TensorFlow", "tf")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with uninterrupted(), held_stderr():
            import_triton()
            import tensorflow

            tensorflow.get_logger().setLevel(logging.ERROR)
    except ImportError as error:
        raise MissingPackage(f"TensorFlow cannot be imported ({first_line(error)}): it", "tf") from error
    with contextlib.suppress(Exception):  # refused once devices are in use; then the host program has decided
        for device in tensorflow.config.list_physical_devices("GPU"):
            tensorflow.config.experimental.set_memory_growth(device, True)
    return tensorflow


def import_triton() -> None:
    """Imports Triton, which PyTorch imports when it exports or loads a program, if it is there: where TensorFlow was
    loaded before it, its library ends the process in a segmentation fault (tensorflow 2.21, triton 3.8)."""
    with contextlib.suppress(Exception):
        if importlib.util.find_spec("triton") is not None:
            importlib.import_module("triton")


def import_tf2onnx() -> Any:
    """The ``tf2onnx`` module, with its warnings off.

    Raises:
        MissingPackage: It is not installed.
    """
    import_tensorflow()
    try:
        with uninterrupted():
            import tf2onnx.convert
    except ImportError as error:
        raise MissingPackage("tf2onnx", "tf") from error
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    return tf2onnx


@contextlib.contextmanager
def held_stderr() -> Iterator[None]:
    """Keeps what native code writes to stderr, and writes it out if the block fails."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, ValueError, AttributeError):  # no stderr at all
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            if failed:
                file.seek(0)
                sys.stderr.write(file.read().decode("utf-8", "replace"))


@contextlib.contextmanager
def silent_logging() -> Iterator[None]:
    """Turns off all logging: TensorFlow and tf2onnx log through absl's loggers and through several of their own."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def first_line(error: BaseException) -> str:
    """What an exception says, in one line without its full stop. Keras gives the cause below where it happened."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()] or [type(error).__name__]
    chosen = lines[1] if len(lines) > 1 and lines[0].startswith("Exception encountered when calling") else lines[0]
    return chosen.rstrip(".")[:300]
