# SPDX-License-Identifier: Apache-2.0
import pathlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_pipeline import dihedral
from data_pipeline.arc.grids import decode, decode_sizes, encode, redraw

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "arc_encoding.npz"
SIDES = st.integers(1, 30)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def drawn_tokens(grid, side, top=0, left=0):
    """The oracle of encode, which draws each cell by itself."""
    rows, columns = grid.shape
    tokens = []
    for r in range(-top, side - top):
        for c in range(-left, side - left):
            if 0 <= r < rows and 0 <= c < columns:
                tokens.append(int(grid[r, c]) + 2)
            else:
                below = r == rows and 0 <= c < columns
                right = c == columns and 0 <= r < rows
                tokens.append(1 if below or right else 0)
    return tokens


def largest_rectangle(tokens, side):
    """The oracle of decode: try all rectangles from the corner, fewest rows first."""
    canvas = np.reshape(tokens, (side, side)).astype(int) - 2
    best = np.zeros((0, 0), int)
    for rows in range(1, side + 1):
        for columns in range(1, side + 1):
            part = canvas[:rows, :columns]
            if part.min() >= 0 and part.max() <= 9 and part.size > best.size:
                best = part
    return best


@st.composite
def grids(draw, most=30):
    shape = draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.integers(0, 10, shape).astype(np.uint8)


@pytest.mark.parametrize("case", ["full", "row", "small", "tall"])
@pytest.mark.parametrize("half", ["input", "output"])
def test_tokens_are_those_of_the_published_builder(golden, case, half):
    grid, tokens = (golden[f"encode/{case}/{half}{end}"] for end in ("", "_tokens"))
    found = encode(grid, 30)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, tokens)
    np.testing.assert_array_equal(decode(tokens, 30), grid)


@settings(max_examples=200, deadline=None, database=None)
@given(grid=grids(), room=st.tuples(*[st.integers(0, 29)] * 3))
def test_encoding_draws_every_cell_and_decoding_reads_it(grid, room):
    side = min(30, max(grid.shape) + room[0])
    top, left = (min(r, side - n) for r, n in zip(room[1:], grid.shape, strict=True))
    found = encode(grid, side, (top, left))
    assert found.tolist() == drawn_tokens(grid, side, top, left)
    np.testing.assert_array_equal(decode(encode(grid, side), side), grid)


@pytest.mark.parametrize("offset", [(-1, 0), (0, -1), (3, 0), (0, 2)])
def test_a_grid_that_leaves_the_canvas_is_refused(offset):
    with pytest.raises(ValueError, match=r"\(2, 3\) at offset .* not fit side = 4"):
        encode(np.zeros((2, 3), np.uint8), 4, offset)


@settings(max_examples=400, deadline=None, database=None)
@given(
    side=st.integers(1, 8),
    share=st.sampled_from([0.0, 0.3, 0.7, 0.9, 0.97, 1.0]),
    seed=st.integers(0, 2**32),
)
@example(side=1, share=1.0, seed=0)
def test_decoding_finds_the_largest_rectangle_of_colours(side, share, seed):
    rng = np.random.default_rng(seed)
    shape = (4, side**2)
    others = rng.choice(np.array([0, 1, 12, 255]), shape)
    tokens = np.where(rng.random(shape) < share, rng.integers(2, 12, shape), others)
    tokens = tokens.astype(np.uint8)
    rows, columns = decode_sizes(tokens, side)
    for i, row in enumerate(tokens):
        expected = largest_rectangle(row, side)
        assert (rows[i], columns[i]) == expected.shape
        found = decode(row, side)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("picture", "shape"),
    [
        ("### ## #", (0, 0)),  # nothing in the corner
        ("333 3## 3##", (1, 3)),  # 1x3 and 3x1 tie: fewer rows win
        ("33# 33# 3##", (2, 2)),
        ("333 333 333", (3, 3)),
        ("3## ### ###", (1, 1)),
        ("333 3#3 333", (1, 3)),  # what lies behind a hole is not read
    ],
)
def test_worked_examples_of_decoding(picture, shape):
    rows = [line.ljust(3, "#") for line in picture.split()]
    tokens = np.array([3 if cell == "3" else 1 for cell in "".join(rows)], np.uint8)
    if shape == (0, 0):
        tokens[0] = 0
    assert decode(tokens, 3).shape == shape


@settings(max_examples=200, deadline=None, database=None)
@given(side=SIDES, seed=st.integers(0, 2**32))
def test_redrawing_turns_renames_and_moves(side, seed):
    rng = np.random.default_rng(seed)
    count = 12
    sizes = rng.integers(1, side + 1, (2, count))
    transform = rng.integers(0, 8, count)
    colours = rng.permuted(np.tile(np.arange(10, dtype=np.uint8), (count, 1)), axis=1)
    tokens = rng.integers(2, 12, (count, side**2)).astype(np.uint8)
    offset, expected = np.zeros((count, 2), int), []
    for i, row in enumerate(tokens):
        grid = row.reshape(side, side)[: sizes[0, i], : sizes[1, i]] - 2
        grid = colours[i][dihedral.turn(grid, int(transform[i]))]
        offset[i] = [rng.integers(0, side - length + 1) for length in grid.shape]
        expected.append(drawn_tokens(grid, side, *offset[i]))
    found = redraw(tokens, tuple(sizes), transform, colours, offset, side)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_redrawing_an_empty_grid_leaves_pad():
    tokens = np.random.default_rng(0).integers(0, 12, (8, 25)).astype(np.uint8)
    empty, same = np.zeros(8, int), np.tile(np.arange(10), (8, 1))
    for offset in (0, 2):
        place = np.full((8, 2), offset)
        assert not redraw(tokens, (empty, empty), np.arange(8), same, place, 5).any()
    for t in range(8):  # the canvas has no other cell to read from
        one = tokens[:1, :1], (empty[:1], empty[:1]), np.array([t])
        assert redraw(*one, same[:1], np.zeros((1, 2), int), 1).tolist() == [[0]]
