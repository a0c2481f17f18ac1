# SPDX-License-Identifier: Apache-2.0
"""Counts the solutions of a Sudoku by depth-first search."""

import numpy as np

from data_pipeline.sudoku import BLANK_TOKEN, SudokuShape


def count_solutions(tokens: np.ndarray, shape: SudokuShape, limit: int = 2) -> int:
    """How many solutions tokens `m` have; counting stops at `limit`."""
    units = shape.units()
    units_of = [np.nonzero(units == c)[0].tolist() for c in range(len(tokens))]
    free = [2**shape.side - 1] * len(
        units
    )  # per unit: one bit per digit not yet placed
    for cell in np.flatnonzero(tokens > BLANK_TOKEN).tolist():
        bit = 1 << (int(tokens[cell]) - BLANK_TOKEN - 1)
        for unit in units_of[cell]:
            if not free[unit] & bit:
                return 0
            free[unit] ^= bit
    empty = set(np.flatnonzero(tokens <= BLANK_TOKEN).tolist())
    return _search(free, units_of, empty, limit)


def _search(
    free: list[int], units_of: list[list[int]], empty: set[int], limit: int
) -> int:
    if not empty:
        return 1
    fewest = 10  # more than any cell has
    for candidate in empty:
        row, column, box = units_of[candidate]
        mask = free[row] & free[column] & free[box]
        if (count := mask.bit_count()) < fewest:
            cell, options, fewest = candidate, mask, count
            if count <= 1:
                break
    empty.remove(cell)
    found = 0
    while options and found < limit:
        bit = options & -options
        options ^= bit
        for unit in units_of[cell]:
            free[unit] ^= bit
        found += _search(free, units_of, empty, limit - found)
        for unit in units_of[cell]:
            free[unit] ^= bit
    empty.add(cell)
    return found
