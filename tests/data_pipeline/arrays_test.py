# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.arrays import read_arrays
from data_pipeline.errors import DataError
from data_pipeline.spec import PuzzleSpec
from data_pipeline.sudoku.csv_file import read_sudoku_csv
from data_pipeline.sudoku.grid import SudokuShape

BAD = pathlib.Path(__file__).parent / "bad"


@pytest.fixture
def write_set(tmp_path):
    """A function that writes a set of 2x2 grids: 2 groups, 3 puzzles of 2 examples."""

    def write_set(name="all", **changes):
        folder = tmp_path / "train"
        folder.mkdir(exist_ok=True)
        rows = np.arange(24, dtype=np.uint8).reshape(6, 4) % 5 + 1
        arrays = {
            "inputs": rows,
            "labels": rows[:, ::-1],
            "puzzle_indices": np.array([0, 2, 4, 6]),
            "group_indices": np.array([0, 2, 3]),
            "puzzle_identifiers": np.array([1, 2, 3]),
        }
        for part, array in (arrays | changes).items():
            np.save(folder / f"{name}__{part}.npy", array)
        return tmp_path

    return write_set


@pytest.fixture
def write_meta(tmp_path):
    def write_meta(**changes):
        meta = {
            "pad_id": 0,
            "ignore_label_id": 0,
            "blank_identifier_id": 0,
            "vocab_size": 6,
            "seq_len": 4,
            "num_puzzle_identifiers": 4,
            "sets": ["all"],
        }
        (tmp_path / "train").mkdir(exist_ok=True)
        path = tmp_path / "train" / "dataset.json"
        path.write_text(json.dumps(meta | changes))

    return write_meta


def test_arrays_equal_the_csv_file_they_were_made_from():
    puzzles, spec = read_arrays(BAD / "built_ok", "train")
    shape = SudokuShape(3, 3)
    assert puzzles.digests() == read_sudoku_csv(BAD / "sudoku_ok.csv", shape).digests()
    # The files say nothing about the boxes of the grid.
    assert spec == dataclasses.replace(shape.spec, blank=None, box_shape=None)


def test_big_endian_and_column_order_load_equally():
    puzzles, spec = read_arrays(BAD / "built_big_endian_fortran", "train")
    ok, ok_spec = read_arrays(BAD / "built_ok", "train")
    assert puzzles.digests() == ok.digests()
    assert spec == ok_spec
    assert puzzles.inputs.dtype == np.uint8
    assert puzzles.labels.flags.c_contiguous


def test_groups_and_puzzles_are_kept(write_set, write_meta):
    write_meta()
    puzzles, spec = read_arrays(write_set(), "train")
    assert spec == PuzzleSpec(6, (2, 2), 4)
    assert puzzles.puzzle_starts.tolist() == [0, 2, 4, 6]
    assert puzzles.group_starts.tolist() == [0, 2, 3]
    assert puzzles.puzzle_ids.tolist() == [1, 2, 3]
    assert puzzles.puzzle_starts.dtype == puzzles.group_starts.dtype == np.int64
    assert puzzles.puzzle_ids.dtype == np.int32


def test_sets_follow_each_other_in_the_order_of_the_metadata(write_set, write_meta):
    write_meta(sets=["b", "a"])
    write_set("a", inputs=np.full((6, 4), 1))
    folder = write_set("b", inputs=np.full((6, 4), 2))
    puzzles, _ = read_arrays(folder, "train")
    assert puzzles.inputs[:, 0].tolist() == [2] * 6 + [1] * 6
    assert puzzles.puzzle_starts.tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert puzzles.group_starts.tolist() == [0, 2, 3, 5, 6]
    assert puzzles.puzzle_ids.tolist() == [1, 2, 3, 1, 2, 3]


def test_length_that_is_no_square_becomes_one_row(write_set, write_meta):
    write_meta(seq_len=5)
    rows = np.ones((6, 5), np.uint8)
    _, spec = read_arrays(write_set(inputs=rows, labels=rows), "train")
    assert spec.grid_shape == (1, 5)


def test_ignored_labels_become_no_label(write_set, write_meta):
    write_meta(ignore_label_id=-100)
    labels = np.ones((6, 4), np.int32)
    labels[2, 3] = -100
    puzzles, _ = read_arrays(write_set(labels=labels), "train")
    assert puzzles.labels.dtype == np.uint8
    assert np.argwhere(puzzles.labels == 0).tolist() == [[2, 3]]
    assert puzzles.labels.sum() == 23


def test_label_zero_is_refused_where_it_would_be_lost(write_set, write_meta):
    write_meta(ignore_label_id=None)
    labels = np.ones((6, 4), np.int32)
    labels[2, 3] = 0
    with pytest.raises(DataError, match="all__labels.npy: row 3, position 4: value 0"):
        read_arrays(write_set(labels=labels), "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad_id": 1}, "pad_id is 1, only 0 is supported"),
        ({"blank_identifier_id": 2}, "blank_identifier_id is 2, only 0"),
        ({"vocab_size": 257}, "vocab_size is 257, 1 to 256 expected"),
        ({"vocab_size": True}, "vocab_size: true/false found, whole number expected"),
        ({"seq_len": 0}, "seq_len is 0"),
        ({"seq_len": 4.0}, "seq_len: fraction found, whole number expected"),
        ({"sets": "all"}, "sets: a list of names expected"),
        ({"sets": []}, "sets: a list of names expected"),
        ({"sets": ["../all"]}, "sets: '../all' is no file name"),
        ({"sets": ["all", "all"]}, "sets: a name appears twice"),
    ],
)
def test_metadata_that_cannot_be_used_is_named(write_set, write_meta, changes, message):
    write_meta(**changes)
    with pytest.raises(DataError, match=f"dataset.json: {message}"):
        read_arrays(write_set(), "train")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 5000, "[]", "null"])
def test_metadata_that_is_no_object_is_refused(write_set, text):
    folder = write_set()
    (folder / "train" / "dataset.json").write_text(text)
    with pytest.raises(DataError, match="dataset.json: "):
        read_arrays(folder, "train")


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("puzzle_indices", [1, 2, 4, 6], "does not begin with 0"),
        ("puzzle_indices", [0, 2, 2, 6], "position 3: 2 after 2, not increasing"),
        ("puzzle_indices", [], "does not begin with 0"),
        ("puzzle_indices", [0, 1, 4, 6], "puzzle 2: 3 examples, 1 expected"),
        ("group_indices", [0, 2, 4], "ends at 4, but there are 3 puzzles"),
        ("puzzle_identifiers", [1, 2], "2 rows, but all__puzzle_indices.npy 3 rows"),
        ("puzzle_identifiers", [1, 2, -1], "row 3: value -1"),
    ],
)
def test_bad_indices_are_named(write_set, write_meta, part, values, message):
    write_meta()
    folder = write_set(**{part: np.array(values, np.int64)})
    with pytest.raises(DataError, match=f"all__{part}.npy: {message}"):
        read_arrays(folder, "train")


def test_decreasing_unsigned_indices_do_not_wrap(write_set, write_meta):
    write_meta()
    folder = write_set(group_indices=np.array([0, 2, 1, 3], np.uint64))
    with pytest.raises(DataError, match="position 3: 1 after 2"):
        read_arrays(folder, "train")


def test_set_without_rows_is_refused(write_set, write_meta):
    write_meta()
    rows = np.zeros((0, 4), np.uint8)
    with pytest.raises(DataError, match="all__inputs.npy: 0 rows"):
        read_arrays(write_set(inputs=rows, labels=rows), "train")


def test_missing_split_is_named():
    with pytest.raises(DataError, match="built_ok/test: not found"):
        read_arrays(BAD / "built_ok", "test")


def test_objects_are_never_unpickled(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("unpickled")

    monkeypatch.setattr("pickle.load", forbidden)
    monkeypatch.setattr("pickle.loads", forbidden)
    with pytest.raises(DataError, match="object array, refused"):
        read_arrays(BAD / "built_npy_objects", "train")


DAMAGE = {
    "name": st.sampled_from(sorted(p.name for p in (BAD / "built_ok/train").iterdir())),
    "edits": st.lists(
        st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=3
    ),
    "length": st.none() | st.integers(0, 600),
}


def check_damaged_folder(folder, name, edits, length):
    """Check for a DataError, or that the loaded arrays fit the sizes they came with."""
    if not folder.exists():
        shutil.copytree(BAD / "built_ok", folder)
    path = folder / "train" / name
    intact = path.read_bytes()
    content = bytearray(intact)
    for position, byte in edits:
        content[position % len(content)] = byte
    path.write_bytes(content[:length])
    try:
        puzzles, spec = read_arrays(folder, "train")
    except DataError as error:
        message = str(error)
    else:
        message = str(folder)
        assert puzzles.inputs.shape == puzzles.labels.shape == (5, spec.num_cells)
        assert max(puzzles.inputs.max(), puzzles.labels.max()) < spec.vocab_size
        assert (
            0 <= puzzles.puzzle_ids.min() <= puzzles.puzzle_ids.max() < spec.num_puzzles
        )
        assert puzzles.puzzle_starts[-1] == 5
        assert puzzles.group_starts[-1] == len(puzzles.puzzle_ids)
    finally:
        path.unlink()  # not overwritten: arrays may still be mapped
        path.write_bytes(intact)
    assert str(folder) in message


@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
@given(**DAMAGE)
@settings(max_examples=200, deadline=None, database=None)
def test_damaged_folder_is_refused_or_fits(tmp_path_factory, name, edits, length):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    check_damaged_folder(folder, name, edits, length)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
@given(**DAMAGE)
@settings(max_examples=3000, deadline=None, database=None)
def test_damaged_folder_is_refused_or_fits_at_length(
    tmp_path_factory, name, edits, length
):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    check_damaged_folder(folder, name, edits, length)
