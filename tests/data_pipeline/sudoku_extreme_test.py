# SPDX-License-Identifier: Apache-2.0
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.prepared import writing
from data_pipeline.prepared.sudoku_extreme.names import prepared_set
from data_pipeline.prepared.sudoku_extreme.prepare import main
from data_pipeline.spec import PuzzleSet
from data_pipeline.sudoku.csv_file import read_sudoku_csv
from data_pipeline.sudoku.generator import generate
from data_pipeline.sudoku.grid import BLANK_TOKEN, SudokuShape, encode
from data_pipeline.sudoku.symmetries import sample_symmetries

ROOT = pathlib.Path(__file__).parents[2]
BAD = pathlib.Path(__file__).parent / "bad"
CSV = {
    "source": "csv",
    "train": str(BAD / "sudoku_ok.csv"),
    "test": str(BAD / "sudoku_overlap" / "test.csv"),
}
CSV_FLAGS = [f"--{split}={CSV[split]}" for split in ("train", "test")]
NINE, FOUR = SudokuShape(3, 3), SudokuShape(2, 2)
FULL_ROWS = {"train": 3_831_994, "test": 422_786}


def prepare(data_dir, shape=NINE, **source):
    return writing.prepare(prepared_set(shape), data_dir, **source)


def open_prepared(data_dir, split, shape=NINE):
    return prepared_set(shape).open_puzzles(data_dir, split)


@pytest.fixture
def data_dir(tfds, tmp_path):
    """A folder with the two files of CSV prepared in it."""
    prepare(tmp_path, **CSV)
    return tmp_path


def folder_of(data_dir):
    return data_dir / "sudoku_extreme" / "boxes_3x3" / "1.0.0"


def assert_equal(found: PuzzleSet, expected: PuzzleSet):
    assert found.digests() == expected.digests()
    assert list(found.attributes) == list(expected.attributes)
    for name, values in expected.attributes.items():
        np.testing.assert_array_equal(found.attributes[name], values, strict=True)


def assert_nothing_prepared(data_dir):
    assert not list(folder_of(data_dir).parent.glob("*"))
    with pytest.raises(DataError, match="no such folder"):
        open_prepared(data_dir, "train")


@pytest.mark.parametrize("split", ["train", "test"])
def test_csv_rows_come_back_in_order(data_dir, split):
    assert_equal(open_prepared(data_dir, split), read_sudoku_csv(CSV[split], NINE))


def test_rows_in_several_blocks_come_back_in_order(tfds, tmp_path, monkeypatch):
    from data_pipeline.prepared import builder

    monkeypatch.setattr(builder, "BLOCK_ROWS", 2)
    prepare(tmp_path, **CSV)
    source = tfds.builder_from_directory(folder_of(tmp_path)).as_data_source()
    assert [len(block["inputs"]) for block in source["train"]] == [2, 2, 1]
    assert_equal(open_prepared(tmp_path, "train"), read_sudoku_csv(CSV["train"], NINE))


def test_tensorflow_is_never_imported(tfds, tmp_path):
    code = """
import sys
from data_pipeline.prepared.sudoku_extreme import prepare
assert "tensorflow_datasets" not in sys.modules, "TFDS is imported where not used"
assert prepare.main(sys.argv[1:]) == 0
assert "tensorflow_datasets" in sys.modules
assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"]
"""
    command = [sys.executable, "-c", code, "csv", f"--data_dir={tmp_path}", *CSV_FLAGS]
    subprocess.run(command, cwd=ROOT, check=True)
    assert len(open_prepared(tmp_path, "train")) == 5


def test_a_csv_error_names_file_and_row_and_leaves_nothing(tfds, tmp_path, capsys):
    bad = BAD / "sudoku_rating_nan.csv"
    arguments = [f"--data_dir={tmp_path}", f"--train={CSV['train']}", f"--test={bad}"]
    assert main(["csv", *arguments]) == 2
    assert f"error: {bad}: row 2 (line 3): column rating" in capsys.readouterr().err
    assert_nothing_prepared(tmp_path)


def test_the_command_reports_rows_and_warnings(tfds, tmp_path, capsys):
    assert main(["csv", f"--data_dir={tmp_path}", *CSV_FLAGS]) == 0
    out, err = capsys.readouterr()
    expected = len(read_sudoku_csv(CSV["test"], NINE))
    assert f"{folder_of(tmp_path)}: train 5 rows, test {expected} rows\n" in out
    assert "warning: overlap: " in err


def test_a_killed_preparation_is_seen_and_can_be_repeated(tfds, tmp_path):
    code = """
import os, sys
from data_pipeline.prepared.sudoku_extreme import sudoku_extreme_dataset_builder as b
from data_pipeline.prepared.sudoku_extreme.prepare import main

def dies(self, records):
    yield from generate(self, records)
    os._exit(9)

generate = b.Builder._generate_examples
b.Builder._generate_examples = dies
main(sys.argv[1:])
"""
    command = [sys.executable, "-c", code, "csv", f"--data_dir={tmp_path}", *CSV_FLAGS]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 9
    with pytest.raises(DataError, match=r"no such folder; unfinished: .*incomplete"):
        open_prepared(tmp_path, "train")
    assert "killed or still runs" in prepare(tmp_path, **CSV)[0]
    assert_equal(open_prepared(tmp_path, "train"), read_sudoku_csv(CSV["train"], NINE))


def test_a_prepared_folder_is_not_overwritten(data_dir):
    with pytest.raises(DataError, match="exists already"):
        prepare(data_dir, **CSV)


def test_the_generator_is_a_source(tfds, tmp_path):
    arguments = "--shape=boxes_2x2 --train_puzzles=12 --test_puzzles=4 --seed=3"
    command = ["generator", f"--data_dir={tmp_path}", *arguments.split()]
    assert main([*command, "--clues", "0", "0"]) == 0
    expected = generate(FOUR, (12, 4), clues=(0, 0), seed=3)
    for split, puzzles in zip(("train", "test"), expected, strict=True):
        assert_equal(open_prepared(tmp_path, split, FOUR), puzzles)


def test_the_hub_is_a_source(tfds, tmp_path, serve_hub):
    asked = serve_hub(CSV)
    prepare(tmp_path, source="hub")
    repository = "sapientinc/sudoku-extreme"
    assert asked == [(repository, f"{s}.csv", "dataset") for s in ("train", "test")]
    assert_equal(open_prepared(tmp_path, "test"), read_sudoku_csv(CSV["test"], NINE))


def test_a_hub_out_of_reach_leaves_nothing(tfds, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra `data`")

    def fail(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(hub, "get_hf_file_metadata", fail)
    with pytest.raises(DataError, match="no network"):
        prepare(tmp_path, source="hub")
    assert_nothing_prepared(tmp_path)


def test_other_sources_are_refused(tfds, tmp_path):
    with pytest.raises(DataError, match="'arrays'; expected one of hub, csv, gen"):
        prepare(tmp_path, source="arrays", train="built")


def test_tfds_alone_opens_the_folder(tfds, data_dir):
    builder = tfds.builder_from_directory(folder_of(data_dir))
    assert builder.info.full_name == "sudoku_extreme/boxes_3x3/1.0.0"
    assert builder.info.disable_shuffling
    (block,) = builder.as_data_source("train")
    expected = read_sudoku_csv(CSV["train"], NINE)
    np.testing.assert_array_equal(block["inputs"], expected.inputs, strict=True)
    assert "licence" in builder.info.description.lower()
    assert "2506.21734" in builder.info.citation


def test_tags_are_known_to_tfds(tfds):
    from tensorflow_datasets.core import dataset_metadata

    text = (
        ROOT / "data_pipeline" / "prepared" / "sudoku_extreme" / "TAGS.txt"
    ).read_text()
    assert set() < set(text.split()) <= set(dataset_metadata.valid_tags())


def variants(rows):
    """Inputs and labels of one puzzle under the symmetries with these numbers."""
    line = (BAD / "sudoku_ok.csv").read_text().splitlines()[1]
    symmetries = sample_symmetries(NINE, 0, np.zeros_like(rows), rows)
    return [
        symmetries.apply(np.tile(encode(text), (len(rows), 1)))
        for text in line.split(",")[1:3]
    ]


def write_csv(path, count):
    """Write rows `s,question,answer,rating` of equal width; rating is row % 1000."""
    characters = np.frombuffer(b"?.123456789", np.uint8)
    source, comma, newline = (np.full((1, 1), ord(c), np.uint8) for c in "s,\n")
    with open(path, "wb") as file:
        file.write(b"source,question,answer,rating\n")
        for first in range(0, count, 100_000):
            rows = np.arange(first, min(first + 100_000, count))
            question, answer = (characters[tokens] for tokens in variants(rows))
            digits = rows[:, None] // [100, 10, 1] % 10
            rating = (ord("0") + digits).astype(np.uint8)
            parts = [source, comma, question, comma, answer, comma, rating, newline]
            blocks = [
                np.broadcast_to(part, (len(rows), part.shape[1])) for part in parts
            ]
            np.concatenate(blocks, axis=1).tofile(file)


@pytest.fixture
def brief_path(tmp_path):
    """A folder that is removed after the test, since pytest would keep its 1.6 GB."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.slow
def test_the_full_size_opens_in_seconds(tfds, brief_path):
    files = {split: str(brief_path / f"{split}.csv") for split in FULL_ROWS}
    for split, count in FULL_ROWS.items():
        write_csv(files[split], count)

    def timed(function, *args, **kwargs):
        start = time.perf_counter()
        return function(*args, **kwargs), time.perf_counter() - start

    _, prepare_s = timed(prepare, brief_path, source="csv", **files)
    shutil.rmtree(folder_of(brief_path) / "cache")
    _, first_s = timed(open_prepared, brief_path, "train")
    puzzles, second_s = timed(open_prepared, brief_path, "train")
    sys.stdout.write(f"{prepare_s=:.1f} {first_s=:.1f} {second_s=:.1f}\n")
    assert first_s < 60
    assert second_s < 5
    assert len(puzzles) == FULL_ROWS["train"]
    rows = np.random.default_rng(0).choice(len(puzzles), 1000)
    inputs, labels = variants(rows)
    np.testing.assert_array_equal(puzzles.inputs[rows], inputs)
    np.testing.assert_array_equal(puzzles.labels[rows], labels)
    np.testing.assert_array_equal(puzzles.attributes["rating"][rows], rows % 1000)
    given = np.count_nonzero(inputs != BLANK_TOKEN, axis=1)
    np.testing.assert_array_equal(puzzles.attributes["clues"][rows], given)
