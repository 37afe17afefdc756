"""The documentation as a site: it builds without a warning, and what is generated is what the code says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from layerdiff.compare.cli import reference as commands
from layerdiff.compare.report import reference as report

from support.paths import ROOT


@pytest.mark.parametrize(("page", "made"), [("cli.md", commands), ("json.md", report)])
def test_the_reference_is_what_the_code_says(page, made, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    command = f"python -m {made.__name__} > docs/{page}"
    assert (ROOT / "docs" / page).read_text("utf-8") == made.text(), f"run: {command}"


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert [p.name for p in sorted((ROOT / "docs").glob("*.md")) if f" {p.name}\n" not in nav] == []


def test_the_site_builds_strictly(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    words = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").exists()
