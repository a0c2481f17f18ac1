# SPDX-License-Identifier: Apache-2.0
"""Sudoku-Extreme CSV files. Every row is checked, and errors name the row."""

import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from ..errors import DataError
from ..plain_csv import Fields, fields_of, plain_fields
from ..spec import PuzzleSet
from ..text_files import CSV_COLUMNS, place, read_rows, shorten
from .grid import BLANK_TOKEN, SudokuShape, encode

CHUNK_ROWS = 8192
MAX_RATING_DIGITS = 18  # every such number fits int64

Chunk = tuple[np.ndarray, ...]  # inputs `n m`, labels `n m`, ratings `n`, clues `n`


def read_sudoku_csv(path: str | pathlib.Path, shape: SudokuShape) -> PuzzleSet:
    """All rows of a file, with the attributes `rating` and `clues`."""
    chunks = _plain_chunks(path, shape) or list(_checked_chunks(path, shape))
    columns = list(zip(*chunks, strict=True))
    del chunks
    # One column after the other, since a file may fill much of the memory.
    inputs, labels, rating, clues = (
        np.concatenate(columns.pop(0)) for _ in range(len(columns))
    )
    return PuzzleSet.of_single_examples(inputs, labels, rating=rating, clues=clues)


def _plain_chunks(path: str | pathlib.Path, shape: SudokuShape) -> list[Chunk] | None:
    """All rows of a file of the simplest notation; None if anything is unusual."""
    chunks = []
    for fields in plain_fields(path, CSV_COLUMNS[1:]):
        if fields is None or (chunk := _parse(fields, shape)) is None:
            return None
        chunks.append(chunk)
    return chunks


def _checked_chunks(path: str | pathlib.Path, shape: SudokuShape) -> Iterator[Chunk]:
    """All rows of a file, some thousands at a time. Raises DataError."""
    rows = read_rows(path)
    while some := list(itertools.islice(rows, CHUNK_ROWS)):
        fields = fields_of([fields[1:] for _, _, fields in some])
        chunk = _parse(fields, shape) if fields else None
        if chunk is None:
            problems = (
                f"{place(path, number, line)}: {problem}"
                for number, line, fields in some
                if (problem := _problem(fields, shape))
            )
            raise DataError(next(problems))
        yield chunk


def _parse(fields: Fields, shape: SudokuShape) -> Chunk | None:
    """Inputs, labels, ratings and clues; None if a row is wrong, see `_problem`."""
    rating = fields.numbers(2, MAX_RATING_DIGITS)
    inputs, labels = _tokens(fields, 0, shape), _tokens(fields, 1, shape)
    if inputs is None or labels is None or rating is None:
        return None
    if not _solves(inputs, labels, shape):
        return None
    return inputs, labels, rating, np.count_nonzero(inputs > BLANK_TOKEN, axis=1)


def _tokens(fields: Fields, column: int, shape: SudokuShape) -> np.ndarray | None:
    """Tokens `n m`; None if a length or a character is wrong."""
    chars = fields.chars(column, shape.num_cells)
    if chars is None:
        return None
    allowed = "." + _digits(shape)
    table = np.zeros(256, np.uint8)
    table[[ord(character) for character in allowed]] = encode(allowed)
    tokens = table.take(chars)
    return tokens if tokens.all() else None


def _solves(inputs: np.ndarray, labels: np.ndarray, shape: SudokuShape) -> bool:
    """Whether every answer is complete, keeps the givens and obeys the rules."""
    if ((inputs != labels) & (inputs != BLANK_TOKEN)).any():
        return False
    # The powers of two of `side` digits have this sum only if all digits differ.
    membership = np.zeros((shape.num_cells, 3 * shape.side), np.float32)
    np.put_along_axis(membership.T, shape.units(), 1, axis=1)
    powers = np.exp2(np.arange(shape.side + 2, dtype=np.float32))
    sums = powers.take(labels) @ membership
    return bool((sums == powers[BLANK_TOKEN + 1 :].sum()).all())


def _is_rating(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_RATING_DIGITS


def _digits(shape: SudokuShape) -> str:
    return "123456789"[: shape.side]


def _problem(fields: tuple[str, ...], shape: SudokuShape) -> str | None:
    """What is wrong with a row, or None."""
    _, question, answer, rating = fields
    problem = (
        _length_problem("question", question, shape)
        or _length_problem("answer", answer, shape)
        or _character_problem("question", question, "." + _digits(shape), shape)
        or _character_problem("answer", answer, _digits(shape), shape)
    )
    if problem:
        swapped = "." in answer and "." not in question
        hint = "; hint: question and answer look swapped" if swapped else ""
        return problem + hint
    if not _is_rating(rating):
        value = f"value {shorten(rating)}"
        expected = f"expected a whole number >= 0, up to {MAX_RATING_DIGITS} digits"
        return f"column rating: {value}, {expected}"
    return _contradiction(question, answer, shape) or _broken_rule(answer, shape)


def _length_problem(column: str, text: str, shape: SudokuShape) -> str | None:
    if len(text) == shape.num_cells:
        return None
    newline = "; newline inside the field" if "\n" in text or "\r" in text else ""
    counts = f"{len(text)} characters found, {shape.num_cells} expected"
    return f"column {column}: {counts}{newline}"


def _character_problem(
    column: str, text: str, allowed: str, shape: SudokuShape
) -> str | None:
    cell = next((i for i, c in enumerate(text) if c not in allowed), None)
    if cell is None:
        return None
    match text[cell]:
        case "\0":
            found = "NUL character"
        case character if not character.isascii():
            found = f"non-ASCII character {ascii(character)}"
        case character:
            found = f"character {character!r}"
    dot = ". and " if "." in allowed else ""
    expected = f"allowed: {dot}1-{shape.side}"
    if column == "answer" and text[cell] == ".":
        expected += "; the answer must be complete"
    if column == "question" and text[cell] == "0":
        expected += "; expected . for blanks"
    where = f"position {cell + 1} of {len(text)} {_grid_place(cell, shape)}"
    return f"column {column}: {found} at {where}; {expected}"


def _contradiction(question: str, answer: str, shape: SudokuShape) -> str | None:
    for cell, (given, digit) in enumerate(zip(question, answer, strict=True)):
        if given not in (".", digit):
            where = f"cell {cell + 1}: given {given}, answer {digit}"
            return f"columns question and answer: {where} {_grid_place(cell, shape)}"
    return None


def _broken_rule(answer: str, shape: SudokuShape) -> str | None:
    broken = np.flatnonzero(shape.broken_units(encode(answer)[None])[0])
    if not broken.size:
        return None
    kind, index = divmod(int(broken[0]), shape.side)
    digits = [answer[cell] for cell in shape.units()[broken[0]]]
    repeated = next(digit for digit in digits if digits.count(digit) > 1)
    unit = f"{('row', 'column', 'box')[kind]} {index + 1}"
    return f"column answer: grid {unit} repeats digit {repeated}"


def _grid_place(cell: int, shape: SudokuShape) -> str:
    row, column = divmod(cell, shape.side)
    return f"(grid row {row + 1}, column {column + 1})"
