# SPDX-License-Identifier: Apache-2.0
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.sudoku.grid import BLANK_TOKEN, SudokuShape
from data_pipeline.sudoku.symmetries import sample_symmetries

FOUR, SIX, NINE = SHAPES = SudokuShape(2, 2), SudokuShape(2, 3), SudokuShape(3, 3)
over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def solved_grid(shape):
    """A valid answer whose rows are shifted copies: uint8 tokens `1 m`."""
    row, column = np.divmod(np.arange(shape.num_cells), shape.side)
    band, line = np.divmod(row, shape.box_rows)
    return ((line * shape.box_cols + band + column) % shape.side + 2)[None].astype("u1")


def draw(shape, count, seed=0, puzzle=0):
    """Symmetries 1 to `count` of one puzzle."""
    return sample_symmetries(
        shape, seed, np.full(count, puzzle), np.arange(1, count + 1)
    )


def lines(shape, symmetry):
    """The sources of rows and of columns, `b side` each, and which grids are turned."""
    source = symmetry.cell_source.reshape(-1, shape.side, shape.side)
    down, across = np.divmod(source, shape.side)
    turned = down[:, 0, 0] != down[:, 0, 1]
    swapped = turned[:, None, None]
    rows = np.where(swapped, down.swapaxes(1, 2), down)
    cols = np.where(swapped, across.swapaxes(1, 2), across)
    assert (rows == rows[:, :, :1]).all()
    assert (cols == cols[:, :1, :]).all()
    return rows[:, :, 0], cols[:, 0, :], turned


@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 2**63 - 1),
    keys=st.lists(
        st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), min_size=1, max_size=5
    ),
    data=st.data(),
)
@settings(max_examples=200, deadline=None, database=None)
def test_invert_undoes_apply(shape, seed, keys, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    size = len(keys), shape.num_cells
    tokens = rng.integers(0, shape.spec.vocab_size, size).astype(np.uint8)
    puzzle, index = np.array(keys).T
    symmetry = sample_symmetries(shape, seed, puzzle, index)
    for there, back in ((symmetry, symmetry.invert()), (symmetry.invert(), symmetry)):
        found = back.apply(there.apply(tokens))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, tokens)


@over_shapes
def test_variants_of_a_solved_grid_are_valid_and_keep_the_givens(shape):
    symmetry = draw(shape, 2000)
    answers = symmetry.apply(solved_grid(shape).repeat(2000, axis=0))
    assert not shape.broken_units(answers).any()
    assert answers.min() > BLANK_TOKEN
    given = np.random.default_rng(0).random(answers.shape) < 0.3
    questions = np.where(given, solved_grid(shape), BLANK_TOKEN).astype(np.uint8)
    moved = symmetry.apply(questions)
    assert ((moved == answers) | (moved == BLANK_TOKEN)).all()
    np.testing.assert_array_equal((moved > BLANK_TOKEN).sum(1), given.sum(1))


@over_shapes
def test_index_0_is_the_identity(shape):
    keys = np.arange(100), np.zeros(100, int)
    for seed in (0, 1):
        symmetry = sample_symmetries(shape, seed, *keys)
        assert (symmetry.cell_source == np.arange(shape.num_cells)).all()
        assert (symmetry.token_map == np.arange(shape.spec.vocab_size)).all()


@over_shapes
def test_bands_and_stacks_stay_together(shape):
    rows, cols, _ = lines(shape, draw(shape, 500))
    for line, width in ((rows, shape.box_rows), (cols, shape.box_cols)):
        assert (np.sort(line) == np.arange(shape.side)).all()
        blocks = line.reshape(500, -1, width) // width
        assert (blocks == blocks[..., :1]).all()


@over_shapes
def test_square_boxes_alone_are_turned_half_of_the_time(shape):
    _, _, turned = lines(shape, draw(shape, 4000))
    expected = 0.5 if shape.box_rows == shape.box_cols else 0.0
    assert abs(turned.mean() - expected) < (0.04 if expected else 1e-9)


@over_shapes
def test_digits_alone_are_renamed_each_to_each_equally(shape):
    token_map = draw(shape, 9000).token_map
    assert (token_map[:, :2] == [0, 1]).all()
    assert (np.sort(token_map) == np.arange(shape.spec.vocab_size)).all()
    for digit in range(2, shape.spec.vocab_size):
        counts = np.bincount(token_map[:, digit])[2:]
        np.testing.assert_allclose(counts, 9000 / shape.side, rtol=0.2)


def test_all_symmetries_are_equally_likely():
    # 2x2 boxes have 8 orders of rows x 8 of columns x 2 (turned or not) x 24 of digits.
    symmetry = draw(FOUR, 100_000)
    rows, cols, turned = lines(FOUR, symmetry)
    parts = np.concatenate([rows, cols, turned[:, None], symmetry.token_map], axis=1)
    _, counts = np.unique(parts, axis=0, return_counts=True)
    assert len(counts) == 8 * 8 * 2 * 24
    expected = 100_000 / len(counts)
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert abs(statistic - len(counts)) < 4 * np.sqrt(2 * len(counts))


@pytest.mark.parametrize("changed", ["seed", "puzzle", "index"])
def test_seed_puzzle_and_index_each_change_every_part(changed):
    keys = {"seed": 0, "puzzle": np.full(2000, 3), "index": np.arange(1, 2001)}
    *lines_one, turned_one = lines(NINE, one := sample_symmetries(NINE, **keys))
    keys[changed] = keys[changed] + 1
    *lines_two, turned_two = lines(NINE, two := sample_symmetries(NINE, **keys))
    pairs = zip(lines_one, lines_two, strict=True)
    for a, b in (*pairs, (one.token_map, two.token_map)):
        assert (a == b).all(axis=1).mean() < 0.01
    assert abs((turned_one == turned_two).mean() - 0.5) < 0.05


def test_a_row_does_not_depend_on_the_other_rows():
    puzzle, index = np.arange(40) % 7, np.arange(40) % 5
    whole = sample_symmetries(NINE, 3, puzzle, index)
    for rows in (slice(17, 18), slice(None, None, -3)):
        part = sample_symmetries(NINE, 3, puzzle[rows], index[rows])
        np.testing.assert_array_equal(part.cell_source, whole.cell_source[rows])
        np.testing.assert_array_equal(part.token_map, whole.token_map[rows])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (FOUR, "fb09df7e4e006652"),
        (SIX, "c4e540bcd7d6b869"),
        (NINE, "dc98cd2c1702e2fe"),
    ],
    ids=str,
)
def test_symmetries_are_the_same_in_every_release(shape, expected):
    # New values would mean that a resumed run sees other puzzles. Never update them.
    symmetry = sample_symmetries(shape, 5, np.arange(64) % 9, np.arange(64))
    drawn = np.hstack([symmetry.cell_source, symmetry.token_map]).astype(np.uint8)
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == expected
