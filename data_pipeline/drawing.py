# SPDX-License-Identifier: Apache-2.0
"""Grids of any task as lines of text: marked by characters, or in colour."""

from typing import NamedTuple

import numpy as np

# How a cell is marked without colour (before its symbol), and with it.
MARKS = {
    "given": (" ", "\033[1m"),
    "right": (" ", "\033[32m"),
    "wrong": ("!", "\033[31m"),
    "changed": ("*", "\033[33m"),
    "": (" ", ""),
}
_RESET = "\033[0m"


class Look(NamedTuple):
    """How the tokens of a task look."""

    symbols: tuple[str, ...]  # one character per token
    box: tuple[int, int] | None = None  # rows and columns of the boxes of a Sudoku
    colours: tuple[str, ...] | None = None  # per token, `#rrggbb`, if colours tell more


def grid_lines(
    cells: np.ndarray, marks: np.ndarray, look: Look, *, colour: bool
) -> list[str]:
    """Tokens `r c` as lines, each with the mark (a key of MARKS) in `marks`, `r c`.

    Boxes, or else the whole grid, have a frame.
    """
    rows, columns = cells.shape
    box_rows, box_columns = look.box or (rows, columns)
    blocks = ["-" * (2 * box_columns + 1)] * (columns // box_columns)
    frame = "+" + "+".join(blocks) + "+"
    lines = [frame]
    for r in range(rows):
        line = "|"
        for c in range(columns):
            sign, escape = MARKS[marks[r, c]]
            symbol = look.symbols[cells[r, c]]
            coloured = colour and escape
            line += f" {escape}{symbol}{_RESET}" if coloured else f"{sign}{symbol}"
            if (c + 1) % box_columns == 0:
                line += " |"
        lines.append(line)
        if (r + 1) % box_rows == 0:
            lines.append(frame)
    return lines
