# SPDX-License-Identifier: Apache-2.0
"""Questions as users write them, and answers in their form."""

import numpy as np
import pytest

from configs import arc_small, maze_small
from data_pipeline import tasks
from data_pipeline.errors import DataError
from data_pipeline.settings import DataSettings
from tests.helpers.futoshiki.task import Settings, Task
from tests.helpers.runs import ROOT

MAZE = "S  #\n# ##\n#   \n###G"
SOLVED = "So #\n#o##\n#ooo\n###G"
ARC_OK = ROOT / "tests" / "data_pipeline" / "bad" / "arc_ok"


@pytest.fixture
def maze():
    config = maze_small.get_config()
    config.data.maze.update(side=4, min_moves=3)
    return tasks.task_of(config.data.to_dict())


@pytest.fixture
def arc():
    config = arc_small.get_config()
    config.data.train = str(ARC_OK)
    config.data.update(test_puzzles=2, num_augmentations=3)
    return tasks.task_of(config.data.to_dict())


def test_mazes_are_read_with_and_without_line_ends_and_written_alike(maze):
    joined = MAZE.replace("\n", "")
    tokens = maze.parse(MAZE)
    np.testing.assert_array_equal(tokens, maze.parse(joined))
    assert maze.written(tokens, MAZE) == MAZE
    assert maze.written(tokens, joined) == joined
    assert maze.grid(tokens).shape == (4, 4)
    assert "".join(maze.grid(tokens)[0]) == "S  #"
    assert maze.written(np.zeros(16, np.uint8), joined) == "?" * 16


def test_mazes_are_judged_by_their_rules(maze):
    question, answer = maze.parse(MAZE), maze.parse(MAZE).copy()
    answer[np.array([*SOLVED.replace("\n", "")]) == "o"] = 5
    valid = maze.pose(np.stack([question] * 2)).is_valid
    answers = np.stack([answer, question])
    assert valid(np.stack([question] * 2), answers).tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S G", "3 characters found, 16 expected"),
        (SOLVED, "'o' at row 1, column 2; allowed: # space S G"),
        (MAZE.replace("S", "#"), "0 S, exactly 1 expected"),
        ([["S"]], "list; text expected"),
    ],
)
def test_a_wrong_maze_is_refused_with_its_place(maze, text, message):
    with pytest.raises(DataError, match=message):
        maze.parse(text)


def test_arc_grids_are_rows_of_colours(arc):
    grid = [[1, 0], [0, 9], [3, 3]]
    tokens = arc.parse(grid)
    np.testing.assert_array_equal(tokens, arc.parse(np.array(grid)))
    assert arc.written(tokens, grid) == grid
    np.testing.assert_array_equal(arc.grid(tokens), grid)
    with pytest.raises(DataError, match="row 1 column 2: value 10, allowed 0-9"):
        arc.parse([[1, 10]])
    with pytest.raises(DataError, match="1x13; data.arc.side = 12"):
        arc.parse([[0] * 13])


def test_an_arc_task_is_shown_by_its_id_or_by_the_blank_one(arc):
    tokens = np.stack([arc.parse([[1, 0]])] * 2)
    data = arc.load()
    names = arc._numbered()[1].names
    name = names[1]
    posed = arc.pose(tokens, name)
    assert posed.id_map == data.identity["id_map"]
    (rows, _), *_ = posed.questions(votes=3).batches(6)
    first = 1 + arc._numbered()[1].starts[1]
    assert rows["puzzle_id"].tolist() == [first, first + 1, first + 2] * 2
    for unknown, told in ((None, "no task is named"), ("abc", "'abc' was not trained")):
        with pytest.warns(UserWarning, match=told):
            posed = arc.pose(tokens, unknown)
        (rows, _), *_ = posed.questions().batches(2)
        assert rows["puzzle_id"].tolist() == [0, 0]
        assert posed.id_map is None


def test_a_task_without_a_form_of_its_own_takes_rows_of_tokens():
    task = Task(DataSettings(task="futoshiki", source="generator"), Settings())
    rows = np.arange(49).reshape(7, 7) % 9
    tokens = task.parse(rows.tolist())
    assert tokens.dtype == np.uint8
    assert task.written(tokens, rows.tolist()) == rows.tolist()
    with pytest.raises(DataError, match="9 at row 1, column 1; expected 0 to 8"):
        task.parse((rows + 9 * (rows == 0)).tolist())
    with pytest.raises(DataError, match="have no names"):
        task.pose(tokens[None], "a name")
