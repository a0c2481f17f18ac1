# SPDX-License-Identifier: Apache-2.0
"""New Sudoku puzzles with exactly one solution, from a seed."""

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.spec import PuzzleSet
from data_pipeline.sudoku import BLANK_TOKEN, SudokuShape
from data_pipeline.sudoku_solver import count_solutions


def generate(
    shape: SudokuShape, counts: tuple[int, int], *, clues: tuple[int, int], seed: int
) -> tuple[PuzzleSet, PuzzleSet]:
    """A training and a test set of `counts` puzzles, all different.

    Clues are taken away at random while the solution stays unique, down to a number
    drawn from `clues` (both ends included).

    Raises DataError where `clues` cannot be met.
    """
    fewest, most = clues
    if not 0 < fewest <= most <= shape.num_cells:
        raise DataError(
            f"data.clues = {clues}; expected 1 <= fewest <= most <= {shape.num_cells}"
        )
    rng = np.random.default_rng(seed)
    found: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    tries = 0
    while len(found) < sum(counts):
        tries += 1
        if tries > 100 * sum(counts):
            raise DataError(
                f"data.clues = {clues}: only {len(found)} of {sum(counts)} puzzles "
                "found; ask for more clues or fewer puzzles"
            )
        solution = _random_solution(shape, rng)
        puzzle = _dig(shape, solution, int(rng.integers(fewest, most + 1)), rng)
        if puzzle is not None:
            found.setdefault(puzzle.tobytes(), (puzzle, solution))
    inputs, labels = (np.stack(grids) for grids in zip(*found.values(), strict=True))
    both = [slice(0, counts[0]), slice(counts[0], None)]
    train, test = (
        PuzzleSet.of_single_examples(
            inputs[part], labels[part], clues=(inputs[part] != BLANK_TOKEN).sum(1)
        )
        for part in both
    )
    return train, test


def _random_solution(shape: SudokuShape, rng: np.random.Generator) -> np.ndarray:
    """A full grid: the shifted pattern grid under random symmetries."""
    r, c, n = shape.box_rows, shape.box_cols, shape.side

    def lines(num_blocks: int, width: int) -> np.ndarray:
        blocks = rng.permutation(num_blocks)[:, None] * width
        within = np.stack([rng.permutation(width) for _ in range(num_blocks)])
        return (blocks + within).ravel()

    rows, cols = lines(c, r)[:, None], lines(r, c)[None]
    pattern = (rows % r * c + rows // r + cols) % n
    return (rng.permutation(n)[pattern] + 2).astype(np.uint8).ravel()


def _dig(
    shape: SudokuShape, solution: np.ndarray, clues: int, rng: np.random.Generator
) -> np.ndarray | None:
    puzzle = solution.copy()
    left = shape.num_cells
    for cell in rng.permutation(shape.num_cells):
        if left == clues:
            break
        puzzle[cell] = BLANK_TOKEN
        if count_solutions(puzzle, shape) > 1:
            puzzle[cell] = solution[cell]
        else:
            left -= 1
    return puzzle if left == clues else None
