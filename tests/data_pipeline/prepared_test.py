# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import mmap
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.prepared import reading, writing
from data_pipeline.prepared.sudoku_extreme.names import prepared_set
from data_pipeline.sudoku.csv_file import read_sudoku_csv
from data_pipeline.sudoku.grid import SudokuShape

BAD = pathlib.Path(__file__).parent / "bad"
CSV = {
    "source": "csv",
    "train": str(BAD / "sudoku_ok.csv"),
    "test": str(BAD / "sudoku_overlap" / "test.csv"),
}
NINE = SudokuShape(3, 3)


def prepare(data_dir, **source):
    return writing.prepare(prepared_set(), data_dir, **source)


def open_prepared(data_dir, split):
    return prepared_set().open_puzzles(data_dir, split)


@pytest.fixture
def data_dir(tfds, tmp_path):
    """A folder with the two files of CSV prepared in it."""
    prepare(tmp_path, **CSV)
    return tmp_path


@pytest.fixture
def no_records(monkeypatch):
    """Make reading the records an error."""

    def refuse(folder, split):
        raise AssertionError(f"records of {folder} {split} were read")

    monkeypatch.setattr(reading, "_stack_records", refuse)


def folder_of(data_dir):
    return data_dir / "sudoku_extreme" / "boxes_3x3" / "1.0.0"


def assert_intact(puzzles):
    expected = read_sudoku_csv(CSV["train"], NINE)
    assert puzzles.digests() == expected.digests()
    assert list(puzzles.attributes) == list(expected.attributes)
    for name, values in expected.attributes.items():
        np.testing.assert_array_equal(puzzles.attributes[name], values, strict=True)


def is_mapped(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


def test_a_folder_laid_out_as_1_0_0_opens_without_tfds(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    cache = folder_of(tmp_path) / "cache"
    cache.mkdir(parents=True)
    rng, digests = np.random.default_rng(0), {}
    shapes = {"inputs": (5, 81), "labels": (5, 81), "rating": (5,), "clues": (5,)}
    for name, shape in shapes.items():
        dtype, head = (np.uint8, "|u1") if len(shape) == 2 else (np.int64, "<i8")
        array = rng.integers(1, 10, shape).astype(dtype)
        np.save(cache / f"train_{name}.npy", array)
        text = f"{head}{shape}".encode() + array.tobytes()
        digests[name] = hashlib.sha256(text).hexdigest()
    path = folder_of(tmp_path) / "metadata.json"
    path.write_text(json.dumps({"sha256": {"train": digests}}))
    puzzles = open_prepared(tmp_path, "train")
    np.testing.assert_array_equal(puzzles.inputs, np.load(cache / "train_inputs.npy"))
    assert list(puzzles.attributes) == ["rating", "clues"]


def test_opening_maps_the_cache_that_preparing_left(data_dir, no_records):
    puzzles = open_prepared(data_dir, "train")
    arrays = [puzzles.inputs, puzzles.labels, *puzzles.attributes.values()]
    assert all(map(is_mapped, arrays))


def test_a_missing_cache_is_built_once(data_dir, monkeypatch):
    calls, stack = [], reading._stack_records
    monkeypatch.setattr(
        reading, "_stack_records", lambda *args: calls.append(args) or stack(*args)
    )
    shutil.rmtree(folder_of(data_dir) / "cache")
    for _ in range(2):
        assert_intact(open_prepared(data_dir, "train"))
    assert len(calls) == 1
    names = {path.name for path in (folder_of(data_dir) / "cache").iterdir()}
    assert names == {
        f"train_{name}.npy" for name in ("inputs", "labels", "rating", "clues")
    }


def flip_last_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "one byte": flip_last_byte,
    "cut off": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "header": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x08\x00{'x': (\n"),
    "another split": lambda path: shutil.copy(
        path.with_name(path.name.replace("train", "test")), path
    ),
    "another type": lambda path: np.save(path, np.load(path).astype(np.int16)),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", ["inputs", "rating"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_built_anew(data_dir, damage, name):
    path = folder_of(data_dir) / "cache" / f"train_{name}.npy"
    intact = path.read_bytes()
    DAMAGES[damage](path)
    assert_intact(open_prepared(data_dir, "train"))
    assert path.read_bytes() == intact


def test_a_cache_that_cannot_be_written_is_named(data_dir):
    cache = folder_of(data_dir) / "cache"
    shutil.rmtree(cache)
    cache.write_text("a file in its place")
    with pytest.raises(DataError, match="cache: cannot be written"):
        open_prepared(data_dir, "train")


@pytest.mark.parametrize("damage", ["cut off", "empty", "zeros", "missing"])
def test_damaged_records_are_refused(data_dir, damage):
    folder = folder_of(data_dir)
    shutil.rmtree(folder / "cache")
    DAMAGES[damage](next(folder.glob("*-train.array_record*")))
    with pytest.raises(DataError, match="records of split train"):
        open_prepared(data_dir, "train")


def test_records_of_other_puzzles_are_refused(data_dir):
    folder = folder_of(data_dir)
    shutil.rmtree(folder / "cache")
    train, test = (
        next(folder.glob(f"*-{name}.array_record*")) for name in ("train", "test")
    )
    shutil.copy(test, train)
    with pytest.raises(DataError, match="differ from metadata.json"):
        open_prepared(data_dir, "train")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"sha256": {"train": {}}}', None])
def test_a_folder_without_digests_is_refused(data_dir, text):
    path = folder_of(data_dir) / "metadata.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=r"metadata.json.*not prepared by this project"):
        open_prepared(data_dir, "train")


def test_an_unknown_split_or_shape_is_refused(data_dir):
    with pytest.raises(DataError, match=r'metadata.json: sha256: missing "validation"'):
        open_prepared(data_dir, "validation")
    with pytest.raises(DataError, match="expected boxes_3x3, boxes_2x3, boxes_2x2"):
        prepared_set(SudokuShape(3, 2))


PACKAGES = ["tensorflow_datasets", "array_record"]


@pytest.mark.parametrize("package", PACKAGES)
def test_tfds_is_needed_for_the_records_alone(data_dir, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert_intact(open_prepared(data_dir, "train"))
    shutil.rmtree(folder_of(data_dir) / "cache")
    with pytest.raises(DataError, match=f"to stack its records .*{package}"):
        open_prepared(data_dir, "train")


@pytest.mark.parametrize("package", PACKAGES)
def test_preparing_without_tfds_says_what_is_missing(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=r"to prepare it .*'trm-jax\[data\]'"):
        prepare(tmp_path, **CSV)
