# SPDX-License-Identifier: Apache-2.0
"""Mazes as text: one character per cell, row by row."""

import numpy as np

from ..errors import DataError
from ..written import check_text
from .grid import CHARACTERS, WALL, MazeShape, encode

_SHOWN = np.array(["?", *CHARACTERS])  # by token; a model may predict PAD


def parse_maze(text: str, shape: MazeShape) -> np.ndarray:
    """Cells row by row, with or without line ends -> tokens `m`. Raises DataError."""
    text = text.replace("\n", "")
    hint = "; free cells are spaces"
    check_text(text, "the maze", shape.side, "# SG", listed="# space S G", hint=hint)
    for character in "SG":
        if (count := text.count(character)) != 1:
            raise DataError(f"the maze: {count} {character}, exactly 1 expected")
    return encode(text)


def characters(tokens: np.ndarray, shape: MazeShape) -> np.ndarray:
    """Tokens `m` -> one character per cell, `r c`."""
    return _SHOWN[tokens.astype(int) - WALL + 1].reshape(shape.side, shape.side)
