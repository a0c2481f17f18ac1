# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from data_pipeline import tasks
from data_pipeline.errors import DataError
from data_pipeline.nonogram.grid import BLANK, EMPTY, FILLED, is_solution
from data_pipeline.spec import PuzzleSpec
from tests.data_pipeline.nonogram import oracle


def load(own=None, **changes):
    data = {"task": "nonogram", "source": "generator", "nonogram": own or {}}
    return tasks.load(data | {"train_puzzles": 12, "test_puzzles": 5} | changes)


def labels_of(shape, *texts):
    grids = [oracle.rows_of(text.replace("/", "\n")) for text in texts]
    return shape.labels(np.array(grids, bool))


@pytest.mark.parametrize(
    ("own", "grid_shape"),
    [
        ({}, (8, 8)),
        ({"rows": 5, "cols": 8}, (8, 12)),
        ({"rows": 10, "cols": 7}, (15, 11)),
        ({"rows": 10, "cols": 10}, (15, 15)),
    ],
)
def test_the_grid_holds_the_cells_and_their_clues(own, grid_shape):
    expected = PuzzleSpec(16, grid_shape, blank=1)
    assert tasks.spec_of({"task": "nonogram", "nonogram": own}) == expected


def test_puzzles_come_from_the_seed():
    data = load()
    assert (len(data.train), len(data.test.puzzles)) == (12, 5)
    assert data.identity == load().identity != load(seed=1).identity
    assert data.warnings == []


def test_training_and_test_forms_are_those_of_the_shape():
    for own, count in (({}, 8), ({"rows": 6}, 4)):
        data = load(own, num_augmentations=count - 1)
        assert data.train_variants.num_forms.tolist() == [count] * 12
        assert data.test.variants.num_forms.tolist() == [count] * 5
        with pytest.raises(
            DataError, match=f"a puzzle of task 'nonogram' has {count - 1}"
        ):
            load(own, num_augmentations=count)


def test_any_grid_with_the_runs_of_the_clues_is_valid():
    task = tasks.task_of({"task": "nonogram", "source": "generator"})
    one = "1/1/1/1/1|1/1/1/1/1"
    answers = labels_of(
        task.shape,
        "#..../.#.../..#../...#./....#",
        "....#/...#./..#../.#.../#....",
        "#..../#..../..#../...#./....#",
        "#####/...../...../...../.....",
    )
    questions = np.stack([task.parse(one)] * 4)
    is_valid = task.pose(questions).is_valid
    assert is_valid(questions, answers).tolist() == [True, True, False, False]
    incomplete = np.where(answers == EMPTY, BLANK, answers)
    assert not is_valid(questions, incomplete).any()


def test_answers_are_judged_by_their_cells_alone():
    test = load().test
    inputs, labels = test.puzzles.inputs, test.puzzles.labels
    noise = np.random.default_rng(0).integers(16, size=labels.shape)
    assert test.is_valid(inputs, np.where(labels > 0, labels, noise)).all()
    assert not test.is_valid(inputs, inputs).any()
    for cell in np.flatnonzero(labels[0]):
        wrong = labels.copy()
        wrong[:, cell] ^= EMPTY ^ FILLED
        assert not test.is_valid(inputs, wrong).any()


def test_cells_that_a_question_gives_are_kept():
    shape = tasks.task_of({"task": "nonogram", "source": "arrays"}).shape
    diagonals = "#..../.#.../..#../...#./....#", "....#/...#./..#../.#.../#...."
    answers = labels_of(shape, *diagonals)
    eye = oracle.tokens(oracle.rows_of(diagonals[0].replace("/", "\n")))
    question = np.array(eye, np.uint8)
    question[-1] = FILLED
    both = np.stack([question] * 2)
    assert is_solution(both, answers, shape).tolist() == [True, False]


def test_votes_turn_answers_back():
    questions = load().test.questions(votes=0)
    (batch, _), *_ = questions.batches(questions.num_rows)
    back = questions.turned_back(batch["labels"])
    np.testing.assert_array_equal(back, questions.labels[questions.example])
    assert is_turned(batch["inputs"], questions)


def is_turned(inputs, questions):
    return (inputs != questions.inputs[questions.example]).any(1).sum() >= 30


@pytest.mark.parametrize(
    ("own", "changes", "message"),
    [
        ({"rows": 4}, {}, r"data.nonogram.rows = 4; expected .* >= 5 and <= 10"),
        ({"cols": 11}, {}, r"data.nonogram.cols = 11; expected .* >= 5 and <= 10"),
        ({"filled_share": (0.5, 1.5)}, {}, "filled_share = .* <= 1.0"),
        ({"filled_share": (0.5, 0.4)}, {}, "expected lowest <= highest"),
        ({}, {"source": "hub"}, "'hub'; expected one of csv, arrays, generator"),
        ({}, {"train_puzzles": 0}, "train_puzzles = 0; the generator makes 1 to"),
    ],
)
def test_wrong_settings_are_named(own, changes, message):
    with pytest.raises(DataError, match=message):
        load(own, **changes)
