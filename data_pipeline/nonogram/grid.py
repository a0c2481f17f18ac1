# SPDX-License-Identifier: Apache-2.0
"""Nonogram grids: a rectangle of tokens that holds the clues and the cells.

The clues of the rows are left of the cells, and the clues of the columns are above
them. Clues are aligned to the cells: what a clue does not need of its slots is on the
far side. The upper left corner is PAD.

Tokens: 0 PAD, 1 blank (an unknown cell), 2 empty, 3 filled, 4 a slot without an entry,
v + 5 the entry v of a clue.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from ..dihedral import COUNT
from ..spec import PAD_ID, PuzzleSpec
from .lines import LONGEST, clue_codes, from_entries, slots, to_entries

BLANK, EMPTY, FILLED, NO_ENTRY = 1, 2, 3, 4
VOCAB_SIZE = NO_ENTRY + 2 + LONGEST  # entries from 0 to the longest line
_KEEP_SHAPE = (0, 2, 4, 5)  # the turns of dihedral.turn that keep any rectangle


class Parts(NamedTuple):
    """What the tokens of `n` nonograms hold."""

    row_clues: np.ndarray  # codes `n r`, see lines.py
    column_clues: np.ndarray  # codes `n c`
    cells: np.ndarray  # tokens `n r c`


@dataclasses.dataclass(frozen=True)
class NonogramShape:
    """`rows` x `cols` cells, without the clues."""

    rows: int
    cols: int

    @property
    def left(self) -> int:
        """Columns of tokens that hold the clues of the rows."""
        return slots(self.cols)

    @property
    def top(self) -> int:
        """Rows of tokens that hold the clues of the columns."""
        return slots(self.rows)

    @property
    def spec(self) -> PuzzleSpec:
        """The sizes for the model, which are those of the rectangle with the clues."""
        grid_shape = (self.top + self.rows, self.left + self.cols)
        return PuzzleSpec(VOCAB_SIZE, grid_shape, blank=BLANK)

    @property
    def turns(self) -> tuple[int, ...]:
        """The turns of dihedral.turn that keep the shape: 8 of a square, else 4."""
        return tuple(range(COUNT)) if self.rows == self.cols else _KEEP_SHAPE

    def parts(self, tokens: np.ndarray) -> Parts:
        """Tokens `n m` -> clues and cells."""
        grids = tokens.reshape(-1, *self.spec.grid_shape).astype(np.int64)
        left, above = (
            grids[:, self.top :, : self.left],
            grids[:, : self.top, self.left :],
        )
        return Parts(
            from_entries(left - NO_ENTRY),
            from_entries(above.swapaxes(1, 2) - NO_ENTRY),
            grids[:, self.top :, self.left :],
        )

    def questions(self, row_clues: np.ndarray, column_clues: np.ndarray) -> np.ndarray:
        """Codes `n r` and `n c` -> uint8 tokens `n m` with all cells blank."""
        grids = np.full((len(row_clues), *self.spec.grid_shape), PAD_ID, np.uint8)
        grids[:, self.top :, self.left :] = BLANK
        left, above = (
            to_entries(row_clues, self.left),
            to_entries(column_clues, self.top),
        )
        grids[:, self.top :, : self.left] = left + NO_ENTRY
        grids[:, : self.top, self.left :] = above.swapaxes(1, 2) + NO_ENTRY
        return grids.reshape(len(grids), -1)

    def labels(self, filled: np.ndarray) -> np.ndarray:
        """Solutions, bool `n r c` -> uint8 labels `n m`; only cells have one."""
        cells = np.where(filled, np.uint8(FILLED), np.uint8(EMPTY))
        padded = np.pad(cells, ((0, 0), (self.top, 0), (self.left, 0)))
        return padded.reshape(len(filled), -1)


def clues_of(filled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes of the rows `n r` and of the columns `n c` of grids, bool `n r c`."""
    return clue_codes(filled), clue_codes(filled.swapaxes(1, 2))


def is_solution(
    inputs: np.ndarray, answers: np.ndarray, shape: NonogramShape
) -> np.ndarray:
    """Which answers `n m` have the runs that the clues of their questions list: `n`.

    An answer must fill or empty every cell and keep the cells that its question gives.
    What it holds elsewhere does not matter.
    """
    row_clues, column_clues, given = shape.parts(inputs)
    cells = shape.parts(answers).cells
    complete = (cells == EMPTY) | (cells == FILLED)
    right = (complete & ((given == BLANK) | (given == cells))).all((1, 2))
    rows, columns = clues_of(cells == FILLED)
    return right & (rows == row_clues).all(1) & (columns == column_clues).all(1)
