# SPDX-License-Identifier: Apache-2.0
"""Nonogram CSV files. Every row is checked, and errors name the row."""

import pathlib

import numpy as np

from ..errors import DataError
from ..spec import PuzzleSet
from ..text_files import place, read_rows, shorten
from .grid import NonogramShape, clues_of
from .text import clue_text, parse_answer, parse_clues, shape_of

MAX_RATING_DIGITS = 18  # every such number fits int64


def read_nonogram_csv(path: str | pathlib.Path, shape: NonogramShape) -> PuzzleSet:
    """All rows of a file, with its column `rating` as an attribute.

    The question holds the clues and the answer the rows of the grid, see text.py. The
    runs of the answer must be those of the clues. The clues may have other solutions,
    and the rating need not be the number of guesses. Raises DataError.
    """
    rows, columns, filled, ratings = [], [], [], []
    for number, line, (_, question, answer, rating) in read_rows(path):
        column = "question"
        try:
            clues = parse_clues(question, shape)
            column = "answer"
            cells = parse_answer(answer, shape)
            require_runs(cells, np.array(clues[0]), np.array(clues[1]))
            column = "rating"
            ratings.append(_rating(rating))
        except DataError as error:
            where = f"{place(path, number, line)}: column {column}"
            raise DataError(f"{where}: {error}") from None
        rows.append(clues[0])
        columns.append(clues[1])
        filled.append(cells)
    return PuzzleSet.of_single_examples(
        shape.questions(np.array(rows), np.array(columns)),
        shape.labels(np.array(filled)),
        rating=np.array(ratings),
    )


def shape_in(path: str | pathlib.Path) -> NonogramShape:
    """The shape of the first row of a file. Raises DataError."""
    number, line, (_, question, *_) = next(read_rows(path))
    try:
        return shape_of(question)
    except DataError as error:
        where = f"{place(path, number, line)}: column question"
        raise DataError(f"{where}: {error}") from None


def require_runs(
    filled: np.ndarray, row_clues: np.ndarray, column_clues: np.ndarray
) -> None:
    """Raise DataError unless the grid, bool `r c`, has the runs of the codes."""
    for found, expected, name in zip(
        clues_of(filled[None]),
        (row_clues, column_clues),
        ("row", "column"),
        strict=True,
    ):
        for line in np.flatnonzero(found[0] != expected)[:1]:
            raise DataError(
                f"{name} {line + 1} of the grid has the runs "
                f"{clue_text(found[0, line])}, its clue is {clue_text(expected[line])}"
            )


def _rating(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= MAX_RATING_DIGITS:
        return int(text)
    raise DataError(
        f"value {shorten(text)}, expected a whole number >= 0, up to "
        f"{MAX_RATING_DIGITS} digits"
    )
