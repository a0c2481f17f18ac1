# SPDX-License-Identifier: Apache-2.0
"""Grids from JSON values, with errors that name what is wrong."""

import itertools
import json
import statistics
from typing import Any

import numpy as np

from ..errors import DataError
from ..json_files import kind_of, named
from .grids import NUM_COLOURS

MAX_SIDE = 30  # of a grid of ARC
ANY_SIDE = 255  # of a grid that is read only to leave its task out

_COLOURS = frozenset(range(NUM_COLOURS))


def as_grid(value: Any, place: str, max_side: int = MAX_SIDE) -> np.ndarray:
    """Rows of colours as uint8 `r c`, read-only. Raises DataError."""
    if not _is_grid(value, max_side):
        raise DataError(f"{place}: {_grid_problem(value, max_side)}")
    cells = bytes(itertools.chain.from_iterable(value))
    return np.frombuffer(cells, np.uint8).reshape(len(value), -1)


def _is_grid(value: Any, max_side: int) -> bool:
    """Whether a value is a grid. Types are checked, since True == 1 and 2.0 == 2."""
    return (
        isinstance(value, list)
        and 0 < len(value) <= max_side
        and set(map(type, value)) == {list}
        and len(set(map(len, value))) == 1
        and 0 < len(value[0]) <= max_side
        and all(
            set(map(type, row)) == {int} and _COLOURS.issuperset(row) for row in value
        )
    )


def _grid_problem(value: Any, max_side: int) -> str:
    """What is wrong with a value that is not a grid."""
    if not isinstance(value, list):
        return f"{kind_of(value)} found, a list of rows expected"
    if not value:
        return "empty grid"
    for r, row in enumerate(value, 1):
        if not isinstance(row, list):
            return f"row {r}: {kind_of(row)} found; a list of rows expected"
        if not row:
            return f"row {r}: no cells"
    width = statistics.mode(map(len, value))
    for r, row in enumerate(value, 1):
        if len(row) != width:
            return f"row {r}: {len(row)} cells, {width} expected"
    if max(len(value), width) > max_side:
        return f"{len(value)}x{width}, at most {max_side}x{max_side} expected"
    return next(
        f"row {r} column {c}: {problem}"
        for r, row in enumerate(value, 1)
        for c, cell in enumerate(row, 1)
        if (problem := _cell_problem(cell))
    )


def _cell_problem(cell: Any) -> str | None:
    if type(cell) is int:
        wrong = f"value {named(str(cell))}, allowed 0-{NUM_COLOURS - 1}"
        return None if cell in _COLOURS else wrong
    found = f"value {json.dumps(cell)}" if isinstance(cell, float) else kind_of(cell)
    return f"{found}, whole number expected"
