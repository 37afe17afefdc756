"""The folder: whole values or none, whatever happened to it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from layerdiff.compare.journal.journal import LARGE, MARK, MISSING, Journal
from layerdiff.compare.journal.keys import key_of
from layerdiff.graph.errors import UsageError

ONE, TWO = "1" * 64, "2" * 64
KEYS = [key_of(i) for i in range(20)]


def opened(folder: Path, made_by: str = ONE) -> Journal:
    return Journal(str(folder), made_by)


def files(folder: Path) -> list[Path]:
    return sorted((folder / ONE[:32]).iterdir())


SIZES = {"small": 10, "large": LARGE + 10}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_what_was_kept_is_there_for_the_next_run(tmp_path, size):
    value = {"x": np.arange(size, dtype=np.uint8)}
    with opened(tmp_path) as journal:
        journal.keep(KEYS[0], value)
        journal.keep(KEYS[1], "other")
    with opened(tmp_path) as journal:
        assert journal.recall(KEYS[0])["x"].tobytes() == value["x"].tobytes()
        assert journal.recall(KEYS[1]) == "other"
        assert journal.recall(KEYS[2]) is MISSING
        assert (journal.damaged, journal.other, journal.lost) == (0, False, "")


def test_a_value_with_a_file_of_its_own_is_replaced(tmp_path):
    with opened(tmp_path) as journal:
        for value in range(3):
            journal.keep(KEYS[0], value, alone=True)
    with opened(tmp_path) as journal:
        assert journal.recall(KEYS[0]) == 2
        assert len(files(tmp_path)) == 1


def test_nothing_is_left_of_a_journal_that_is_closed_but_its_values(tmp_path):
    with opened(tmp_path) as journal:
        journal.keep(KEYS[0], 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([ONE[:32], MARK])


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    "damage",
    {
        "a bit": lambda c, rng: c[: (i := int(rng.integers(len(c))))] + bytes([c[i] ^ 4]) + c[i + 1 :],
        "the end": lambda c, rng: c[: int(rng.integers(len(c)))],
        "all of it": lambda c, rng: rng.bytes(len(c)),
        "zeros": lambda c, rng: c[: (i := int(rng.integers(len(c))))] + bytes(len(c) - i),
        "nothing left": lambda c, rng: b"",
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_damaged_is_passed_over(tmp_path, damage, size):
    rng = np.random.default_rng(3)
    values = [np.full(size // 5, i, np.uint8) for i in range(6)]
    entries = {KEYS[0]: values} if size > 10 else dict(zip(KEYS, values, strict=False))
    with opened(tmp_path) as journal:
        for key, value in entries.items():
            journal.keep(key, value)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    for _ in range(20):
        file.write_bytes(damage[1](whole, rng))
        with opened(tmp_path) as journal:
            for key, value in entries.items():
                found = journal.recall(key)
                assert found is MISSING or np.array_equal(found, value)


def test_a_damaged_value_is_made_anew_and_kept(tmp_path):
    with opened(tmp_path) as journal:
        journal.keep(KEYS[0], "value")
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:-1])
    with opened(tmp_path) as journal:
        assert journal.recall(KEYS[0]) is MISSING
        assert journal.damaged == 1
        journal.keep(KEYS[0], "value")
    with opened(tmp_path) as journal:
        assert journal.recall(KEYS[0]) == "value"


def test_what_another_version_has_kept_is_not_there(tmp_path):
    with opened(tmp_path, TWO) as journal:
        journal.keep(KEYS[0], "theirs")
    with opened(tmp_path) as journal:
        assert journal.recall(KEYS[0]) is MISSING
        assert journal.other


def test_a_value_under_another_key_is_not_taken_for_it(tmp_path):
    with opened(tmp_path) as journal:
        journal.keep(KEYS[0], 1, alone=True)
    (file,) = files(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content.replace(bytes.fromhex(KEYS[0]), bytes.fromhex(KEYS[1])))
    with opened(tmp_path) as journal:
        assert journal.recall(KEYS[1]) is MISSING


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match="holds other files, and no journal"):
        opened(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "journal").write_text("")
    with pytest.raises(UsageError, match=r"journal: is a file; name a folder\."):
        opened(tmp_path / "journal")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be written: Not a directory"):
        opened(tmp_path / "file" / "journal")


def test_a_disk_that_is_full_costs_what_is_kept_and_nothing_else(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with opened(tmp_path) as journal:
        monkeypatch.setattr(Path, "replace", full)
        journal.keep(KEYS[0], 1, alone=True)
        journal.keep(KEYS[1], 2)
    assert journal.lost == "No space left on device"
    assert files(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(tmp_path):
    script = (
        "import os, sys; from layerdiff.compare.journal.journal import Journal; "
        f"journal = Journal(sys.argv[1], '{ONE}'); (journal._temporary.path / 'half').write_bytes(b'x'); "
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)])
    left = {p.name for p in tmp_path.glob("unfinished-*")}
    assert len(left) == 1
    with opened(tmp_path), opened(tmp_path):
        now = {p.name for p in tmp_path.glob("unfinished-*")}
        assert len(now) == 2
        assert not left & now
    assert not list(tmp_path.glob("unfinished-*"))


def keep_many(folder: str, start: int) -> None:
    with Journal(folder, ONE) as journal:
        for number in range(start, start + 60):
            journal.keep(key_of(number), ["value", number], alone=number % 2 == 0)
            if number % 7 == 0:
                journal.flush()


def test_two_processes_share_a_folder(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(keep_many, [(str(tmp_path), 0), (str(tmp_path), 40)])
    with opened(tmp_path) as journal:
        assert [journal.recall(key_of(n)) for n in range(100)] == [["value", n] for n in range(100)]
        assert journal.damaged == 0


def test_a_journal_in_use_goes_on_when_its_folder_is_removed(tmp_path):
    with opened(tmp_path / "journal") as journal:
        journal.keep(KEYS[0], 1, alone=True)
        os.rename(tmp_path / "journal", tmp_path / "gone")
        assert journal.recall(KEYS[0]) is MISSING
        journal.keep(KEYS[1], 1, alone=True)
        assert journal.lost
