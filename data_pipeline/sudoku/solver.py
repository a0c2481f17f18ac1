# SPDX-License-Identifier: Apache-2.0
"""Solves many Sudokus at once by propagating singles and by depth-first guesses.

A search state is a column of bit masks, uint16 `m n`: bit d of a cell's mask says
that digit d + 1 is still possible there.

A guess takes the cell with the fewest candidates (at least two; the first such cell)
and tries its lowest digit. If that leads to a contradiction, the digit is ruled out and
propagation goes on. The difficulty rating of a puzzle is the number of guesses made
until the solution is found. It is 0 if naked and hidden singles suffice.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .grid import BLANK_TOKEN, SudokuShape


class Solved(NamedTuple):
    """What a search found for each of `n` puzzles."""

    num_solutions: np.ndarray  # int64 `n`: found, at most the limit
    guesses: np.ndarray  # int64 `n`: made until the search ended
    masks: np.ndarray  # uint16 `m n`: the last solution found, 0 without one


def all_digits(shape: SudokuShape) -> np.uint16:
    """The mask of a cell about which nothing is known."""
    return np.uint16(2**shape.side - 1)


def masks_of(tokens: np.ndarray, shape: SudokuShape) -> np.ndarray:
    """Tokens `n m` -> the candidates before any propagation."""
    shift = np.maximum(tokens, BLANK_TOKEN + 1).astype(np.uint16) - BLANK_TOKEN - 1
    masks = np.where(tokens > BLANK_TOKEN, np.uint16(1) << shift, all_digits(shape))
    return np.ascontiguousarray(masks.T)


def tokens_of(masks: np.ndarray) -> np.ndarray:
    """Masks `m n` -> uint8 tokens `n m`; cells with several candidates are blank."""
    masks = masks.T
    digit = np.bitwise_count(masks - np.uint16(1))  # of a mask with one bit
    return np.where(np.bitwise_count(masks) == 1, digit + BLANK_TOKEN + 1, BLANK_TOKEN)


def solve(
    masks: np.ndarray,
    shape: SudokuShape,
    limit: int = 1,
    lowest: np.ndarray | None = None,
    on_round: Callable[[int], None] = lambda done: None,
) -> Solved:
    """Searches each puzzle until `limit` solutions are found or none is left.

    With `lowest` (`m n`), a guess tries the candidates of its cell from that digit on,
    counted from 0, instead of from the lowest one. This makes random grids.
    `on_round` gets the number of finished puzzles every now and then. Deep searches of
    9x9 take 13 kB per puzzle.
    """
    num_cells, total = masks.shape
    found = Solved(
        np.zeros(total, int), np.zeros(total, int), np.zeros(masks.shape, np.uint16)
    )
    # Per puzzle: the states to come back to, one for each guess that is being tried.
    stack = np.empty((total, num_cells, num_cells), np.uint16)
    depth = np.zeros(total, int)
    propagate = _Propagation(shape)
    who, state = np.arange(total), masks.copy()  # the active puzzles, one per column
    while len(who):
        on_round(total - len(who))
        after, broken, solved = propagate(state)
        stalled = ~(broken | solved | (after != state).any(0))
        found.masks[:, who[solved]] = state[:, solved]
        found.num_solutions[who[solved]] += 1
        state = after

        columns = np.flatnonzero(stalled)
        guessing = who[columns]
        cell, digit = _choose(state[:, columns], guessing, lowest)
        found.guesses[guessing] += 1
        stack[guessing, depth[guessing]] = state[:, columns].T
        stack[guessing, depth[guessing], cell] &= ~digit
        depth[guessing] += 1
        state[cell, columns] = digit

        columns = np.flatnonzero(broken | (solved & (found.num_solutions[who] < limit)))
        columns = columns[depth[who[columns]] > 0]
        depth[who[columns]] -= 1
        state[:, columns] = stack[who[columns], depth[who[columns]]].T
        going = ~(broken | solved)
        going[columns] = True
        if not going.all():
            who, state = who[going], state[:, going]
    return found


def _choose(
    state: np.ndarray, puzzles: np.ndarray, lowest: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The cell to guess in and the bit of the digit to try, for each column."""
    options = np.bitwise_count(state)
    cell = np.where(options > 1, options, 99).argmin(0)
    digits = state[cell, np.arange(len(puzzles))]
    if lowest is not None:
        high = digits & (np.uint16(0xFFFF) << lowest[cell, puzzles].astype(np.uint16))
        digits = np.where(high, high, digits)
    return cell, _low_bit(digits)


def _low_bit(masks: np.ndarray) -> np.ndarray:
    return masks & -masks


class _Propagation:
    """One round of naked and hidden singles on states `m n`."""

    def __init__(self, shape: SudokuShape):
        self._all = all_digits(shape)
        self._units = shape.units()
        by_cell = self._units.ravel().argsort(kind="stable") // shape.side
        self._units_of = by_cell.reshape(-1, 3).T  # row, column and box of each cell

    def __call__(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The state after one round, and whether it was contradictory or solved before.

        The order of the steps affects neither the singles that are found in the end nor
        whether a contradiction is found.
        """
        is_single = (state & (state - np.uint16(1))) == 0
        placed, clash = self._once_and_more(np.where(is_single, state, 0))
        seen, more = self._once_and_more(state)
        broken = ((seen != self._all) | (clash != 0)).any(0) | (state == 0).any(0)
        hidden = state & self._around(seen & ~more)
        rest = np.where(is_single, state, state & ~self._around(placed))
        after = np.where(hidden, _low_bit(hidden), rest)
        return after, broken, ~broken & is_single.all(0)

    def _once_and_more(self, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each unit: the digits of its cells, and the digits in several cells."""
        seen = masks[self._units[:, 0]]
        more = np.zeros_like(seen)
        for cells in self._units.T[1:]:
            mask = masks[cells]
            more |= seen & mask
            seen |= mask
        return seen, more

    def _around(self, units: np.ndarray) -> np.ndarray:
        """For each cell, the union over its row, column and box."""
        row, column, box = self._units_of
        return units[row] | units[column] | units[box]
