# SPDX-License-Identifier: Apache-2.0
import gzip
import pathlib

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.maze.csv_file import read_maze_csv
from data_pipeline.maze.generator import generate
from data_pipeline.maze.grid import MazeShape
from data_pipeline.prepared import writing
from data_pipeline.prepared.maze_hard.names import prepared_set
from data_pipeline.prepared.maze_hard.prepare import main
from data_pipeline.spec import PuzzleSet

ROOT = pathlib.Path(__file__).parents[2]
BAD = pathlib.Path(__file__).parent / "bad"
GOOD = str(BAD / "maze_ok.csv")
CSV = {"source": "csv", "train": GOOD, "test": str(BAD / "maze_leading_space_ok.csv")}
CSV_FLAGS = [f"--{split}={CSV[split]}" for split in ("train", "test")]
THIRTY, EIGHT = MazeShape(30), MazeShape(8)


def prepare(data_dir, shape=THIRTY, **source):
    return writing.prepare(prepared_set(shape), data_dir, **source)


def open_prepared(data_dir, split, shape=THIRTY):
    return prepared_set(shape).open_puzzles(data_dir, split)


def folder_of(data_dir, side=30):
    return data_dir / "maze_hard" / f"side_{side}" / "1.0.0"


def assert_equal(found: PuzzleSet, expected: PuzzleSet):
    assert found.digests() == expected.digests()
    assert list(found.attributes) == list(expected.attributes) == ["rating"]
    for name, values in expected.attributes.items():
        np.testing.assert_array_equal(found.attributes[name], values, strict=True)


def text_of(tokens):
    return "".join("?# SGo"[token] for token in tokens)


def test_csv_rows_come_back_as_they_stand_in_the_file(tfds, tmp_path):
    prepare(tmp_path, **CSV)
    mazes = open_prepared(tmp_path, "train")
    rows = [line.split(",") for line in pathlib.Path(GOOD).read_text().splitlines()[1:]]
    assert [text_of(tokens) for tokens in mazes.inputs] == [row[1] for row in rows]
    assert [text_of(tokens) for tokens in mazes.labels] == [row[2] for row in rows]
    assert mazes.attributes["rating"].tolist() == [int(row[3]) for row in rows]
    assert_equal(open_prepared(tmp_path, "test"), read_maze_csv(CSV["test"], THIRTY))


def test_gzipped_files_are_a_source(tfds, tmp_path):
    packed = tmp_path / "train.csv.gz"
    packed.write_bytes(gzip.compress(pathlib.Path(GOOD).read_bytes()))
    prepare(tmp_path, **CSV | {"train": str(packed)})
    assert_equal(open_prepared(tmp_path, "train"), read_maze_csv(GOOD, THIRTY))


def test_the_generator_is_a_source(tfds, tmp_path, capsys):
    arguments = "--side=8 --train_puzzles=12 --test_puzzles=4 --seed=3 --min_moves=9"
    command = ["generator", f"--data_dir={tmp_path}", *arguments.split()]
    assert main([*command, "--wall_share", "0.1", "0.3"]) == 0
    assert f"{folder_of(tmp_path, 8)}: train 12 rows, test 4 rows" in (
        capsys.readouterr().out
    )
    made = generate(EIGHT, (12, 4), min_moves=9, wall_share=(0.1, 0.3), seed=3)
    for split, puzzles in zip(("train", "test"), made, strict=True):
        assert_equal(open_prepared(tmp_path, split, EIGHT), puzzles)


def test_the_hub_is_a_source(tfds, tmp_path, serve_hub):
    asked = serve_hub(CSV)
    assert main(["hub", f"--data_dir={tmp_path}"]) == 0
    repository = "sapientinc/maze-30x30-hard-1k"
    assert asked == [(repository, f"{s}.csv", "dataset") for s in ("train", "test")]
    assert_equal(open_prepared(tmp_path, "train"), read_maze_csv(GOOD, THIRTY))


def test_a_csv_error_names_file_and_row_and_leaves_nothing(tfds, tmp_path, capsys):
    bad = BAD / "maze_two_starts.csv"
    assert main(["csv", f"--data_dir={tmp_path}", f"--train={bad}", CSV_FLAGS[1]]) == 2
    assert f"error: {bad}: row " in capsys.readouterr().err
    assert not list(folder_of(tmp_path).parent.glob("*"))
    expected = (
        r"no such folder; run python -m data_pipeline\.prepared\.maze_hard\.prepare"
    )
    with pytest.raises(DataError, match=expected):
        open_prepared(tmp_path, "train")


@pytest.mark.parametrize("side", [1, 63])
def test_a_side_that_no_maze_has_is_refused(tfds, tmp_path, capsys, side):
    command = ["csv", f"--data_dir={tmp_path}", *CSV_FLAGS, f"--side={side}"]
    assert main(command) == 2
    assert f"data.maze.side = {side}; expected 2 to 62" in capsys.readouterr().err


def test_mazes_of_another_side_are_refused(tfds, tmp_path):
    with pytest.raises(DataError, match="900 found, 64 expected"):
        prepare(tmp_path, EIGHT, **CSV)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"source": "arrays"}, "'arrays'; expected one of hub, csv, gen"),
        (
            {"source": "generator", "seed": -1},
            "data.seed = -1; expected a whole",
        ),
        ({"source": "hub", "train": GOOD}, "reads no file"),
    ],
)
def test_wrong_requests_are_refused(tfds, tmp_path, source, problem):
    with pytest.raises(DataError, match=problem):
        prepare(tmp_path, **source)


def test_an_unknown_key_is_refused(tfds, tmp_path):
    with pytest.raises(DataError, match=r"data\.maze\.clues: unknown key"):
        prepare(tmp_path, **CSV, clues=(0, 0))


def test_damaged_mazes_are_refused(tfds, tmp_path):
    prepare(tmp_path, **CSV)
    train, test = (
        next(folder_of(tmp_path).glob(f"*-{name}.array_record*"))
        for name in ("train", "test")
    )
    train.write_bytes(test.read_bytes())
    assert_equal(open_prepared(tmp_path, "train"), read_maze_csv(GOOD, THIRTY))
    (folder_of(tmp_path) / "cache" / "train_labels.npy").unlink()
    with pytest.raises(DataError, match="differ from metadata.json"):
        open_prepared(tmp_path, "train")


def test_tfds_alone_opens_the_folder(tfds, tmp_path):
    from tensorflow_datasets.core import dataset_metadata

    prepare(tmp_path, **CSV)
    builder = tfds.builder_from_directory(folder_of(tmp_path))
    assert builder.info.full_name == "maze_hard/side_30/1.0.0"
    assert builder.info.disable_shuffling
    (block,) = builder.as_data_source("train")
    expected = read_maze_csv(GOOD, THIRTY)
    np.testing.assert_array_equal(block["inputs"], expected.inputs, strict=True)
    assert "licence" in builder.info.description.lower()
    assert "2506.21734" in builder.info.citation
    text = (ROOT / "data_pipeline" / "prepared" / "maze_hard" / "TAGS.txt").read_text()
    assert set() < set(text.split()) <= set(dataset_metadata.valid_tags())
