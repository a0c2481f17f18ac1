# SPDX-License-Identifier: Apache-2.0
"""Sudoku grids of any box size: characters, tokens, rules, symmetries.

Tokens: 0 PAD, 1 blank, d + 1 for digit d. Characters: `.` blank, then 1-9.
"""

import dataclasses

import numpy as np

from ..spec import PuzzleSpec

BLANK_TOKEN = 1


@dataclasses.dataclass(frozen=True)
class SudokuShape:
    """Boxes of `box_rows` x `box_cols` cells; the side is their product (4 to 9)."""

    box_rows: int
    box_cols: int

    @property
    def side(self) -> int:
        """Number of rows, columns, boxes and digits."""
        return self.box_rows * self.box_cols

    @property
    def num_cells(self) -> int:
        """Cells of the grid."""
        return self.side**2

    @property
    def spec(self) -> PuzzleSpec:
        """The sizes for the model. All puzzles have the blank puzzle id.

        The tokens are PAD, blank and the digits.
        """
        grid_shape = (self.side, self.side)
        box_shape = (self.box_rows, self.box_cols)
        return PuzzleSpec(
            self.side + 2, grid_shape, blank=BLANK_TOKEN, box_shape=box_shape
        )

    def units(self) -> np.ndarray:
        """Cell indices of rows, then columns, then boxes: `3 side, side`."""
        cells = np.arange(self.num_cells).reshape(self.side, self.side)
        r, c = self.box_rows, self.box_cols
        boxes = cells.reshape(c, r, r, c).swapaxes(1, 2).reshape(self.side, self.side)
        return np.concatenate([cells, cells.T, boxes])

    def broken_units(self, tokens: np.ndarray) -> np.ndarray:
        """Which units repeat a digit: tokens `n m` -> bool `n, 3 side`."""
        digits = tokens[:, self.units()]
        ordered = np.sort(digits, axis=-1)
        return ((np.diff(ordered) == 0) & (ordered[..., 1:] > BLANK_TOKEN)).any(-1)


def decode(tokens: np.ndarray) -> str:
    """One puzzle's tokens `m` -> its characters."""
    return "".join("." if t <= BLANK_TOKEN else str(t - 1) for t in tokens)


def encode(text: str) -> np.ndarray:
    """Characters (`.` or 1-9, already checked) -> uint8 tokens `m`."""
    codes = np.frombuffer(text.encode("ascii"), np.uint8)
    return np.where(codes == ord("."), BLANK_TOKEN, codes - ord("0") + 1).astype(
        np.uint8
    )
