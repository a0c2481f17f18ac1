# SPDX-License-Identifier: Apache-2.0
import hashlib
import time

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.nonogram import generator
from data_pipeline.nonogram.generator import generate
from data_pipeline.nonogram.grid import FILLED, NonogramShape
from data_pipeline.spec import array_digest
from tests.data_pipeline.nonogram import oracle

FIVE, WIDE, TEN = NonogramShape(5, 5), NonogramShape(6, 8), NonogramShape(10, 10)
USUAL = (0.4, 0.6)
SETS = [(FIVE, (60, 30), USUAL), (WIDE, (30, 20), (0.45, 0.7)), (TEN, (8, 4), USUAL)]


@pytest.fixture(scope="module", params=SETS, ids=str)
def made(request):
    shape, counts, share = request.param
    return shape, counts, generate(shape, counts, filled_share=share, seed=11)


def grids(puzzles, shape):
    cells = puzzles.labels.reshape(-1, *shape.spec.grid_shape)
    return (cells[:, shape.top :, shape.left :] == FILLED).astype(int).tolist()


def turned_forms(grid):
    """The 8 turned forms of a square, the 4 of a rectangle that keep its shape."""
    forms = {str(g) for g in (grid, grid[::-1])}
    forms |= {str([row[::-1] for row in g]) for g in (grid, grid[::-1])}
    if len(grid) == len(grid[0]):
        across = [list(column) for column in zip(*grid, strict=True)]
        forms |= {str(g) for g in (across, across[::-1])}
        forms |= {str([row[::-1] for row in g]) for g in (across, across[::-1])}
    return forms


def digest(sets):
    arrays = [
        a
        for puzzles in sets
        for a in (puzzles.inputs, puzzles.labels, *puzzles.attributes.values())
    ]
    return hashlib.sha256("".join(map(array_digest, arrays)).encode()).hexdigest()


def test_sets_have_the_sizes_asked_for(made):
    _, counts, sets = made
    assert tuple(map(len, sets)) == counts


def test_solutions_are_unique_and_their_clues_are_the_questions(made):
    shape, _, sets = made
    for puzzles in sets:
        assert puzzles.inputs.dtype == puzzles.labels.dtype == np.uint8
        for grid, inputs in zip(grids(puzzles, shape), puzzles.inputs, strict=True):
            assert inputs.tolist() == oracle.tokens(grid)
            found = oracle.solutions(*oracle.clues(grid))
            assert found == [[tuple(row) for row in grid]]


def test_only_cells_have_labels(made):
    shape, _, sets = made
    for puzzles in sets:
        labelled = (puzzles.labels > 0).reshape(-1, *shape.spec.grid_shape)
        assert labelled[:, shape.top :, shape.left :].all()
        assert labelled.sum() == len(puzzles) * shape.rows * shape.cols


def test_no_puzzle_is_a_turned_form_of_another(made):
    shape, _, sets = made
    every = [grid for puzzles in sets for grid in grids(puzzles, shape)]
    seen = set()
    for grid in every:
        assert str(grid) not in seen
        seen |= turned_forms(grid)


def test_no_test_puzzle_is_a_training_puzzle_of_another_seed():
    def forms(split, seed):
        sets = generate(FIVE, (2_000, 2_000), filled_share=(0.8, 0.9), seed=seed)
        found = grids(sets[split], FIVE)
        return [min(turned_forms(grid)) for grid in found]

    train, test, other = set(forms(0, 1)), set(forms(1, 1)), set(forms(1, 2))
    assert len(train) == len(test) == 2_000  # none is a turned form of another
    assert not train & test
    assert not train & other
    assert test & other  # so few dense grids exist that seeds share some


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (FIVE, "feb08f227d0df1b6381ecfc85fa6b0b53766fed991db57ff5c5065e6b256a5fb"),
        (WIDE, "ed4ee7c943893de756d8f51a47e2d6026193f1f144fbcc7d33296389711058bc"),
        (TEN, "858e69ff6b74b5cb25b3fdd6bc2395181ae884d44248532c8ccde04809861e40"),
    ],
)
def test_same_seed_gives_the_same_bytes_everywhere(shape, expected):
    # If this changes, every generated set changes, and so do results on them.
    assert digest(generate(shape, (9, 7), filled_share=USUAL, seed=5)) == expected


def test_seeds_give_different_puzzles():
    digests = {
        digest(generate(FIVE, (9, 7), filled_share=USUAL, seed=s)) for s in range(4)
    }
    assert len(digests) == 4


def test_draws_at_once_do_not_matter(monkeypatch):
    whole = digest(generate(WIDE, (50, 20), filled_share=USUAL, seed=1))
    monkeypatch.setattr(generator, "CHUNK", 7)
    assert digest(generate(WIDE, (50, 20), filled_share=USUAL, seed=1)) == whole


def test_a_set_begins_alike_whatever_the_sizes_are():
    small = generate(FIVE, (5, 3), filled_share=USUAL, seed=0)
    large = generate(FIVE, (50, 40), filled_share=USUAL, seed=0)
    for few, many in zip(small, large, strict=True):
        np.testing.assert_array_equal(few.inputs, many.inputs[: len(few)])


def test_the_share_of_filled_cells_is_drawn_from_its_range():
    sets = generate(TEN, (200, 1), filled_share=(0.7, 0.9), seed=0)
    share = np.mean(grids(sets[0], TEN), axis=(1, 2))
    assert abs(share.mean() - 0.8) < 0.02
    # The range alone has a deviation of 0.058, the cells of a grid one of 0.04.
    assert abs(share.std() - 0.07) < 0.015


def test_ratings_count_guesses():
    rating = generate(TEN, (200, 1), filled_share=USUAL, seed=0)[0].attributes["rating"]
    assert rating.dtype == np.int64
    assert rating.min() == 0 < rating.max()


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ((0.6, 0.4), r"filled_share = \(0.6, 0.4\); expected lowest <= highest"),
        (
            (0.0, 0.0),
            r"train_puzzles = 5: only [01] different puzzles of 5x5 with .*sha",
        ),
    ],
)
def test_wrong_requests_are_refused(share, message, monkeypatch):
    monkeypatch.setattr(generator, "PATIENCE", 2**12)
    with pytest.raises(DataError, match=message):
        generate(FIVE, (5, 5), filled_share=share, seed=0)


def test_five_thousand_puzzles_of_five_take_seconds_and_a_thousand_of_ten_as_well():
    for shape, count in ((FIVE, 5_000), (TEN, 1_000)):
        start = time.process_time()
        generate(shape, (count, 1), filled_share=USUAL, seed=0)
        assert time.process_time() - start < 5
