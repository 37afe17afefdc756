"""Every code block of the README runs. Installing is left out here: ``.ci/run`` does it for real."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import subprocess
import sys

import pytest

from support.paths import ROOT

README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
RUNNABLE = [(language, code) for language, code in BLOCKS if language != "text"]

# python3 -m venv FOLDER makes an environment of these: pip that has nothing to do, the rest from this environment.
PYTHON = """#!/bin/sh
if [ "$1 $2" != "-m venv" ]; then exec "{python}" "$@"; fi
mkdir -p "$3/bin"
cp "{shims}/pip" "{shims}/compare" "{shims}/pytest" "$3/bin"
"""
SHIMS = {
    "python3": PYTHON,
    "python": PYTHON,
    "compare": '#!/bin/sh\nexec "{python}" -m layerdiff "$@"\n',
    "pip": '#!/bin/sh\necho "pip $*"\n',
    "pytest": '#!/bin/sh\necho "pytest $*"\n',
}


@pytest.fixture
def shell(tmp_path):
    """Runs bash in a folder that looks like the checkout, with commands of this environment."""
    shims = tmp_path / "shims"
    shims.mkdir()
    for name, text in SHIMS.items():
        path = shims / name
        path.write_text(text.format(python=sys.executable, shims=shims))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("examples", "README.md", "pyproject.toml"):
        (checkout / name).symlink_to(ROOT / name)

    def run(command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}"}
        return subprocess.run(
            ["bash", "-e", "-c", command], cwd=checkout, env=environment, capture_output=True, text=True
        )

    return run


def label(block: tuple[str, str]) -> str:
    return block[1].strip().splitlines()[0][:60]


@pytest.mark.parametrize("block", RUNNABLE, ids=map(label, RUNNABLE))
def test_every_block_runs(block, shell):
    language, code = block
    if re.search(r"--tf\b|TfRunner|\.pb", code) and importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs TensorFlow")
    assert language in ("sh", "python")
    command = code if language == "sh" else f"python - <<'END'\n{code}\nEND"
    done = shell(command)
    following = BLOCKS[BLOCKS.index(block) + 1 :][:1]
    fails = bool(following) and following[0][0] == "text" and re.search(r"^fail: ", following[0][1], re.MULTILINE)
    assert done.returncode == (1 if fails else 0), done.stdout + done.stderr
    if following and following[0][0] == "text":
        for line in re.findall(r"^(?:pass|fail|error|culprit \d+): .*$", following[0][1], re.MULTILINE):
            assert line in done.stdout


def test_the_first_command_is_the_one_that_ci_runs_from_the_wheel():
    (words,) = re.findall(r"\.venv/bin/compare (.*)", RUNNABLE[0][1])
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert words.replace("examples/", '"$copy"/examples/') in ci


def test_the_files_that_the_readme_names_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target
