# SPDX-License-Identifier: Apache-2.0
"""A new puzzle needs one folder and one entry, as tests/helpers/futoshiki shows."""

import itertools

import numpy as np
import pytest

from data_pipeline import settings, tasks
from data_pipeline.errors import DataError
from data_pipeline.loader import TrainLoader

SIGNS = {7: "<", 8: ">"}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(settings.TASKS, "futoshiki", "tests.helpers.futoshiki.task")


def load(num_signs=8, **changes):
    data = {"task": "futoshiki", "source": "generator"}
    data |= {"train_puzzles": 20, "test_puzzles": 10}
    return tasks.load(data | {"futoshiki": {"num_signs": num_signs}} | changes)


def solutions(tokens):
    """All Latin squares that a question allows, by brute force without shared code."""
    grid = tokens.reshape(7, 7)
    rows = [
        [
            row
            for row in itertools.permutations(range(2, 6))
            if all(grid[2 * r, 2 * c] in (1, row[c]) for c in range(4))
            and all(ordered(grid[2 * r, 2 * c + 1], *row[c : c + 2]) for c in range(3))
        ]
        for r in range(4)
    ]
    return [
        square
        for square in itertools.product(*rows)
        if all(len(set(column)) == 4 for column in zip(*square, strict=True))
        and all(
            ordered(grid[2 * r + 1, 2 * c], square[r][c], square[r + 1][c])
            for r, c in itertools.product(range(3), range(4))
        )
    ]


def ordered(sign, first, second):
    return sign == 6 or (sign == 7 and first < second) or (sign == 8 and first > second)


@pytest.mark.parametrize("num_signs", [0, 8, 24])
def test_every_puzzle_has_one_solution_and_is_new(num_signs):
    data = load(num_signs)
    inputs = np.concatenate([data.train.inputs, data.test.puzzles.inputs])
    labels = np.concatenate([data.train.labels, data.test.puzzles.labels])
    assert len(np.unique(inputs, axis=0)) == len(inputs) == 30
    assert (np.isin(inputs, [*SIGNS]).sum(1) == num_signs).all()
    for question, label in zip(inputs, labels, strict=True):
        (square,) = solutions(question)
        assert label.reshape(7, 7)[::2, ::2].tolist() == np.array(square).tolist()
    given = inputs != data.spec.blank
    np.testing.assert_array_equal(labels[given], inputs[given])


def test_puzzles_and_batches_follow_from_the_seeds():
    assert load().identity == load().identity != load(seed=1).identity
    loaders = [
        TrainLoader(data.train, batch_size=7, seed=0, variants=data.train_variants)
        for data in (load(), load())
    ]
    for k in (5, 0, 5):
        one, two = (loader(k) for loader in loaders)
        assert all((one[name] == two[name]).all() for name in one)
        assert not one["label_mask"].reshape(-1, 7, 7)[:, 1::2, 1::2].any()


def test_answers_are_judged_by_the_rules():
    test = load().test
    assert test.is_valid(test.puzzles.inputs, test.puzzles.labels).all()
    assert not test.is_valid(test.puzzles.inputs, test.puzzles.inputs).any()
    others = np.roll(test.puzzles.labels, 1, axis=0)
    assert not test.is_valid(test.puzzles.inputs, others).any()


def test_its_test_set_is_posed_like_any_other():
    questions = load().test.questions()
    batch, numbers = next(questions.batches(16))
    assert batch["inputs"].shape == (16, 49)
    assert batch["weight"].sum() == 10
    assert numbers.tolist() == list(range(16))
    np.testing.assert_array_equal(
        questions.turned_back(questions.labels), batch["labels"][:10]
    )
    with pytest.raises(DataError, match=r"votes = 2, but a test puzzle has 1 form"):
        load().test.questions(votes=2)


def test_its_settings_are_a_section_like_any_other():
    assert settings.defaults()["futoshiki"] == {"num_signs": 8}
    assert tasks.spec_of({"task": "futoshiki", "source": "arrays"}).sizes == {
        "vocab_size": 9, "grid_shape": [7, 7], "num_puzzles": 1, "blank": 1
    }  # fmt: skip
    for changes, message in (
        ({"source": "web"}, "'web'; expected one of arrays, generator"),
        ({"num_augmentations": 1}, "num_augmentations = 1; .* 'futoshiki' has 0"),
        ({"source": "arrays"}, "num_signs = 9: data.source is 'arrays', which does"),
        (
            {"train_puzzles": 0},
            "data.train_puzzles = 0; the generator makes 1 to 10,000,000",
        ),
    ):
        with pytest.raises(DataError, match=message):
            load(9, **changes)
