"""Functions that do harm, each in one way, for ``--runner``: what the report says of the others must stay."""

import ctypes
import os
import signal
import sys
import time

import numpy as np


def good(feed):
    return {"y": np.maximum(feed["x"], 0)}


def slow(feed):
    time.sleep(0.2)
    return good(feed)


def exits(feed):
    sys.exit(0)


def exits_at_once(feed):
    ctypes.CDLL(None).quick_exit(0)


def raises(feed):
    raise RuntimeError("a\n\x1b[31mb\npass: all agree")


def raises_silently(feed):
    class Silent(Exception):
        def __str__(self):
            raise RuntimeError

    raise Silent


def generator_exit(feed):
    raise GeneratorExit


def base_exception(feed):
    raise BaseException("no")


def segfault(feed):
    ctypes.string_at(0)


def abort(feed):
    os.abort()


def killed(feed):
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(feed):
    ctypes.CDLL(None).sleep(1000)


def forks_and_falls(feed):
    if not os.fork():
        time.sleep(1000)
    ctypes.string_at(0)


def gives_none(feed):
    return None


def gives_nothing(feed):
    return {}


def gives_another_name(feed):
    return {0: good(feed)["y"]}


def gives_objects(feed):
    return {"y": np.array([object()] * 4)}


def gives_dates(feed):
    return {"y": np.array([1, 2, 3, 4], "M8[s]")}


def writes_into_its_input(feed):
    feed["x"][:] = 0
    return good(feed)


def recurses(feed):
    return recurses(feed)


def no_memory(feed):
    raise MemoryError("no")


def cuts(feed):
    for name in ("x.npy", "x.npz", "w.bin"):
        if os.path.exists(name):
            os.truncate(name, 4096)
    return good(feed)


HARM = [n for n, value in sorted(vars().items()) if callable(value) and n not in ("good", "slow", "cuts")]
