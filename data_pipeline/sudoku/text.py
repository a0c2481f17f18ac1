# SPDX-License-Identifier: Apache-2.0
"""Sudoku grids as lines of text, in colour on a terminal, and puzzles from text."""

from collections.abc import Callable

import numpy as np

from ..errors import DataError
from ..written import check_text
from .grid import BLANK_TOKEN, SudokuShape, decode, encode

Style = Callable[[int], str]  # cell number -> one of STYLES
STYLES = {
    "given": "\033[1m",
    "right": "\033[32m",
    "wrong": "\033[31m",
    "new": "\033[33m",
    "plain": "",
}
_RESET = "\033[0m"


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


def grid_lines(
    tokens: np.ndarray, shape: SudokuShape, style: Style, *, colour: bool
) -> list[str]:
    """The grid with lines between its boxes. `style` names the style of each cell."""
    characters = decode(tokens)
    blocks = [
        "-" * (2 * shape.box_cols + 1) for _ in range(shape.side // shape.box_cols)
    ]
    rule = "+" + "+".join(blocks) + "+"
    lines = [rule]
    for row in range(shape.side):
        line = "|"
        for column in range(shape.side):
            cell = row * shape.side + column
            look = STYLES[style(cell)] if colour else ""
            line += f" {look}{characters[cell]}{_RESET if look else ''}"
            if (column + 1) % shape.box_cols == 0:
                line += " |"
        lines.append(line)
        if (row + 1) % shape.box_rows == 0:
            lines.append(rule)
    return lines


def is_solution(answer: np.ndarray, question: np.ndarray, shape: SudokuShape) -> bool:
    """Whether the answer is complete, keeps the givens and breaks no rule."""
    kept = (question <= BLANK_TOKEN) | (answer == question)
    complete = (answer > BLANK_TOKEN).all()
    return bool(complete and kept.all() and not shape.broken_units(answer[None]).any())
