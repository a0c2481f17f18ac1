# SPDX-License-Identifier: Apache-2.0
"""The configs, splits and columns of the prepared data set sudoku_extreme."""

from ...errors import DataError
from ...sudoku.grid import SudokuShape
from ..reading import PreparedSet, puzzle_columns

NAME = "sudoku_extreme"
VERSION = "1.0.0"
SHAPES = {
    f"boxes_{rows}x{cols}": SudokuShape(rows, cols)
    for rows, cols in ((3, 3), (2, 3), (2, 2))
}
DEFAULT_SHAPE = SHAPES["boxes_3x3"]


def prepared_set(shape: SudokuShape = DEFAULT_SHAPE) -> PreparedSet:
    """The data set of a shape. Raises DataError if the shape has none."""
    config = f"boxes_{shape.box_rows}x{shape.box_cols}"
    if config not in SHAPES:
        raise DataError(f"{shape} cannot be prepared; expected {', '.join(SHAPES)}")
    columns = puzzle_columns(shape.num_cells, "rating", "clues")
    return PreparedSet(NAME, VERSION, config, ("train", "test"), columns)
