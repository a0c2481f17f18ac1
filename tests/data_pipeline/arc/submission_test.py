# SPDX-License-Identifier: Apache-2.0
import json
import pathlib

import numpy as np
import pytest

from data_pipeline.arc.bundles import Pair, read_subset
from data_pipeline.arc.json_tasks import ArcTask
from data_pipeline.arc.submission import write_submission
from data_pipeline.errors import DataError
from tests.data_pipeline.arc.files import BAD, write_json

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "arc_voting.npz"
TASKS = read_subset(BAD / "arc_ok", "training")
GRID = np.array([[1, 2], [3, 4], [5, 6]], np.uint8)
EMPTY = np.zeros((0, 0), np.uint8)
NOTHING = {"attempt_1": [[0]], "attempt_2": [[0]]}


def right():
    """A valid submission, as a JSON value."""
    return {task.name: [dict(NOTHING) for _ in task.test] for task in TASKS}


def test_format_is_that_of_the_published_scorer(tmp_path):
    with np.load(GOLDEN) as file:
        puzzles, expected = (
            json.loads(bytes(file[name])) for name in ("test_puzzles", "submission")
        )
        written = bytes(file["submission"])
    tasks = [
        ArcTask(
            name, (), tuple(Pair(np.array(p["input"]), None) for p in puzzle["test"])
        )
        for name, puzzle in puzzles.items()
    ]
    attempts = {
        name: [
            tuple(np.array(pair[f"attempt_{i}"], np.uint8) for i in (1, 2))
            for pair in expected[name]
        ]
        for name in reversed(expected)
    }
    path = tmp_path / "submission.json"
    write_submission(path, attempts, tasks)
    assert path.read_bytes() == written


def test_what_lacks_predictions_is_written_as_a_zero(tmp_path):
    path = tmp_path / "eval" / "submission.json"
    write_submission(path, {"25ff71a9": [(GRID, EMPTY), (EMPTY, GRID)]}, TASKS)
    rows = [[1, 2], [3, 4], [5, 6]]
    assert json.loads(path.read_text()) == right() | {
        "25ff71a9": [
            {"attempt_1": rows, "attempt_2": [[0]]},
            {"attempt_1": [[0]], "attempt_2": rows},
        ]
    }
    assert list(json.loads(path.read_text())) == [task.name for task in TASKS]


@pytest.mark.parametrize(
    ("attempts", "message"),
    [
        ({"25ff71a9": [(GRID, GRID)]}, "task 25ff71a9: 1 entries, 2 test inputs"),
        ({"nobody": [(GRID, GRID)]}, "tasks: unknown nobody"),
        (
            {"007bbfb7": [(GRID, GRID + 4)]},
            "task 007bbfb7: test 1: attempt_2: row 3 column 2: value 10, allowed 0-9",
        ),
        (
            {"007bbfb7": [(GRID - 2.5, GRID)]},
            "test 1: attempt_1: row 1 column 1: value -1.5, whole number expected",
        ),
        ({"007bbfb7": [(GRID > 0, GRID)]}, "true/false, whole number expected"),
        ({"007bbfb7": [(GRID * 1j, GRID)]}, "complex, whole number expected"),
        ({"007bbfb7": [(np.zeros((31, 1), int), GRID)]}, "attempt_1: 31x1, at most"),
        ({"007bbfb7": [(GRID[0], GRID)]}, "row 1: number found; a list of rows"),
        ({"007bbfb7": [(GRID[None], GRID)]}, "row 1 column 1: list, whole number"),
    ],
)
def test_wrong_attempts_are_refused_before_anything_is_written(
    tmp_path, attempts, message
):
    path = tmp_path / "submission.json"
    write_json(path, "before")
    with pytest.raises(DataError) as caught:
        write_submission(path, attempts, TASKS)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert json.loads(path.read_text()) == "before"


def test_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "submission.json"
    write_json(path, "before")

    def cut_off(self, text):
        with open(self, "w") as file:
            file.write(text[:9])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_text", cut_off)
    with pytest.raises(DataError, match=f"{path}: cannot be written: No space left"):
        write_submission(path, {}, TASKS)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert json.loads(path.read_text()) == "before"


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "submission.json", tmp_path):
        with pytest.raises(DataError, match=f"{path}: cannot be written: "):
            write_submission(path, {}, TASKS)
