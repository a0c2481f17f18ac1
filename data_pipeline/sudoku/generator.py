# SPDX-License-Identifier: Apache-2.0
"""New Sudoku puzzles with exactly one solution, from a seed.

Draw k depends only on the seed and k. From a random full grid (not uniform among all
grids) clues are removed in random order, each only if the solution stays unique. This
is done in DIGS different orders, and the puzzle with the highest rating is kept.
"""

from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..hashing import random_below, random_permutations
from ..spec import PuzzleSet
from .canonical import grid_classes, puzzle_classes
from .grid import SudokuShape
from .solver import all_digits, solve, tokens_of

DIGS = 2
CHUNK = 1024  # draws at once, for speed; the result does not depend on it

_GRID, _ORDER, _CLUES = range(3)


class _Puzzles(NamedTuple):
    """Arrays with one row per puzzle, or the rows of a single puzzle."""

    inputs: np.ndarray
    labels: np.ndarray
    clues: np.ndarray
    rating: np.ndarray


def generate(
    shape: SudokuShape, counts: tuple[int, int], *, clues: tuple[int, int], seed: int
) -> tuple[PuzzleSet, PuzzleSet]:
    """A training and a test set of `counts` puzzles, with their clues and ratings.

    The number of clues of a puzzle lies in the range `clues`, both ends included. For
    (0, 0) a puzzle is minimal: without any one of its clues it has a second solution.

    No puzzle occurs twice, not even as a symmetric variant, and no test puzzle has a
    variant of a training puzzle's solution. Grids of 2x2 boxes are an exception: all of
    them are variants of two grids, so both sets may hold puzzles of the same grid.

    Raises DataError if `counts` or `clues` cannot be met.
    """
    _check(shape, clues)
    split = _Split(counts)
    draws = 0
    while missing := split.missing():
        size = min(max(missing, draws, 64), CHUNK)
        drawn = _draw(shape, np.arange(draws, draws + size), clues, seed)
        draws += size
        puzzles = puzzle_classes(drawn.inputs, drawn.labels, shape)
        grids = puzzles if shape.side == 4 else grid_classes(drawn.labels, shape)
        split.add(drawn, puzzles.tolist(), grids.tolist())
        found = sum(counts) - split.missing()
        if draws >= 1000 and found < draws / 100:  # too rare, or no more exist
            raise DataError(
                f"data.train_puzzles = {counts[0]}, data.test_puzzles = {counts[1]}: "
                f"only {found} different puzzles with data.sudoku.clues = {clues} "
                f"found in {draws:,} draws; ask for fewer puzzles or other clues"
            )
    return split.sets()


def _check(shape: SudokuShape, clues: tuple[int, int]) -> None:
    bounds = (1, *clues, shape.num_cells)
    if len(clues) != 2 or (any(clues) and list(bounds) != sorted(bounds)):
        raise DataError(
            f"data.sudoku.clues = {clues}; expected 1 <= fewest <= most <= "
            f"{shape.num_cells}, or (0, 0) for minimal puzzles"
        )


class _Split:
    """The training and the test set. The class of its grid decides a puzzle's set.

    A new class is assigned for good to the set of which a smaller share is filled.
    """

    def __init__(self, counts: tuple[int, int]):
        self._counts = counts
        self._chosen: tuple[list[_Puzzles], list[_Puzzles]] = ([], [])
        self._seen: set[int] = set()  # classes of the puzzles
        self._home: dict[int, int] = {}  # class of a grid -> the set it belongs to

    def missing(self) -> int:
        """How many puzzles must still be found."""
        return sum(self._counts) - sum(map(len, self._chosen))

    def add(self, drawn: _Puzzles, puzzles: list[int], grids: list[int]) -> None:
        """Add the puzzles that are new and whose set is not full, in order."""
        for row, puzzle, grid in zip(
            zip(*drawn, strict=True), puzzles, grids, strict=True
        ):
            if puzzle in self._seen:
                continue
            train, test = map(len, self._chosen)
            emptier = int(test * self._counts[0] < train * self._counts[1])
            home = self._home.setdefault(grid, emptier)
            if len(self._chosen[home]) < self._counts[home]:
                self._seen.add(puzzle)
                self._chosen[home].append(_Puzzles(*row))

    def sets(self) -> tuple[PuzzleSet, PuzzleSet]:
        """The training and the test set."""
        train, test = map(_puzzle_set, self._chosen)
        return train, test


def _puzzle_set(rows: list[_Puzzles]) -> PuzzleSet:
    puzzles = _Puzzles(*map(np.stack, zip(*rows, strict=True)))
    return PuzzleSet.of_single_examples(
        puzzles.inputs, puzzles.labels, clues=puzzles.clues, rating=puzzles.rating
    )


def _draw(
    shape: SudokuShape, index: np.ndarray, clues: tuple[int, int], seed: int
) -> _Puzzles:
    """One puzzle per index, without the puzzles that keep too many clues."""
    fewest, most = clues if any(clues) else (0, shape.num_cells)
    wanted = np.zeros(len(index), int)
    if any(clues):
        wanted = fewest + random_below(most - fewest + 1, seed, _CLUES, index)
    grids = np.tile(_random_grids(shape, index, seed), DIGS)
    dig = np.arange(DIGS)[:, None]
    order = random_permutations(shape.num_cells, seed, _ORDER, dig, index)
    order = order.reshape(-1, shape.num_cells)
    puzzles = _dig(shape, grids, order, np.tile(wanted, DIGS))
    num_clues = (np.bitwise_count(puzzles) == 1).sum(0)
    rating = np.where(num_clues <= most, solve(puzzles, shape).guesses, -1)
    best = rating.reshape(DIGS, -1).argmax(0) * len(index) + np.arange(len(index))
    best = best[rating[best] >= 0]
    return _Puzzles(
        tokens_of(puzzles[:, best]),
        tokens_of(grids[:, best]),
        num_clues[best],
        rating[best],
    )


def _random_grids(shape: SudokuShape, index: np.ndarray, seed: int) -> np.ndarray:
    """A solved grid per index, as masks `m n`."""
    cells = np.arange(shape.num_cells)[:, None]
    lowest = random_below(shape.side, seed, _GRID, index, cells)
    empty = np.full(lowest.shape, all_digits(shape), np.uint16)
    return solve(empty, shape, lowest=lowest).masks


def _dig(
    shape: SudokuShape, grids: np.ndarray, order: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Masks `m n` with clues removed in `order`, down to the number `wanted`.

    A clue can be removed if no other digit in its cell leads to a solution. A clue that
    cannot be removed now cannot be removed later either, so one pass gives minimal
    puzzles.
    """
    puzzles = grids.copy()
    left = np.full(len(wanted), shape.num_cells)
    for cells in order.T:
        digging = np.flatnonzero(left > wanted)
        cell, column = cells[digging], np.arange(len(digging))
        others = puzzles[:, digging]
        others[cell, column] ^= all_digits(shape)
        unique = solve(others, shape).num_solutions == 0
        puzzles[cell[unique], digging[unique]] = all_digits(shape)
        left[digging[unique]] -= 1
    return puzzles
