# SPDX-License-Identifier: Apache-2.0
"""Maze CSV files. Every row is checked, and errors name the row."""

import pathlib

import numpy as np

from ..errors import DataError
from ..spec import PuzzleSet
from ..text_files import place, read_rows, shorten
from .grid import (
    CHARACTERS,
    FREE,
    GOAL,
    PATH,
    START,
    WALL,
    MazeShape,
    encode,
)
from .solver import UNREACHABLE, distances, on_path, path_moves

MAX_RATING_DIGITS = 18  # every such number fits int64

_ALLOWED = "allowed: # space S G o"
_ALLOWED_IN = {
    "question": (CHARACTERS.replace("o", ""), f"{_ALLOWED} (o in the answer only)"),
    "answer": (CHARACTERS, _ALLOWED),
}


def read_maze_csv(path: str | pathlib.Path, shape: MazeShape) -> PuzzleSet:
    """All rows of a file, with its column `rating` as an attribute.

    The answer must be one line from S to G that does not touch itself, otherwise its
    cells would not determine the path. The path need not be a shortest one, and the
    rating need not be its length. Raises DataError.
    """
    rows, problem = [], None
    for number, line, fields in read_rows(path):
        where = place(path, number, line)
        if problem := _text_problem(fields, shape):
            problem = f"{where}: {problem}"
            break
        rows.append((where, *fields[1:]))
    text = "".join(question + answer for _, question, answer, _ in rows)
    tokens = encode(text).reshape(-1, 2, shape.num_cells)
    inputs, labels = tokens.swapaxes(0, 1).copy()
    for row in np.flatnonzero(~_is_right(inputs, labels, shape))[:1]:
        found = _maze_problem(inputs[row], labels[row], shape)
        raise DataError(f"{rows[row][0]}: {found}")
    if problem:
        raise DataError(problem)
    rating = np.array([int(rating) for *_, rating in rows])
    return PuzzleSet.of_single_examples(inputs, labels, rating=rating)


def _text_problem(fields: tuple[str, ...], shape: MazeShape) -> str | None:
    """What is wrong with the text of a row, or None. The maze is not checked here."""
    _, question, answer, rating = fields
    columns = {"question": question, "answer": answer}
    for column, text in columns.items():
        if len(text) != shape.num_cells:
            counts = f"{len(text)} found, {shape.num_cells} expected"
            near = shape.num_cells - shape.side < len(text) < shape.num_cells
            hint = "; hint: spaces at either end count" if near else ""
            return f"column {column}: wrong number of characters: {counts}{hint}"
    for column, text in columns.items():
        allowed, expected = _ALLOWED_IN[column]
        if not set(allowed).issuperset(text):
            cell = next(i for i, c in enumerate(text) if c not in allowed)
            where = f"position {cell + 1} of {len(text)} ({_grid_place(cell, shape)})"
            found = f"character {ascii(text[cell])} at {where}"
            return f"column {column}: {found}; {expected}"
    if not (rating.isascii() and rating.isdigit() and len(rating) <= MAX_RATING_DIGITS):
        expected = f"expected a whole number >= 0, up to {MAX_RATING_DIGITS} digits"
        return f"column rating: value {shorten(rating)}, {expected}"
    return None


def _is_right(inputs: np.ndarray, labels: np.ndarray, shape: MazeShape) -> np.ndarray:
    """Which rows `n` have one S, one G and an answer that only adds one line."""
    right = ((inputs == START).sum(1) == 1) & ((inputs == GOAL).sum(1) == 1)
    right &= ~_differ(inputs, labels).any(1)
    cells = on_path(labels)
    # If the shortest path within these cells takes all of them, they form one line that
    # neither branches nor touches itself.
    return right & (path_moves(cells, inputs, shape) == cells.sum(1) - 1)


def _differ(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cells that the answer changes other than from free to path."""
    return (inputs != labels) & ((inputs != FREE) | (labels != PATH))


def _maze_problem(question: np.ndarray, answer: np.ndarray, shape: MazeShape) -> str:
    """What is wrong with a row that _is_right refuses, tokens `m`."""
    for name, token in (("starts", START), ("goals", GOAL)):
        if (count := (question == token).sum()) != 1:
            return f"column question: {count} {name}, exactly 1 expected"
    for cell in np.flatnonzero(_differ(question, answer))[:1]:
        found = " against ".join(_name(tokens[cell]) for tokens in (question, answer))
        where = _grid_place(cell, shape)
        return f"question and answer differ at {where}: {found}"
    return f"column answer: {_path_problem(answer, shape)}"


def _path_problem(answer: np.ndarray, shape: MazeShape) -> str:
    """Why the path is not one line that does not touch itself."""
    if not (answer == PATH).any():
        return "no path from S to G"
    on = on_path(answer)
    moves = distances(np.where(on, answer, WALL)[None], shape)[0]
    apart = np.flatnonzero(on & (moves == UNREACHABLE))
    if (answer[apart] == GOAL).any():
        end = int(moves.argmax())
        gaps = [c for c in _neighbours(end, shape) if answer[c] == FREE]
        nearest = min(gaps, key=lambda c: _moves_apart(c, apart, shape), default=end)
        places = [_grid_place(cell, shape) for cell in (end, nearest)]
        hint = "" if nearest == end else f"; is there an o missing at {places[1]}?"
        return f"path not connected: from S it leads to {places[0]}{hint}"
    if apart.size:
        found = f"{_grid_place(apart[0], shape)} is not connected"
    else:
        degree = {
            cell: on[_neighbours(cell, shape)].sum() for cell in np.flatnonzero(on)
        }
        usual = {PATH: 2, START: 1, GOAL: 1}
        cell = next(c for c, count in degree.items() if count != usual[answer[c]])
        found = f"{degree[cell]} of its cells touch {_grid_place(cell, shape)}"
    return f"path is not one line from S to G: {found}"


def _neighbours(cell: int | np.integer, shape: MazeShape) -> list[int]:
    row, column = divmod(int(cell), shape.side)
    around = [
        (row + 1, column),
        (row, column - 1),
        (row, column + 1),
        (row - 1, column),
    ]
    inside = range(shape.side)
    return [r * shape.side + c for r, c in around if r in inside and c in inside]


def _moves_apart(cell: int, cells: np.ndarray, shape: MazeShape) -> int:
    """Moves from a cell to the nearest of `cells`, ignoring walls."""
    rows = abs(cells // shape.side - cell // shape.side)
    return int((rows + abs(cells % shape.side - cell % shape.side)).min())


def _name(token: np.ndarray) -> str:
    return "space" if token == FREE else CHARACTERS[token - WALL]


def _grid_place(cell: int | np.integer, shape: MazeShape) -> str:
    row, column = divmod(int(cell), shape.side)
    return f"grid row {row + 1}, column {column + 1}"
