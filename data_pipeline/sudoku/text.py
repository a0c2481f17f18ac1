# SPDX-License-Identifier: Apache-2.0
"""Sudoku puzzles from text, and whether an answer solves them."""

import numpy as np

from ..errors import DataError
from ..written import check_text
from .grid import BLANK_TOKEN, SudokuShape, encode


def parse_puzzle(text: str, shape: SudokuShape) -> np.ndarray:
    """Cells row by row, `.` or `0` for a blank -> tokens `m`. Raises DataError."""
    text = text.replace("0", ".")
    allowed = "." + "123456789"[: shape.side]
    listed, hint = f". and 1-{shape.side}", ", without spaces"
    check_text(text, "the puzzle", shape.side, allowed, listed=listed, hint=hint)
    tokens = encode(text)
    if shape.broken_units(tokens[None]).any():
        raise DataError("the puzzle: a digit is given twice in a row, column or box")
    return tokens


def is_solution(answer: np.ndarray, question: np.ndarray, shape: SudokuShape) -> bool:
    """Whether the answer is complete, keeps the givens and breaks no rule."""
    kept = (question <= BLANK_TOKEN) | (answer == question)
    complete = (answer > BLANK_TOKEN).all()
    return bool(complete and kept.all() and not shape.broken_units(answer[None]).any())
