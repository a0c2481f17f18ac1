# SPDX-License-Identifier: Apache-2.0
"""JSON files of grids: what they hold is checked, what is wrong is named."""

import itertools
import json
import pathlib
import statistics
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..text_files import read_text
from .grids import NUM_COLOURS

MAX_SIDE = 30
MAX_SHOWN = 40  # characters of a number in a message

_COLOURS = frozenset(range(NUM_COLOURS))
_FEW_DIGITS = 640  # Python converts as many whatever its settings are


class Repeated(NamedTuple):
    """Stands for an object in which `key` occurs twice."""

    key: str


_JSON_NAMES = {
    dict: "object",
    Repeated: "object",
    list: "list",
    str: "string",
    int: "number",
    float: "number",
    bool: "true/false",
    type(None): "null",
}


def read_json(path: pathlib.Path) -> Any:
    """The content of a file. Objects with a repeated key are `Repeated`."""
    text = read_text(path)
    try:
        return _parse(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise DataError(f"{path}: not valid JSON: {where}: {error.msg}") from None
    except RecursionError:
        raise DataError(f"{path}: nested too deeply") from None


def as_object(value: Any, place: str, expected: str, key: str = "key") -> dict:
    """`value` if it is an object. `key` is what messages call its keys."""
    if isinstance(value, Repeated):
        raise DataError(f"{place}: {key} {named(value.key)} occurs twice")
    if not isinstance(value, dict):
        raise DataError(f"{place}: {_kind(value)} found, {expected} expected")
    return value


def item(parts: dict, key: str, place: str) -> Any:
    """What an object holds under `key`."""
    if key not in parts:
        raise DataError(f'{place}: missing "{key}"')
    return parts[key]


def as_list(value: Any, place: str, expected: str) -> list:
    """`value` if it is a list."""
    if not isinstance(value, list):
        raise DataError(f"{place}: {_kind(value)} found, {expected} expected")
    return value


def as_grid(value: Any, place: str) -> np.ndarray:
    """Rows of colours as uint8 `r c`, read-only."""
    if not _is_grid(value):
        raise DataError(f"{place}: {_grid_problem(value)}")
    cells = bytes(itertools.chain.from_iterable(value))
    return np.frombuffer(cells, np.uint8).reshape(len(value), -1)


def named(name: str) -> str:
    """A name for a message: as it is if it is plain, else quoted, cut."""
    text = name if len(name) <= MAX_SHOWN else name[:MAX_SHOWN] + "..."
    return text if text.isascii() and text.isprintable() and text else ascii(text)


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # A number of thousands of digits: cut off, it is as wrong, and can be named.
        return json.loads(
            text, object_pairs_hook=_object, parse_int=lambda n: int(n[:_FEW_DIGITS])
        )


def _object(items: list[tuple[str, Any]]) -> dict[str, Any] | Repeated:
    content = dict(items)
    if len(content) == len(items):
        return content
    keys = [key for key, _ in items]
    return Repeated(next(key for key in keys if keys.count(key) > 1))


def _kind(value: Any) -> str:
    return _JSON_NAMES.get(type(value), type(value).__name__)


def _is_grid(value: Any) -> bool:
    """Whether all is right. Types first: True equals 1 and 2.0 equals 2."""
    return (
        isinstance(value, list)
        and 0 < len(value) <= MAX_SIDE
        and set(map(type, value)) == {list}
        and len(set(map(len, value))) == 1
        and 0 < len(value[0]) <= MAX_SIDE
        and all(
            set(map(type, row)) == {int} and _COLOURS.issuperset(row) for row in value
        )
    )


def _grid_problem(value: Any) -> str:
    """What is wrong with a grid that is wrong."""
    if not isinstance(value, list):
        return f"{_kind(value)} found, a list of rows expected"
    if not value:
        return "empty grid"
    for r, row in enumerate(value, 1):
        if not isinstance(row, list):
            return f"row {r}: {_kind(row)} found; a list of rows expected"
        if not row:
            return f"row {r}: no cells"
    width = statistics.mode(map(len, value))
    for r, row in enumerate(value, 1):
        if len(row) != width:
            return f"row {r}: {len(row)} cells, {width} expected"
    if max(len(value), width) > MAX_SIDE:
        return f"{len(value)}x{width}, at most {MAX_SIDE}x{MAX_SIDE} expected"
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
    found = f"value {json.dumps(cell)}" if isinstance(cell, float) else _kind(cell)
    return f"{found}, whole number expected"
