# SPDX-License-Identifier: Apache-2.0
"""ArcTask and Pair: ARC tasks in memory, as they are read from JSON values."""

import hashlib
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..json_files import as_list, as_object, item, named, parse_json, read_json
from ..text_files import file_named
from .json_grids import MAX_SIDE, as_grid

MAX_NAME = 100  # characters of a task's name
MAX_NAMED = 5  # tasks that a message names

_FORBIDDEN = "|"  # separates a name from its augmentation


class Pair(NamedTuple):
    """Two grids, uint8 `r c` of colours 0 to 9, which may differ in size."""

    input: np.ndarray
    output: np.ndarray | None  # None: not known


@dataclass(frozen=True, eq=False)
class ArcTask:
    """A task: demonstrations, and test pairs whose output must be found."""

    name: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]


def as_task(
    name: str, value: Any, path: pathlib.Path, max_side: int = MAX_SIDE
) -> ArcTask:
    """The task that a JSON value holds; outputs of test pairs may be missing."""
    is_short = 0 < len(name) <= MAX_NAME
    if not (is_short and name.isprintable() and _FORBIDDEN not in name):
        expected = f"1 to {MAX_NAME} printable characters without {_FORBIDDEN}"
        raise DataError(f"{path}: task {named(name)}: name of {expected} expected")
    place = f"{path}: task {name}"
    parts = as_object(value, place, 'object with "train" and "test"')
    train, test = (
        as_list(item(parts, key, place), f"{place}: {key}", "a list of pairs")
        for key in ("train", "test")
    )
    for pairs, what in ((train, "train pairs"), (test, "test inputs")):
        if not pairs:
            raise DataError(f"{place}: 0 {what}")
    return ArcTask(
        name,
        tuple(
            _pair(p, f"{place}: train pair {i}", max_side)
            for i, p in enumerate(train, 1)
        ),
        tuple(
            _pair(p, f"{place}: test {i}", max_side, maybe_hidden=True)
            for i, p in enumerate(test, 1)
        ),
    )


def read_question(source: str, number: int) -> tuple[Any, Any, str | None]:
    """A question (rows of colours), its answer and its task's name, None if unknown.

    `source` is a JSON file of one task, whose test input `number` is taken, or JSON
    text of one grid. Raises DataError.
    """
    path = file_named(source)
    value = read_json(path) if path else parse_json(source, "the puzzle")
    if path is None or isinstance(value, list):
        if number != 1:
            raise DataError(f"{path or 'the puzzle'}: question {number} of one grid")
        return value, None, None
    task = as_task(path.stem, value, path)
    if not 1 <= number <= len(task.test):
        count = len(task.test)
        raise DataError(f"{path}: test input {number}; it has {count}, from 1 on")
    pair = task.test[number - 1]
    answer = None if pair.output is None else pair.output.tolist()
    return pair.input.tolist(), answer, task.name


def as_tasks_object(value: Any, path: pathlib.Path) -> dict[str, Any]:
    """`value` if it is an object of one or more task ids."""
    content = as_object(value, str(path), "object of task ids", "task")
    if isinstance(content.get("train", content.get("test")), list):
        hint = "hint: this looks like a single task; those go into a folder <subset>"
        raise DataError(f"{path}: no task ids; {hint}")
    if not content:
        raise DataError(f"{path}: 0 tasks")
    return content


def check_names(
    content: dict[str, Any], tasks: list[ArcTask], path: pathlib.Path
) -> None:
    """Raise DataError unless the keys of `content` are the names of the tasks."""
    expected = dict.fromkeys(task.name for task in tasks)
    problems = [
        f"{problem} {listed(names)}"
        for problem, names in (
            ("missing", [name for name in expected if name not in content]),
            ("unknown", [name for name in content if name not in expected]),
        )
        if names
    ]
    if problems:
        raise DataError(f"{path}: tasks: {'; '.join(problems)}")


def listed(names: list[str]) -> str:
    """The first MAX_NAMED of the names, and how many more there are."""
    first = ", ".join(map(named, names[:MAX_NAMED]))
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return first + more


def pair_key(pair: Pair) -> bytes:
    """The content of a pair: equal only for equal pairs."""
    grids = [grid for grid in pair if grid is not None]
    return b"".join(bytes(grid.shape) + grid.tobytes() for grid in grids)


def digest(tasks: Iterable[ArcTask]) -> str:
    """SHA-256 of names, pairs and their order, independent of the files."""
    sha = hashlib.sha256()
    for task in tasks:
        sha.update(f"{task.name}\n{len(task.train)} {len(task.test)}\n".encode())
        for key in map(pair_key, (*task.train, *task.test)):
            sha.update(f"{len(key)}\n".encode() + key)
    return sha.hexdigest()


def _pair(value: Any, place: str, max_side: int, *, maybe_hidden: bool = False) -> Pair:
    pair = as_object(value, place, "object with grids")
    shown = as_grid(item(pair, "input", place), f"{place}: input", max_side)
    if maybe_hidden and "output" not in pair:
        return Pair(shown, None)
    answer = as_grid(item(pair, "output", place), f"{place}: output", max_side)
    return Pair(shown, answer)
