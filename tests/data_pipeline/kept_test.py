# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data_pipeline import kept, tasks
from data_pipeline.sudoku import task

BAD = pathlib.Path(__file__).parent / "bad"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder where puzzles of files of any size are kept."""
    monkeypatch.setattr(kept, "WORTHWHILE", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "trm_jax" / "puzzles"


@pytest.fixture
def files(tmp_path):
    """Six puzzles, of which one occurs twice, for training and for tests."""
    paths = {split: tmp_path / f"{split}.csv" for split in ("train", "test")}
    for path in paths.values():
        shutil.copy(BAD / "sudoku_duplicate_rows.csv", path)
    return {split: str(path) for split, path in paths.items()}


@pytest.fixture
def reads(monkeypatch):
    """The paths of the files that were parsed, in order."""
    paths, read = [], task.read_sudoku_csv
    monkeypatch.setattr(
        task,
        "read_sudoku_csv",
        lambda path, shape: paths.append(path) or read(path, shape),
    )
    return paths


def load(files, **changes):
    return tasks.load({"train_puzzles": 4, **files, **changes})


def all_of(data):
    arrays = [
        (array.dtype.str, array.tolist())
        for puzzles in (data.train, data.test.puzzles)
        for array in (*list(vars(puzzles).values())[:-1], *puzzles.attributes.values())
    ]
    names = [list(puzzles.attributes) for puzzles in (data.train, data.test.puzzles)]
    return data.identity, data.warnings, arrays, names


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_second_start_takes_what_the_first_one_chose(files, reads, monkeypatch):
    first, second = load(files), load(files)
    assert reads == list(files.values())
    monkeypatch.setattr(kept, "WORTHWHILE", 2**24)
    afresh = load(files)
    assert len(reads) == 4
    assert all_of(first) == all_of(second) == all_of(afresh)
    assert f"{files['train']}: duplicate: row 6 repeats row 2" in second.warnings


def test_small_files_leave_nothing_behind(files, monkeypatch, cache):
    monkeypatch.setattr(kept, "WORTHWHILE", 2**24)
    load(files)
    assert not cache.exists()


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"train_puzzles": 3}, {"test_puzzles": 2}]
)
def test_other_settings_are_other_puzzles(files, reads, changes, cache):
    load(files)
    other = load(files, **changes)
    assert len(reads) == 4
    assert len(list(cache.iterdir())) == 2
    assert all_of(load(files, **changes)) == all_of(other)
    assert len(reads) == 4


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_file_with_other_content_but_equal_size_and_time_is_read(files, split):
    path = pathlib.Path(files[split])
    load(files, train_puzzles=0)
    times, content = path.stat(), path.read_bytes()
    head, *rows = content.splitlines(keepends=True)
    path.write_bytes(b"".join([head, *rows[::-1]]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert len(path.read_bytes()) == len(content)
    data = load(files, train_puzzles=0)
    sets = {"train": data.train, "test": data.test.puzzles}
    other = sets.pop(split).inputs
    np.testing.assert_array_equal(other, sets.popitem()[1].inputs[::-1])


def test_files_that_have_moved_are_recognised_and_named_anew(files, reads, tmp_path):
    load(files)
    moved = str(tmp_path / "moved.csv")
    shutil.move(files["train"], moved)
    data = load(files | {"train": moved})
    assert len(reads) == 2
    assert f"{moved}: duplicate: row 6 repeats row 2" in data.warnings
    assert f"overlap: {files['test']} row 1 is {moved} row 1" in data.warnings


@pytest.mark.parametrize("place", [0, 64, 70, -1, "cut", "empty"])
def test_a_damaged_file_is_named_and_replaced(files, reads, cache, place):
    first = load(files)
    (path,) = cache.iterdir()
    if isinstance(place, str):
        path.write_bytes(path.read_bytes()[: 1000 if place == "cut" else 0])
    else:
        flip(path, place)
    warning, *others = load(files).warnings
    assert warning.startswith(f"{path}: kept puzzles cannot be used: ")
    assert others == first.warnings
    assert len(reads) == 4
    assert all_of(load(files)) == all_of(first)
    assert len(reads) == 4


@pytest.mark.parametrize("home", ["a file", "none"])
def test_where_nothing_can_be_kept_one_line_says_so(files, tmp_path, home, monkeypatch):
    expected = load(files)
    (tmp_path / "a file").touch()
    place = {"a file": str(tmp_path / "a file"), "none": "relative"}[home]
    monkeypatch.setenv("XDG_CACHE_HOME", place)
    data = load(files)
    warning, *others = data.warnings
    assert "puzzles cannot be kept: " in warning
    assert warning.endswith(f"; the next start reads {files['train']} again")
    assert others == expected.warnings
    assert data.identity == expected.identity
    assert not pathlib.Path("relative").exists()


def test_a_file_that_changes_while_it_is_read_is_not_kept(files, monkeypatch, cache):
    read = task.read_sudoku_csv

    def read_and_change(path, shape):
        puzzles = read(path, shape)
        with open(path, "a") as file:
            file.write("\n")
        return puzzles

    monkeypatch.setattr(task, "read_sudoku_csv", read_and_change)
    load(files)
    assert not cache.exists()


def test_several_processes_may_write_at_once(files, cache):
    with ThreadPoolExecutor(4) as pool:
        found = [all_of(data) for data in pool.map(load, [files] * 8)]
    assert found == found[:1] * 8
    (path,) = cache.iterdir()
    assert path.suffix == ".puzzles"


def test_what_was_not_used_for_longest_is_removed(files, cache, reads, monkeypatch):
    load(files)
    (first,) = cache.iterdir()
    monkeypatch.setattr(kept, "MOST_BYTES", int(2.5 * first.stat().st_size))
    load(files, seed=1)
    second = ({*cache.iterdir()} - {first}).pop()
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    load(files)  # used again
    load(files, seed=2)
    assert len(list(cache.iterdir())) == 2
    assert first.exists()
    assert not second.exists()
