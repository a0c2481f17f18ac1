# SPDX-License-Identifier: Apache-2.0
import pathlib

import numpy as np
import pytest

from data_pipeline import tasks
from data_pipeline.errors import DataError
from data_pipeline.maze.csv_file import read_maze_csv
from data_pipeline.maze.grid import MazeShape
from data_pipeline.maze.solver import is_shortest_path
from data_pipeline.spec import PuzzleSpec

BAD = pathlib.Path(__file__).parents[1] / "bad"
FILE = str(BAD / "maze_ok.csv")
THIRTY = MazeShape(30)


def load(maze=None, **changes):
    return tasks.load({"task": "maze", "maze": maze or {}, **changes})


def made(**changes):
    counts = {"train_puzzles": 12, "test_puzzles": 5}
    return load({"side": 8, "min_moves": 9}, source="generator", **counts, **changes)


def test_files_are_read_with_all_their_rows():
    data = load(train=FILE, test=FILE)
    expected = read_maze_csv(FILE, THIRTY)
    assert data.spec == PuzzleSpec(6, (30, 30), blank=2)
    assert data.identity["sizes"] == data.spec.sizes
    assert data.train.digests() == expected.digests()
    assert data.test.puzzles.digests() == expected.digests()
    assert data.train_variants.num_forms.tolist() == [1] * len(expected)
    # Every test maze is in the training file.
    assert sum("overlap" in warning for warning in data.warnings) == len(expected)
    assert load(train=FILE, test=FILE, train_puzzles=2).train.inputs.shape == (2, 900)


def test_labels_that_break_the_rule_are_named_where_mazes_are_turned():
    path = str(BAD / "maze_not_shortest.csv")
    (warning,) = [
        w
        for w in load(train=path, test=FILE, num_augmentations=7).warnings
        if "published rule" in w
    ]
    assert warning.startswith("1 of 1 training labels")
    still = load(train=path, test=FILE).warnings
    assert not [w for w in still if "published rule" in w]


def test_made_mazes_come_from_the_seed():
    data = made()
    assert (len(data.train), len(data.test.puzzles)) == (12, 5)
    assert data.identity == made().identity
    assert data.identity != made(seed=1).identity
    assert data.train.attributes["rating"].min() >= 9


def test_training_forms_and_test_forms():
    data = made(num_augmentations=3)
    assert data.train_variants.num_forms.tolist() == [4] * 12
    assert data.test.variants.num_forms.tolist() == [8] * 5
    assert data.test.id_map is None
    assert data.test.write_submission is None


def test_answers_are_judged_by_the_rules():
    test = made().test
    inputs, labels = test.puzzles.inputs, test.puzzles.labels
    assert test.is_valid(inputs, labels).all()
    assert not test.is_valid(inputs, inputs).any()  # no path
    np.testing.assert_array_equal(
        test.is_valid(inputs, labels), is_shortest_path(inputs, labels, MazeShape(8))
    )


def test_mazes_to_evaluate_come_from_a_file():
    test = tasks.load_test(FILE, {"task": "maze"})
    assert test.puzzles.digests() == read_maze_csv(FILE, THIRTY).digests()
    assert test.is_valid(test.puzzles.inputs, test.puzzles.labels).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "web"}, r"data\.source = 'web'; expected one of csv, arrays"),
        ({}, r"data\.train is empty; .*'csv' needs"),
        (
            {"num_augmentations": 8},
            r"num_augmentations = 8; a puzzle of task 'maze' has 7",
        ),
        ({"source": "generator", "train": "x"}, "'generator' reads no file"),
        (
            {"train": FILE, "test": FILE, "maze": {"side": 20}},
            "900 found, 400 expected",
        ),
        ({"train": FILE, "test": FILE, "train_puzzles": 99}, "99; the source holds"),
        ({"train": str(BAD), "test": FILE}, "is a folder"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(DataError, match=message):
        load(**changes)
