# SPDX-License-Identifier: Apache-2.0
import functools
import itertools

import numpy as np
import pytest

from data_pipeline.sudoku.canonical import grid_classes, puzzle_classes
from data_pipeline.sudoku.generator import generate
from data_pipeline.sudoku.grid import BLANK_TOKEN, SudokuShape, encode
from data_pipeline.sudoku.solver import masks_of, solve
from data_pipeline.sudoku.symmetries import sample_symmetries

FOUR, SIX, NINE = SudokuShape(2, 2), SudokuShape(2, 3), SudokuShape(3, 3)
SHAPES = [FOUR, SIX, NINE]
CLUES = {FOUR: (4, 8), SIX: (8, 12), NINE: (0, 0)}


def moves(shape):
    """All symmetries of the cells, as source cells `k m`."""

    def lines(num_blocks, width):
        within = list(itertools.permutations(range(width)))
        for blocks in itertools.permutations(range(num_blocks)):
            for inner in itertools.product(within, repeat=num_blocks):
                pairs = zip(blocks, inner, strict=True)
                yield [block * width + line for block, p in pairs for line in p]

    r, c, side = shape.box_rows, shape.box_cols, shape.side
    rows, cols = np.array(list(lines(c, r))), np.array(list(lines(r, c)))
    cells = rows[:, None, :, None] * side + cols[None, :, None, :]
    cells = cells.reshape(-1, side, side)
    if r == c:
        cells = np.concatenate([cells, cells.swapaxes(1, 2)])
    return cells.reshape(len(cells), -1)


def canonical(puzzle, solution, shape, moves):
    """The smallest variant, with digits named by first appearance in the solution."""
    solutions = solution[moves].astype(int)
    names = solutions[:, : shape.side].argsort(1)
    renamed = np.take_along_axis(names, solutions - 2, 1)
    variants = 2 * renamed + (puzzle[moves] > BLANK_TOKEN) + 1
    return min(variants.astype(np.uint8).view(f"S{shape.num_cells}").ravel().tolist())


def variants(puzzles, shape, index):
    count = len(puzzles)
    symmetry = sample_symmetries(shape, 7, np.arange(count), np.full(count, index))
    return symmetry.apply(puzzles.inputs), symmetry.apply(puzzles.labels)


@functools.cache
def small_set(shape, seed=0):
    count = 60 if shape == NINE else 150
    return generate(shape, (count, count), clues=CLUES[shape], seed=seed)


def test_there_are_as_many_symmetries_as_known():
    assert [len(np.unique(moves(s), axis=0)) for s in (FOUR, SIX)] == [128, 3456]


@pytest.mark.parametrize("shape", SHAPES)
def test_symmetric_variants_share_their_hashes(shape):
    puzzles, _ = small_set(shape)
    of_grids = grid_classes(puzzles.labels, shape)
    of_puzzles = puzzle_classes(puzzles.inputs, puzzles.labels, shape)
    for index in range(1, 5):
        inputs, labels = variants(puzzles, shape, index)
        assert (inputs != puzzles.inputs).any(1).all()
        np.testing.assert_array_equal(grid_classes(labels, shape), of_grids)
        hashes = puzzle_classes(inputs, labels, shape)
        np.testing.assert_array_equal(hashes, of_puzzles)


def test_hash_tells_other_grids_apart():
    first, second = small_set(NINE)
    grids = np.concatenate([first.labels, second.labels])
    assert len(np.unique(grid_classes(grids, NINE))) == 120
    # Moving a column to another stack gives a grid that breaks the box rule.
    moved = grids[0].reshape(9, 9)[:, [3, 1, 2, 0, 4, 5, 6, 7, 8]].reshape(1, 81)
    assert grid_classes(moved, NINE) != grid_classes(grids[:1], NINE)


def test_hash_tells_puzzles_of_one_grid_apart():
    first, second = small_set(SIX)
    inputs = np.concatenate([first.inputs, second.inputs])
    labels = np.concatenate([first.labels, second.labels])
    one, other = inputs[:1], inputs[:1].copy()
    other[0, np.flatnonzero(one[0] > BLANK_TOKEN)[0]] = BLANK_TOKEN
    assert puzzle_classes(one, labels[:1], SIX) != puzzle_classes(
        other, labels[:1], SIX
    )
    assert len(np.unique(grid_classes(labels, SIX))) < 49


def test_hash_is_as_fine_as_the_canonical_form_of_every_small_puzzle():
    subsets = (np.arange(2**16)[:, None] >> np.arange(16)) & 1 == 1
    subsets = subsets[(subsets.sum(1) >= 4) & (subsets.sum(1) <= 6)]
    hashes, forms = [], []
    # Every grid of side four is a variant of one of these two.
    for text in ("1234341221434321", "1234341223414123"):
        solution = encode(text)
        inputs = np.where(subsets, solution, BLANK_TOKEN).astype(np.uint8)
        inputs = inputs[solve(masks_of(inputs, FOUR), FOUR, 2).num_solutions == 1]
        labels = np.tile(solution, (len(inputs), 1))
        hashes += puzzle_classes(inputs, labels, FOUR).tolist()
        symmetries = moves(FOUR)
        forms += [canonical(puzzle, solution, FOUR, symmetries) for puzzle in inputs]
    assert (
        len(set(hashes)) == len(set(forms)) == len(set(zip(hashes, forms, strict=True)))
    )


def test_hash_is_as_fine_as_the_canonical_form_of_drawn_grids():
    train, test = small_set(SIX, seed=2)
    symmetries = moves(SIX)
    forms = [
        [canonical(grid, grid, SIX, symmetries) for grid in puzzles.labels]
        for puzzles in (train, test)
    ]
    assert not set(forms[0]) & set(forms[1])
    hashes = [grid_classes(puzzles.labels, SIX).tolist() for puzzles in (train, test)]
    pairs = set(zip(hashes[0] + hashes[1], forms[0] + forms[1], strict=True))
    assert len(pairs) == len(set(hashes[0] + hashes[1])) > 20
    assert len(pairs) == len(set(forms[0] + forms[1]))


@pytest.mark.slow
def test_hash_of_all_grids_of_side_six_merges_three_rare_classes_of_forty_nine():
    grids = np.arange(2, 8)[None]  # the first row; the loop adds the other cells
    for cell in range(6, 36):
        units = [unit for unit in SIX.units().tolist() if cell in unit]
        before = sorted({other for unit in units for other in unit if other < cell})
        longer = np.repeat(grids, 6, axis=0)
        digit = np.tile(np.arange(2, 8), len(grids))[:, None]
        fits = (longer[:, before] != digit).all(1)
        grids = np.concatenate([longer, digit], axis=1)[fits]
    assert len(grids) * 720 == 28_200_960  # a known result of combinatorics
    hashes = grid_classes(grids, SIX)
    symmetries, merged, num_classes = moves(SIX), [], 0
    for value in np.unique(hashes):
        rest = {grid.tobytes() for grid in grids[hashes == value].astype(np.uint8)}
        orbits = []
        while rest:
            grid = np.frombuffer(next(iter(rest)), np.uint8)[symmetries]
            renamed = np.take_along_axis(grid[:, :6].argsort(1), grid - 2, 1) + 2
            orbit = {row.tobytes() for row in renamed.astype(np.uint8)}
            assert orbit <= rest  # equivalent grids have equal hashes
            rest -= orbit
            orbits.append(len(orbit))
        num_classes += len(orbits)
        merged += [orbits] if len(orbits) > 1 else []
    assert num_classes == 49
    assert merged == [[48, 48, 48]]
