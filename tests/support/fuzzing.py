"""A command on damaged input, in a process of its own: how it may end, and how inputs are damaged."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, settings
from layerdiff.compare.cli.command import main

Damage = Callable[[Path, random.Random], list[str]]
"""Writes damaged input into a folder, and gives the words of a command that reads it."""
ASKED = int(os.environ.get("LAYERDIFF_FUZZ", "0"))
"""How many inputs are to be tried in all; 0: a few of each kind, always the same."""
LOG = os.environ.get("LAYERDIFF_FUZZ_LOG")
"""File that is told how each ended."""
FORKS = hasattr(os, "fork") and os.path.exists("/proc/self/statm")
SECONDS = 60
MEMORY = 6 << 30
"""Bytes of address space more than the process has."""


def examples(asked: int, few: int) -> settings:
    """How many inputs of one kind hypothesis draws.

    Args:
        asked: Where `ASKED` says how many are to be tried in all; drawn at random.
        few: Else; always the same.
    """
    return settings(
        max_examples=asked if ASKED else few,
        derandomize=not ASKED,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    signal: int
    out: str
    err: str

    @property
    def wrong(self) -> str:
        """What must not be; empty where all is well."""
        if self.signal:
            return f"ended by {signal.Signals(self.signal).name}"
        if self.status not in (0, 1, 2, 3):
            return f"status {self.status}"
        for sign in ("Traceback", "unexpected error"):
            if sign in self.err or sign in self.out:
                return sign
        if (
            self.status == 2
            and sum(line.startswith(("compare: ", "layerdiff ")) for line in self.err.splitlines()) != 1
        ):
            return "wrong usage that is not told in one message"
        if self.status == 0 and "pass" not in self.out:
            return "status 0 without a pass"
        return ""


def attempt(words: Sequence[str], folder: Path) -> Ended:
    """Runs the command in a copy of this process, in ``folder``, with a limit on time and memory."""
    out, err = folder / "stdout", folder / "stderr"
    child = os.fork()
    if not child:
        status = 99
        try:
            os.chdir(folder)
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), number)
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until the process ends
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.alarm(SECONDS)
            status = main(words)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            (folder / "status").write_text(str(status))
            os.kill(os.getpid(), signal.SIGKILL)  # a copy of the tests' process has nothing to tidy up
    _, result = os.waitpid(child, 0)
    text = [path.read_text("utf-8", "replace") if path.exists() else "" for path in (out, err)]
    if (folder / "status").exists():
        return Ended(int((folder / "status").read_text()), 0, *text)
    return Ended(-1, os.WTERMSIG(result) if os.WIFSIGNALED(result) else 0, *text)


def hold(kind: str, damage: Damage, prepared: Path, seed: int) -> None:
    """Damages a copy of what is prepared, and holds how the command ends against what must not be.

    Args:
        kind: What is damaged, for the log.
        damage: Damages it.
        prepared: A folder of good files.
        seed: Of the damage.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "here"
        shutil.copytree(prepared, folder)
        words = damage(folder, random.Random(seed))
        ended = attempt(words, folder)
        if LOG:
            with open(LOG, "a", encoding="utf-8") as log:
                log.write(json.dumps([kind, seed, ended.status, ended.signal, ended.wrong, words]) + "\n")
        assert not ended.wrong, (words, ended)
        assert os.listdir(name) == ["here"]


# ---- damage ---------------------------------------------------------------------------------------------------------

NUMBERS = (0, 1, -1, 2, 7, 127, 255, 2**31 - 1, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
TEXTS = (
    "",
    "\0",
    "x",
    "y",
    "../m.onnx",
    "/etc/passwd",
    "a" * 5000,
    "\x1b[31m\npass: all",
    "é\u202e",
    "nan",
    "-1",
    "1e999",
)


def damaged_bytes(content: bytes, draw: random.Random) -> bytes:
    """Bytes changed, cut out, doubled or put in, in a few places."""
    made = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(made) + 1)
        how = draw.randrange(5)
        if how == 0 and at < len(made):
            made[at] = draw.randrange(256)
        elif how == 1 and at < len(made):
            made[at] ^= 1 << draw.randrange(8)
        elif how == 2:
            del made[at : at + draw.randint(1, 40)]
        elif how == 3:
            made[at:at] = made[at : at + draw.randint(1, 40)]
        else:
            made[at:at] = bytes(draw.randrange(256) for _ in range(draw.randint(1, 8)))
    return bytes(made)


def damaged_message(proto: Message, draw: random.Random) -> Message:
    """A copy with a few fields, anywhere inside, that say something odd, are doubled, or are not there."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    for _ in range(draw.randint(1, 3)):
        _damage(copy, draw)
    return copy


def _damage(message: Any, draw: random.Random) -> None:
    while True:
        fields = message.ListFields()
        if not fields or draw.random() < 0.15:
            break
        descriptor, value = draw.choice(fields)
        if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            message_inside = draw.choice(list(value)) if hasattr(value, "add") else value
            if draw.random() < 0.1 and hasattr(value, "add"):
                value.add().CopyFrom(message_inside)
                return
            message = message_inside
            continue
        _set(message, descriptor, value, draw)
        return
    descriptor = draw.choice(message.DESCRIPTOR.fields)
    if draw.random() < 0.5:
        message.ClearField(descriptor.name)
    elif descriptor.type != FieldDescriptor.TYPE_MESSAGE:
        _set(message, descriptor, getattr(message, descriptor.name), draw)


def _set(message: Any, descriptor: Any, value: Any, draw: random.Random) -> None:
    try:
        if hasattr(value, "append"):
            if value and draw.random() < 0.5:
                value[draw.randrange(len(value))] = _odd(descriptor, draw)
            elif draw.random() < 0.7:
                value.append(_odd(descriptor, draw))
            else:
                del value[:]
        else:
            setattr(message, descriptor.name, _odd(descriptor, draw))
    except (ValueError, TypeError):  # a number that the field cannot hold
        message.ClearField(descriptor.name)


def _odd(descriptor: Any, draw: random.Random) -> Any:
    if descriptor.type == FieldDescriptor.TYPE_STRING:
        return draw.choice(TEXTS)
    if descriptor.type == FieldDescriptor.TYPE_BYTES:
        return draw.choice((b"", b"\0" * 7, b"\xff" * 64, b"abc"))
    if descriptor.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return draw.choice((0.0, -1.0, float("inf"), float("nan"), 1e38))
    return draw.choice(NUMBERS)


def damaged_json(value: Any, draw: random.Random) -> Any:
    """The value with something odd somewhere inside."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        if draw.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: damaged_json(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        at = draw.randrange(len(value))
        if draw.random() < 0.1:
            return [*value[:at], *value[at + 1 :]]
        return [*value[:at], damaged_json(value[at], draw), *value[at + 1 :]]
    return draw.choice((None, True, {}, [], [[]], {"a": 1}, *NUMBERS, *TEXTS, 1.5, 1e308, float("nan")))


def written_json(value: Any, draw: random.Random) -> bytes:
    """JSON of a value, damaged, at times as text too."""
    content = json.dumps(damaged_json(value, draw)).encode("utf-8", "surrogatepass")
    return damaged_bytes(content, draw) if draw.random() < 0.2 else content
