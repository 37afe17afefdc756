"""Every code block of the README and of docs/ runs and shows what the page says, or says why it does not run here.

The words behind a fence's language: ``setup`` runs before every later block of its page; ``gpu`` needs one; ``minutes``
takes them. Installing is left out: ``.ci/run`` does that for real.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import stat
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from layerdiff.compare.cli.arguments import parse

from support.paths import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", *(f"{p.parent.name}/{p.name}" for p in
         (ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md")))))  # fmt: skip
FENCE = re.compile(r"^ *```(\w*) ?(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

# python3 -m venv FOLDER makes an environment of these: pip that has nothing to do, the rest from this environment.
PYTHON = """#!/bin/sh
if [ "$1 $2" != "-m venv" ]; then exec "{python}" "$@"; fi
mkdir -p "$3/bin"
cp "{shims}/pip" "{shims}/compare" "{shims}/pytest" "$3/bin"
"""
COMMAND = '#!/bin/sh\nexec "{python}" -m layerdiff "$@"\n'
SHIMS = {
    "python3": PYTHON,
    "python": PYTHON,
    "compare": COMMAND,
    "layerdiff": COMMAND,
    "pip": '#!/bin/sh\necho "pip $*"\n',
    "pytest": '#!/bin/sh\necho "pytest $*"\n',
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        line: Where it stands.
        mark: The word behind its language.
        shown: The output that stands below it; empty if none does.
    """

    page: str
    line: int
    language: str
    mark: str
    code: str
    shown: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text("utf-8")
    found: list[Block] = []
    for match in reversed(list(FENCE.finditer(text))):
        shown = found[0].code if found and found[0].language == "text" else ""
        line = text.count("\n", 0, match.start()) + 1
        found.insert(0, Block(page, line, match[1], match[2], match[3], shown))
    return found


EVERY = [block for page in PAGES for block in blocks(page) if block.language in ("sh", "python")]


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Runs bash in a folder for each page, which looks like the checkout, with commands of this environment."""
    shims = tmp_path_factory.mktemp("shims")
    for name, text in SHIMS.items():
        path = shims / name
        path.write_text(text.format(python=sys.executable, shims=shims))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}"}

    @cache
    def checkout(page: str) -> Path:
        folder = tmp_path_factory.mktemp("checkout")
        for name in ("examples", "README.md", "pyproject.toml"):
            (folder / name).symlink_to(ROOT / name)
        return folder

    def run(block: Block) -> subprocess.CompletedProcess[str]:
        code = block.code if block.language == "sh" else f"python - <<'END'\n{block.code}\nEND"
        return subprocess.run(
            ["bash", "-e", "-c", code], cwd=checkout(block.page), env=environment, capture_output=True, text=True
        )

    @cache
    def prepared(page: str) -> None:
        for block in blocks(page):
            if block.mark == "setup":
                run(block).check_returncode()

    def prepare_and_run(block: Block) -> subprocess.CompletedProcess[str]:
        prepared(block.page)
        return run(block)

    return prepare_and_run


def masked(text: str) -> list[str]:
    """Lines without what another version or machine may print differently: numbers and spaces."""
    return [" ".join(re.sub(r"\d[\d.,e+-]*", "#", line).split()) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("block", [b for b in EVERY if b.mark in ("", "setup")], ids=str)
def test_a_block_does_what_the_page_says(block, shell):
    if re.search(r"--tf\b|TfRunner|\.pb", block.code) and importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs TensorFlow")
    if ".tflite" in block.code and importlib.util.find_spec("ai_edge_litert") is None:
        pytest.skip("needs TFLite's runtime")
    if "--tokenizer" in block.code and importlib.util.find_spec("tokenizers") is None:
        pytest.skip("needs tokenizers")
    done = shell(block)
    fails = re.search(r"^(?:fail|undecided): ", block.shown, re.MULTILINE)
    assert done.returncode == (1 if fails else 0), done.stdout + done.stderr
    printed = masked(done.stdout)
    assert [line for line in masked(block.shown) if line not in printed] == [], done.stdout
    for line in re.findall(r"^(?:pass|fail|undecided|error|culprit \d+): .*$", block.shown, re.MULTILINE):
        assert line in done.stdout


@pytest.mark.parametrize("block", [b for b in EVERY if b.mark not in ("", "setup")], ids=str)
def test_a_block_that_is_not_run_asks_for_what_there_is(block):
    assert block.mark in ("gpu", "minutes")
    for line in re.sub(r"\\\n", " ", block.code).splitlines():
        words = shlex.split(line, comments=True)
        while words and "=" in words[0]:  # a variable of the environment
            words = words[1:]
        if words[:1] == ["compare"]:
            parse(words[1:])
        elif words[:2] == ["python", "-m"]:
            module = ROOT.joinpath(*words[2].split("."))
            source = next(p for p in (module.with_suffix(".py"), module / "__main__.py") if p.is_file()).read_text()
            assert [w for w in words if w.startswith("--") and f'"{w}"' not in source] == []
        elif words[:1] == ["pytest"]:
            assert [w for w in words if w.startswith("tests/") and not (ROOT / w).is_file()] == []


def test_commands_stand_in_fences():
    for page in PAGES:
        outside = FENCE.sub("", (ROOT / page).read_text("utf-8"))
        assert re.findall(r"^ {4}(?:\$ )?(?:compare|python|pytest|pip) .*", outside, re.MULTILINE) == [], page


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """To a file, and to a heading of it."""
    text = (ROOT / page).read_text("utf-8")
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in slugs, f"{target}#{heading}"


def test_every_page_is_linked_from_the_index_and_the_index_from_the_readme():
    linked = set(re.findall(r"\]\((\w+\.md)", (ROOT / "docs" / "index.md").read_text("utf-8")))
    assert linked == {p.name for p in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert "](docs/index.md)" in (ROOT / "README.md").read_text("utf-8")


def test_the_first_command_is_the_one_that_ci_runs_from_the_wheel():
    (words,) = re.findall(r"\.venv/bin/compare (.*)", blocks("README.md")[0].code)
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert words.replace("examples/", '"$copy"/examples/') in ci


def test_contributing_says_what_is_in_every_folder():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    listed = re.findall(r"^\| `([\w/]+)/` \|", text, re.MULTILINE)
    tops = ("compare", "dataloaders", "graph", "runners")
    packages = {str(p.parent.relative_to(ROOT)) for top in tops for p in (ROOT / top).rglob("__init__.py")}
    assert packages - set(listed) == set()
    assert [name for name in listed if not (ROOT / name).is_dir()] == []
    assert len(listed) == len(set(listed))
