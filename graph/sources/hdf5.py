"""HDF5 files, read once in a process of their own before anybody else reads them: damaged ones make the library run in
circles, or fall."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from ..errors import ModelError

SECONDS = 10
"""Seconds of processor time that a file may take to be read, and one more for every `RATE` bytes."""
RATE = 20_000_000
WALL = 30
"""Times as long by the clock, on a machine that is busy."""
_WALK = """
import io, json, sys
sys.path[:] = json.loads(sys.argv[1])
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[3]),) * 2)
except ImportError:
    pass
import zipfile
import h5py
path = sys.argv[2]
if zipfile.is_zipfile(path):
    with zipfile.ZipFile(path) as archive:
        sources = [io.BytesIO(archive.read(name)) for name in archive.namelist() if name.endswith(".h5")]
else:
    sources = [path]
for source in sources:
    with h5py.File(source, "r") as file:
        def look(item):
            for name in item.attrs:
                item.attrs[name]
            if isinstance(item, h5py.Dataset):
                item[()]
        look(file)
        file.visititems(lambda name, item: look(item))
"""


def check_hdf5(path: Path) -> None:
    """Refuses a Keras file of which HDF5 does not come to an end. What else is wrong with it, Keras says.

    Args:
        path: A ``.h5``, or a ``.keras``, which holds one.

    Raises:
        ModelError: It is damaged.
    """
    seconds = SECONDS + path.stat().st_size // RATE
    known = json.dumps([folder or os.getcwd() for folder in sys.path])
    command = [sys.executable, "-c", _WALK, known, os.fspath(path), str(seconds)]
    try:
        status = subprocess.run(command, capture_output=True, timeout=WALL * seconds).returncode
    except subprocess.TimeoutExpired:
        status = -int(getattr(signal, "SIGXCPU", 1))
    if status < 0:
        how = signal.Signals(-status).name
        how = f"comes to no end of it within {seconds} s" if how in ("SIGXCPU", "SIGKILL") else f"ends with {how}"
        raise ModelError(f"{path}: damaged: HDF5 {how}.")
