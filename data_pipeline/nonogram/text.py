# SPDX-License-Identifier: Apache-2.0
"""Nonograms as text: `1 1/5/1 3|2/1/...` for the clues, `#` and `.` for the cells.

The clues of the rows come before the bar, those of the columns after it. Clues are
separated by `/` and their entries by spaces. The clue of a line without filled cells
is 0.
"""

import re

import numpy as np

from ..errors import DataError
from ..text_files import shorten
from .grid import EMPTY, FILLED, NonogramShape
from .lines import BITS, LONGEST, SHORTEST, slots, to_entries

FILLED_CELL, EMPTY_CELL = "#", "."
_SHOWN = {EMPTY: EMPTY_CELL, FILLED: FILLED_CELL}


def parse_clues(text: str, shape: NonogramShape) -> tuple[list[int], list[int]]:
    """The codes of the rows and of the columns. Raises DataError."""
    sides = text.split("|")
    if len(sides) != 2:
        raise DataError(
            f"{len(sides) - 1} bars (|) found, 1 expected: row clues|column clues"
        )
    codes, sums = [], []
    for side, name, count, length in (
        (sides[0], "row", shape.rows, shape.cols),
        (sides[1], "column", shape.cols, shape.rows),
    ):
        clues = side.split("/")
        if len(clues) != count:
            raise DataError(f"{len(clues)} {name} clues found, {count} expected")
        entries = [_entries(c, f"{name} {i}", length) for i, c in enumerate(clues, 1)]
        codes.append([_code(each) for each in entries])
        sums.append(sum(map(sum, entries)))
    if sums[0] != sums[1]:
        raise DataError(
            f"the row clues have {sums[0]} filled cells and the column clues "
            f"{sums[1]}; equal numbers expected"
        )
    return codes[0], codes[1]


def parse_question(text: str, shape: NonogramShape) -> np.ndarray:
    """The clues as text -> tokens `m` with all cells blank. Raises DataError."""
    rows, columns = parse_clues(text, shape)
    return shape.questions(np.array([rows]), np.array([columns]))[0]


def shape_of(text: str) -> NonogramShape:
    """The shape that the numbers of clues in a question imply. Raises DataError."""
    rows, _, columns = text.partition("|")
    shape = NonogramShape(rows.count("/") + 1, columns.count("/") + 1)
    sides = shape.rows, shape.cols
    if min(sides) < SHORTEST or max(sides) > LONGEST:
        raise DataError(
            f"{shape.rows} row clues and {shape.cols} column clues found; "
            f"{SHORTEST} to {LONGEST} of each expected"
        )
    return shape


def write_question(row_clues: np.ndarray, column_clues: np.ndarray) -> str:
    """Codes `r` and `c` -> the clues as text."""
    sides = ("/".join(map(clue_text, side)) for side in (row_clues, column_clues))
    return "|".join(sides)


def parse_answer(text: str, shape: NonogramShape) -> np.ndarray:
    """Rows of `#` and `.`, separated by `/` or line ends -> bool `r c`.

    Raises DataError.
    """
    rows = re.split("[/\n]", text)
    if len(rows) != shape.rows:
        raise DataError(f"{len(rows)} rows found, {shape.rows} expected")
    for number, row in enumerate(rows, 1):
        if len(row) != shape.cols:
            raise DataError(
                f"row {number}: {len(row)} characters found, {shape.cols} expected"
            )
        for column, character in enumerate(row, 1):
            if character not in (FILLED_CELL, EMPTY_CELL):
                raise DataError(
                    f"row {number}, column {column}: character {ascii(character)}; "
                    f"allowed: {FILLED_CELL} {EMPTY_CELL}"
                )
    return np.array([[c == FILLED_CELL for c in row] for row in rows])


def characters(tokens: np.ndarray, shape: NonogramShape) -> np.ndarray:
    """Tokens `m` -> one character per cell, `r c`; `?` for what no answer holds."""
    cells = shape.parts(tokens[None]).cells[0]
    return np.array([[_SHOWN.get(token, "?") for token in row] for row in cells])


def clue_text(code: int | np.integer) -> str:
    """The code of a clue -> its entries, separated by spaces."""
    digits = to_entries(np.asarray(code), slots(LONGEST))
    return " ".join(str(digit - 1) for digit in digits if digit)


def _entries(text: str, where: str, length: int) -> list[int]:
    """The entries of one clue, which must fit a line of `length` cells."""
    words = text.split()
    expected = f"whole numbers from 1 to {length}, or a single 0, expected"
    if not words:
        raise DataError(f"{where}: no clue; {expected}")
    for word in words:
        good = re.fullmatch("[0-9]{1,2}", word) and int(word) <= length
        if not good or (int(word) == 0 and len(words) > 1):
            raise DataError(f"{where}: entry {shorten(word, 20)}; {expected}")
    entries = [int(word) for word in words]
    needed = sum(entries) + len(entries) - 1
    if needed > length:
        raise DataError(
            f"{where}: the clue {' '.join(words)} needs {needed} cells, at most "
            f"{length} expected"
        )
    return entries


def _code(entries: list[int]) -> int:
    code = 0
    for entry in entries:
        code = code << BITS | (entry + 1)
    return code
