"""Options that were given nothing, as by a variable that is not set, are refused by name."""

from __future__ import annotations

import pytest
from layerdiff import DataError
from layerdiff.compare.cli.command import main
from layerdiff.compare.suites.checks import read_checks
from layerdiff.dataloaders import open_data
from layerdiff.graph.errors import UsageError

RELU = "g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"
FLAGS = ["--data", "--calibration-data", "--allow-external", "--baseline", "--labels", "--reference"]


@pytest.mark.parametrize("flag", [*FLAGS, "--load-outputs"])
@pytest.mark.parametrize("joined", [False, True])
def test_an_option_that_was_given_nothing_is_refused(flag, joined, onnx_file, capsys):
    words = [f"{flag}="] if joined else [flag, ""]
    assert main([str(onnx_file(RELU)), "--onnxrt", "--onnxrt", *words]) == 2
    assert capsys.readouterr().err.startswith(f"compare: {flag} '': it was given nothing")


def test_no_path_is_not_the_present_folder():
    with pytest.raises(DataError, match="--data '': a file or a folder has a name"):
        open_data("")


def test_a_check_with_an_empty_path_is_refused(tmp_path):
    path = tmp_path / "checks.toml"
    path.write_text('[[check]]\nmodel = "m.onnx"\nrunners = ["onnxrt", "onnxrt"]\ndata = ""\n')
    with pytest.raises(UsageError, match="data is empty"):
        read_checks(path)


def test_calibration_data_that_are_not_there_are_called_by_their_option(onnx_file, capsys):
    words = [str(onnx_file(RELU)), "--onnxrt", "--emulate=int8", "--calibration-data", "gone.npz"]
    assert main(words) == 2
    assert "--calibration-data gone.npz: no such file" in capsys.readouterr().err
