# SPDX-License-Identifier: Apache-2.0
"""Mazes as text: one character a cell, row by row."""

import numpy as np

from ..errors import DataError
from .grid import CHARACTERS, WALL, MazeShape, encode

_SHOWN = np.array(["?", *CHARACTERS])  # by token; a model may predict PAD


def parse_maze(text: str, shape: MazeShape) -> np.ndarray:
    """Cells row by row, with or without line ends -> tokens `m`. Raises DataError."""
    text = text.replace("\n", "")
    if len(text) != shape.num_cells:
        raise DataError(
            f"the maze: {len(text)} characters found, {shape.num_cells} expected "
            f"({shape.side} rows of {shape.side}; free cells are spaces)"
        )
    for i, character in enumerate(text):
        if character not in "# SG":
            row, column = divmod(i, shape.side)
            raise DataError(
                f"the maze: character {character!r} at row {row + 1}, column "
                f"{column + 1}; allowed: # space S G"
            )
    for character in "SG":
        if (count := text.count(character)) != 1:
            raise DataError(f"the maze: {count} {character}, exactly 1 expected")
    return encode(text)


def characters(tokens: np.ndarray, shape: MazeShape) -> np.ndarray:
    """Tokens `m` -> one character a cell, `r c`."""
    return _SHOWN[tokens.astype(int) - WALL + 1].reshape(shape.side, shape.side)
