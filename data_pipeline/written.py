# SPDX-License-Identifier: Apache-2.0
"""Questions as users write them: text, or grids of numbers."""

from typing import Any

import numpy as np

from .errors import DataError


def check_text(
    text: str, what: str, side: int, allowed: str, *, listed: str, hint: str
) -> None:
    """Raise DataError unless `text` has `side` rows of `side` allowed characters."""
    if len(text) != side**2:
        raise DataError(
            f"{what}: {len(text)} characters found, {side**2} expected "
            f"({side} rows of {side}{hint})"
        )
    for i, character in enumerate(text):
        if character not in allowed:
            row, column = divmod(i, side)
            raise DataError(
                f"{what}: character {character!r} at row {row + 1}, column "
                f"{column + 1}; allowed: {listed}"
            )


def as_numbers(question: Any, grid_shape: tuple[int, int], most: int) -> np.ndarray:
    """Rows of whole numbers from 0 to `most` -> int64 `r c`. Raises DataError."""
    rows, columns = grid_shape
    expected = f"expected {rows} rows of {columns} whole numbers"
    try:
        grid = np.asarray(question)
    except ValueError as error:  # rows of different lengths
        raise DataError(f"the puzzle: {expected}") from error
    if grid.shape != grid_shape or grid.dtype.kind not in "iu":
        found = f"{grid.shape} of {grid.dtype}"
        raise DataError(f"the puzzle: shape {found}; {expected}")
    for row, column in np.argwhere((grid < 0) | (grid > most))[:1]:
        raise DataError(
            f"the puzzle: {grid[row, column]} at row {row + 1}, column {column + 1}; "
            f"expected 0 to {most}"
        )
    return grid.astype(np.int64)
