# SPDX-License-Identifier: Apache-2.0
"""JSON files, with checks of their values and errors that name what is wrong."""

import json
import pathlib
import re
from typing import Any, NamedTuple

from .errors import DataError
from .text_files import read_text

MAX_SHOWN = 40  # characters of a number in a message
MAX_DEPTH = 64
MAX_LISTS = 1_000_000  # objects and lists in a file

_FEW_DIGITS = 640  # Python converts this many under any setting


class Repeated(NamedTuple):
    """Stands for an object in which `key` occurs twice."""

    key: str


_NAMES = {
    dict: "object",
    Repeated: "object",
    list: "list",
    str: "string",
    int: "number",
    float: "fraction",
    bool: "true/false",
    type(None): "null",
}


def read_json(path: pathlib.Path) -> Any:
    """The content of a file. Objects with a repeated key are `Repeated`."""
    return parse_json(read_text(path), path)


def parse_json(text: str, path: str | pathlib.Path) -> Any:
    """The content of a text; messages call it `path`."""
    _check_nesting(path, text)
    try:
        return _parse(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise DataError(f"{path}: not valid JSON: {where}: {error.msg}") from None
    except RecursionError:
        raise DataError(f"{path}: nested too deeply") from None


def _check_nesting(path: str | pathlib.Path, text: str) -> None:
    """Raise DataError for text that would take much memory or a deep stack to parse."""
    depth = count = 0
    for bracket in re.finditer(r'[][{}]|"(?:[^"\\]|\\.)*"', text):
        if bracket[0] in "[{":
            depth, count = depth + 1, count + 1
        elif bracket[0] in "]}":
            depth -= 1
        if depth > MAX_DEPTH:
            raise DataError(f"{path}: nested too deeply, more than {MAX_DEPTH}")
        if count > MAX_LISTS:
            raise DataError(f"{path}: more than {MAX_LISTS} lists and objects")


def as_object(value: Any, place: str, expected: str, key: str = "key") -> dict:
    """`value` if it is an object, else DataError. Messages call its keys `key`."""
    if isinstance(value, Repeated):
        raise DataError(f"{place}: {key} {named(value.key)} occurs twice")
    if not isinstance(value, dict):
        raise DataError(f"{place}: {kind_of(value)} found, {expected} expected")
    return value


def item(parts: dict, key: str, place: str) -> Any:
    """The value of `key` in an object, else DataError."""
    if key not in parts:
        raise DataError(f'{place}: missing "{key}"')
    return parts[key]


def as_list(value: Any, place: str, expected: str) -> list:
    """`value` if it is a list, else DataError."""
    if not isinstance(value, list):
        raise DataError(f"{place}: {kind_of(value)} found, {expected} expected")
    return value


def named(name: str) -> str:
    """A name for a message: cut if it is long, and quoted unless it is plain.

    A plain name is printable ASCII without spaces that are easily overlooked.
    """
    text = name if len(name) <= MAX_SHOWN else name[:MAX_SHOWN] + "..."
    is_plain = text.isascii() and text.isprintable() and text == " ".join(text.split())
    return text if is_plain and text else ascii(text)


def kind_of(value: Any) -> str:
    """What JSON calls the type of a value."""
    return _NAMES.get(type(value), type(value).__name__)


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # A number has thousands of digits. Cut to its first digits, it is just as
        # wrong, and a message can show it.
        return json.loads(
            text, object_pairs_hook=_object, parse_int=lambda n: int(n[:_FEW_DIGITS])
        )


def _object(items: list[tuple[str, Any]]) -> dict[str, Any] | Repeated:
    content = dict(items)
    if len(content) == len(items):
        return content
    keys = [key for key, _ in items]
    return Repeated(next(key for key in keys if keys.count(key) > 1))
