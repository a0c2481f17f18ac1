# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from data_pipeline import tasks
from data_pipeline.errors import DataError
from data_pipeline.nonogram.grid import NonogramShape, clues_of
from data_pipeline.nonogram.text import parse_answer, shape_of, write_question
from tests.data_pipeline.nonogram import oracle

ANSWER = "##.##\n.....\n#.#.#\n#####\n...##"
QUESTION = "2 2/0/1 1 1/5/2|1 2/1 1/2/1 2/1 3"


@pytest.fixture
def task():
    return tasks.task_of({"task": "nonogram", "source": "generator"})


def test_clues_are_read_as_text_and_laid_out_around_the_grid(task):
    grid = oracle.rows_of(ANSWER)
    assert oracle.text(grid) == QUESTION
    for text in (QUESTION, QUESTION.replace("|", " | ").replace("/", " / ") + "\n"):
        tokens = task.parse(text)
        assert tokens.dtype == np.uint8
        assert tokens.tolist() == oracle.tokens(grid)


def test_answers_are_written_as_rows_of_signs(task):
    filled = parse_answer(ANSWER, task.shape)
    assert filled.astype(int).tolist() == oracle.rows_of(ANSWER)
    np.testing.assert_array_equal(
        filled, parse_answer(ANSWER.replace("\n", "/"), task.shape)
    )
    label = task.shape.labels(filled[None])[0]
    assert task.written(label, QUESTION) == ANSWER
    assert ["".join(row) for row in task.grid(label)] == ANSWER.split("\n")
    unknown = np.full_like(label, 9)
    assert task.written(unknown, QUESTION) == "\n".join(["?" * 5] * 5)


@pytest.mark.parametrize(("rows", "cols"), [(5, 5), (6, 9), (10, 10)])
def test_written_clues_are_read_back(rows, cols):
    shape = NonogramShape(rows, cols)
    own = {"rows": rows, "cols": cols}
    task = tasks.task_of({"task": "nonogram", "source": "arrays", "nonogram": own})
    filled = np.random.default_rng(0).random((20, rows, cols)) < 0.6
    row_clues, column_clues = clues_of(filled)
    for i, grid in enumerate(filled.astype(int).tolist()):
        text = write_question(row_clues[i], column_clues[i])
        assert text == oracle.text(grid)
        assert shape_of(text) == shape
        assert task.parse(text).tolist() == oracle.tokens(grid)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("|", "/"), r"0 bars \(\|\) found, 1 expected: row clues\|column clues"),
        (("/5", "/5|1"), r"2 bars \(\|\) found, 1 expected"),
        (("/0", ""), "4 row clues found, 5 expected"),
        (("|1 2", "|1/2"), "6 column clues found, 5 expected"),
        (
            ("/0/", "//"),
            "row 2: no clue; whole numbers from 1 to 5, or a single 0, exp",
        ),
        (("/5/", "/6/"), "row 4: entry '6'; whole numbers from 1 to 5"),
        (
            ("/5/", "/4 0/"),
            "row 4: entry '0'; whole numbers from 1 to 5, or a single 0",
        ),
        (("|1 2", "|1 x"), "column 1: entry 'x'; whole numbers"),
        (("|1 2", "|1 -2"), "column 1: entry '-2'; whole numbers"),
        (("|1 2", "|1 ²"), r"column 1: entry '\\xb2'; whole numbers"),
        (("|1 2", "|1 2222222222"), "column 1: entry '2222222222'; whole numbers"),
        (("1 1 1", "1 1 1 1"), "row 3: the clue 1 1 1 1 needs 7 cells, at most 5 exp"),
        (("|1 2", "|1 1"), "row clues have 14 filled cells and the column clues 13"),
    ],
)
def test_a_wrong_question_is_refused_with_its_place(task, change, message):
    text = QUESTION.replace(*change)
    assert text != QUESTION
    with pytest.raises(DataError, match=message) as caught:
        task.parse(text)
    assert str(caught.value).startswith("the nonogram: ")
    assert "\n" not in str(caught.value)


def test_a_question_that_is_no_text_is_refused(task):
    with pytest.raises(DataError, match="the nonogram: list; text expected"):
        task.parse([[1, 2]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ANSWER[6:], "4 rows found, 5 expected"),
        (ANSWER.replace(".....", "...."), "row 2: 4 characters found, 5 expected"),
        (
            ANSWER.replace("#####", "###x#"),
            r"row 4, column 4: character 'x'; allowed: #",
        ),
    ],
)
def test_a_wrong_answer_is_refused_with_its_place(task, text, message):
    with pytest.raises(DataError, match=message):
        parse_answer(text, task.shape)


def test_a_shape_beyond_the_limits_is_refused():
    with pytest.raises(
        DataError, match="4 row clues and 5 column clues found; 5 to 10"
    ):
        shape_of("1/1/1/1|1/1/1/1/1")
    with pytest.raises(DataError, match="5 row clues and 11 column clues found"):
        shape_of("1/1/1/1/1|" + "/".join("1" * 11))
