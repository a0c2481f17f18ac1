# SPDX-License-Identifier: Apache-2.0
"""Questions as solve.py reads them: from text and from files, for every task."""

import json

import numpy as np
import pytest

import trm_jax
from data_pipeline.errors import DataError
from data_pipeline.tasks import task_of

SUDOKU = "1...\n..3.\n....\n...2"
GRID, ANSWER = [[1, 0], [0, 2]], [[2, 0], [0, 1]]


def task(name):
    return task_of(trm_jax.get_config(name).data.to_dict())


def test_a_sudoku_is_one_line_or_several_or_one_of_many(tmp_path):
    four = task("smoke")
    one = SUDOKU.replace("\n", "")
    tokens = four.parse(one)
    file = tmp_path / "puzzles.txt"
    for text in (SUDOKU, SUDOKU + "\n", one, one + "\n"):
        file.write_text(text)
        for source in (str(file), text.strip()):
            question, answer, name = four.read(source)
            np.testing.assert_array_equal(four.parse(question), tokens)
            assert answer is name is None
    file.write_text(f"{one}\n{one[::-1]}\n")
    np.testing.assert_array_equal(
        four.parse(four.read(str(file), 2)[0]), four.parse(one[::-1])
    )


def test_a_maze_keeps_its_spaces(tmp_path):
    config = trm_jax.get_config("maze_small")
    config.data.maze.side = 3
    maze = task_of(config.data.to_dict())
    file = tmp_path / "maze.txt"
    file.write_text("S  \n## \nG  \n")
    question, _, _ = maze.read(str(file))
    np.testing.assert_array_equal(maze.parse(question), maze.parse("S  ## G  "))


def test_a_nonogram_is_a_line(tmp_path):
    nonogram = task("nonogram")
    text = "1 1/5/1/1/1|1/2/4/1/1 1"
    file = tmp_path / "nonograms.txt"
    file.write_text(f"{text}\n{text[:-1]}2\n")
    assert nonogram.read(str(file), 1)[0] == text
    assert nonogram.read(text)[0] == text


def test_an_arc_task_is_a_json_file(tmp_path):
    arc = task("arc_small")
    file = tmp_path / "0a1b2c3d.json"
    pair = {"input": GRID, "output": ANSWER}
    content = {"train": [pair], "test": [pair, {"input": ANSWER}]}
    file.write_text(json.dumps(content))
    assert arc.read(str(file)) == (GRID, ANSWER, "0a1b2c3d")
    assert arc.read(str(file), 2) == (ANSWER, None, "0a1b2c3d")
    assert arc.read(json.dumps(GRID)) == (GRID, None, None)
    for source, number, message in (
        (str(file), 3, "0a1b2c3d.json: test input 3; it has 2, from 1 on"),
        (json.dumps(GRID), 2, "the puzzle: question 2 of one grid"),
        ("[[1, 2", 1, "the puzzle: not valid JSON: line 1"),
    ):
        with pytest.raises(DataError, match=message):
            arc.read(source, number)


@pytest.mark.parametrize(
    ("source", "number", "message"),
    [
        (SUDOKU, 2, "the puzzle: question 2; it has 1, from 1 on"),
        (SUDOKU, 0, "the puzzle: question 0; it has 1, from 1 on"),
    ],
)
def test_a_question_that_is_not_there_is_refused(source, number, message):
    with pytest.raises(DataError, match=message):
        task("smoke").read(source, number)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "puzzles.txt"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="puzzles.txt"):
        task("smoke").read(str(file))
