# SPDX-License-Identifier: Apache-2.0
"""Solves many nonograms at once by line solving and depth-first guesses.

A search state has one set of options per row, see lines.py. Line solving keeps an
option of a cell if some line that fits the clue has it and only options that are left.
It is done for all rows and all columns in turn. When this changes nothing, a guess
fills the first cell with two options. If that leads to a contradiction, or if more
solutions are wanted, the cell is emptied.

The difficulty rating of a nonogram is the number of guesses that are made until its
solution is known to be the only one. It is 0 if line solving suffices.
"""

from typing import NamedTuple

import numpy as np

from .grid import NonogramShape
from .lines import all_options, known_clues, placements


class Solved(NamedTuple):
    """What a search found for each of `n` nonograms."""

    num_solutions: np.ndarray  # int64 `n`: found, at most the limit
    guesses: np.ndarray  # int64 `n`: made until the search ended
    filled: np.ndarray  # bool `n r c`: the last solution found, all False without one


def solve(
    row_clues: np.ndarray,
    column_clues: np.ndarray,
    shape: NonogramShape,
    limit: int = 2,
) -> Solved:
    """Searches until `limit` solutions of each nonogram are found or none is left.

    The clues are codes `n r` and `n c`. Clues that no line has give no solution.
    """
    rows, columns = _numbers(row_clues, shape.cols), _numbers(column_clues, shape.rows)
    total, even = len(rows), _even(shape.cols)
    found = Solved(
        np.zeros(total, int),
        np.zeros(total, int),
        np.zeros((total, shape.rows, shape.cols), bool),
    )
    # Per nonogram: the states to come back to, one for each guess that is being tried.
    stack = np.empty((total, shape.rows * shape.cols, shape.rows), np.uint32)
    depth = np.zeros(total, int)
    who = np.flatnonzero((rows >= 0).all(1) & (columns >= 0).all(1))
    state = np.full((len(who), shape.rows), all_options(shape.cols))
    while len(who):
        after = _narrowed(state, rows[who], shape.cols)
        across = _transposed(after, shape.cols)
        across = _narrowed(across, columns[who], shape.rows)
        after = _transposed(across, shape.rows)
        both = after & after >> 1 & even  # the cells with two options
        broken = (after == 0).any(1)
        still = (after == state).all(1) & ~broken
        solved = still & ~both.any(1)
        found.filled[who[solved]] = _options(after[solved], shape.cols)[..., 1]
        found.num_solutions[who[solved]] += 1
        state = after

        at = np.flatnonzero(still & ~solved)
        guessing = who[at]
        row = (both[at] != 0).argmax(1)
        first = both[at, row]
        can_be_empty = first & -first
        found.guesses[guessing] += 1
        stack[guessing, depth[guessing]] = state[at]
        stack[guessing, depth[guessing], row] &= ~(can_be_empty << 1)
        depth[guessing] += 1
        state[at, row] &= ~can_be_empty

        at = np.flatnonzero(broken | (solved & (found.num_solutions[who] < limit)))
        at = at[depth[who[at]] > 0]
        depth[who[at]] -= 1
        state[at] = stack[who[at], depth[who[at]]]
        going = ~(broken | solved)
        going[at] = True
        if not going.all():
            who, state = who[going], state[going]
    return found


def _numbers(codes: np.ndarray, length: int) -> np.ndarray:
    """Codes -> rows of the table of placements, or -1 if no line has the clue."""
    known = known_clues(length)
    place = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    return np.where(known[place] == codes, place, -1)


def _narrowed(state: np.ndarray, numbers: np.ndarray, length: int) -> np.ndarray:
    """The options `n lines` that lines with these clues can use."""
    fitting = placements(length)[numbers]
    fits = (fitting & ~state[..., None]) == 0
    return np.bitwise_or.reduce(np.where(fits, fitting, 0), axis=-1)


def _options(state: np.ndarray, length: int) -> np.ndarray:
    """Options as bits, `n lines` -> bool `n lines length 2`: may be empty, filled."""
    bits = state[..., None] >> np.arange(2 * length, dtype=np.uint32) & 1
    return bits.astype(bool).reshape(*state.shape, length, 2)


def _transposed(state: np.ndarray, length: int) -> np.ndarray:
    """Options of the rows `n r` -> options of the columns `n c`, or the reverse."""
    across = _options(state, length).swapaxes(1, 2)
    across = across.reshape(len(state), length, 2 * state.shape[1])
    return across @ (np.uint32(1) << np.arange(across.shape[-1], dtype=np.uint32))


def _even(length: int) -> np.uint32:
    """The bits of a line's options that say that a cell can be empty."""
    return np.uint32((4**length - 1) // 3)
