"""Installs the parser and the builder of TensorRT for RTX from the package index alone, into a folder.

    python -m benchmarks.gpu.rtx FOLDER        then: PYTHONPATH=FOLDER pytest -m rtx

The package ``tensorrt-rtx`` fetches its libraries from NVIDIA's own index. Where that cannot be reached, they are taken
out of the wheel of ONNX Runtime's execution provider for TensorRT for RTX, which holds them, and put beside the Python
bindings. For x86-64 Linux and Python 3.9 to 3.13; about 400 MB are downloaded.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

BINDINGS = "tensorrt-rtx-cu13-bindings==1.7.1.116"
LIBRARIES = "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0"
HOME = "tensorrt_rtx_bindings"
"""The folder in which the bindings look for the libraries."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", downloads, BINDINGS, LIBRARIES]
        subprocess.run(pip, check=True)
        for wheel in Path(downloads).glob("*.whl"):
            unpack(wheel, folder)
    package = folder / "tensorrt_rtx"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text(f"from {HOME} import *\nfrom {HOME} import __version__\n")
    print(f"TensorRT for RTX is in {folder}: PYTHONPATH={folder}")


def unpack(wheel: Path, folder: Path) -> None:
    """The bindings whole; of the execution provider its two libraries, under the names that the bindings load."""
    with ZipFile(wheel) as archive:
        if wheel.name.startswith("tensorrt_rtx"):
            archive.extractall(folder)
            return
        for member in archive.namelist():
            stem, found, _ = Path(member).name.partition(".so")
            if found and stem in ("libtensorrt_rtx", "libtensorrt_onnxparser_rtx"):
                (folder / HOME).mkdir(exist_ok=True)
                (folder / HOME / f"{stem}.so.1").write_bytes(archive.read(member))


if __name__ == "__main__":
    main()
