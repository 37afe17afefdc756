"""Formats of the report: a new one is one new file in the folder, and nothing else knows of it."""

from __future__ import annotations

import json
import sys

import pytest
from layerdiff import UsageError
from layerdiff.compare import report as package
from layerdiff.compare.cli.arguments import parse
from layerdiff.compare.cli.command import main
from layerdiff.compare.report.files import write
from layerdiff.compare.report.formats import formats

ONE_FILE = """
FLAG = "--lines"
HELP = "write one line for each output"


def render(report):
    return "".join(f"{output.tensor}: {output.verdict}\\n" for output in report.outputs).encode("utf-16")
"""
RELU = "g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }"


@pytest.fixture
def a_new_file(tmp_path, monkeypatch):
    """A folder that is part of ``compare/report``, with one module in it."""
    (tmp_path / "lines.py").write_text(ONE_FILE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    formats.cache_clear()
    yield
    formats.cache_clear()
    sys.modules.pop(f"{package.__name__}.lines", None)


def test_the_formats_there_are():
    assert set(formats()) == {"--csv", "--html", "--json", "--junit", "--markdown", "--model-explorer", "--text"}


def test_a_new_format_is_one_new_file(a_new_file, onnx_file, tmp_path, capsys):
    written = [tmp_path / name for name in ("one.txt", "two.txt", "report.json")]
    model = str(onnx_file(RELU))
    words = ["--lines", written[0], "--json", written[2], "--lines", written[1], "-q"]
    assert main([model, "--onnxrt", "--onnxrt", *map(str, words)]) == 0
    assert [path.read_text("utf-16") for path in written[:2]] == ["y: pass\n", "y: pass\n"]
    assert json.loads(written[2].read_text())["verdict"] == "pass"
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "write one line for each output; -: to standard output" in " ".join(capsys.readouterr().out.split())


def test_bytes_go_to_standard_output_as_they_are(a_new_file, onnx_file, capfdbinary):
    assert main([str(onnx_file(RELU)), "--onnxrt", "--onnxrt", "--lines", "-", "-q"]) == 0
    assert capfdbinary.readouterr().out.decode("utf-16") == "y: pass\n"


def test_two_reports_on_standard_output_are_refused():
    with pytest.raises(UsageError, match="only one report can go to standard output"):
        parse(["m", "--onnxrt", "--onnxrt", "--json", "-", "--text", "-"])


def test_the_text_is_what_the_terminal_shows(onnx_file, tmp_path, capsys):
    path = tmp_path / "report.txt"
    main([str(onnx_file(RELU)), "--onnxrt", "--onnxrt", "--text", str(path)])
    assert path.read_text().splitlines() == capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("content", ["text", b"bytes"])
def test_a_report_is_written_whole_or_not_at_all(content, tmp_path):
    write(content, tmp_path / "report", "--x")
    assert (tmp_path / "report").read_bytes() in (b"text", b"bytes")
    with pytest.raises(UsageError, match=r"--x .*missing.report: cannot be written: No such file or directory"):
        write(content, tmp_path / "missing" / "report", "--x")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
