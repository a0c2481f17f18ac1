# SPDX-License-Identifier: Apache-2.0
"""A hash that all symmetric variants of a Sudoku share, to hold out whole classes.

The symmetries permute rows within bands, bands, columns within stacks, stacks and
digits. For square boxes they include the transpose.

Equivalent Sudokus always have equal hashes. Two Sudokus that are not equivalent but
have equal hashes would count as one class. This loses a puzzle and does no other harm.
Of the 49 classes of 2x3 grids the three rarest (0.4 % of all grids) share a hash. The
2,236 classes of 2x2 puzzles with 4 to 8 clues all have different hashes.
"""

import numpy as np

from ..hashing import random_bits
from .grid import BLANK_TOKEN, SudokuShape

ROUNDS = 4
CHUNK_COLOURS = 2**18  # at once, to stay in the cache

_GIVEN, _MARKED, _ROW, _COLUMN, _BOX, _DIGIT, _SUM = range(7)


def grid_classes(solutions: np.ndarray, shape: SudokuShape) -> np.ndarray:
    """The class of each full grid, tokens `n m` -> uint64 `n`."""
    return puzzle_classes(solutions, solutions, shape)


def puzzle_classes(
    puzzles: np.ndarray, solutions: np.ndarray, shape: SudokuShape
) -> np.ndarray:
    """The class of each puzzle with its only solution: `n m` -> uint64 `n`.

    The colour of a cell is refined repeatedly by the colours in its row, column, box
    and digit (colour refinement, Weisfeiler and Leman 1968). This is done once for each
    choice of a cell that is marked at the start. Without a mark all cells of a full
    grid would look alike.
    """
    size = CHUNK_COLOURS // shape.num_cells**2
    parts = [slice(start, start + size) for start in range(0, len(puzzles), size)]
    hashes = [_hash(puzzles[part], solutions[part], shape) for part in parts]
    return np.concatenate([np.zeros(0, np.uint64), *hashes])


def _hash(puzzles: np.ndarray, solutions: np.ndarray, shape: SudokuShape) -> np.ndarray:
    count, num_cells = puzzles.shape
    digit = solutions.astype(int) - BLANK_TOKEN - 1
    cells_of_digit = digit.argsort(1, kind="stable").reshape(count, 1, -1)
    digit = digit[:, None]
    given = random_bits(_GIVEN, puzzles > BLANK_TOKEN)[:, None]
    marked = np.eye(num_cells, dtype=bool)
    colour = np.where(marked, random_bits(_MARKED, given), given)  # `n marked m`
    for _ in range(ROUNDS):
        of_digit = np.take_along_axis(colour, cells_of_digit, 2)
        of_digit = of_digit.reshape(count, num_cells, shape.side, shape.side).sum(-1)
        around = _lines_and_boxes(colour, shape)
        around += np.take_along_axis(random_bits(_DIGIT, of_digit), digit, 2)
        colour = random_bits(colour, around)
    return random_bits(_SUM, colour.sum(2)).sum(1)


def _lines_and_boxes(colour: np.ndarray, shape: SudokuShape) -> np.ndarray:
    """For each cell, a hash of the colours in its row, its column and its box."""
    r, c = shape.box_rows, shape.box_cols
    column_role = _ROW if r == c else _COLUMN  # the transpose swaps rows and columns
    boxes = colour.reshape(*colour.shape[:2], c, r, r, c)
    rows = boxes.sum((-2, -1), keepdims=True)
    columns = boxes.sum((-4, -3), keepdims=True)
    inside = boxes.sum((-3, -1), keepdims=True)
    around = random_bits(_ROW, rows) + random_bits(column_role, columns)
    return (around + random_bits(_BOX, inside)).reshape(colour.shape)
