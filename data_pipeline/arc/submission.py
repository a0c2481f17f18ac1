# SPDX-License-Identifier: Apache-2.0
"""Submissions: two attempts for every test input, in the format of the ARC contests.

`{task: [{"attempt_1": grid, "attempt_2": grid}, ..one per test input..]}`
"""

import json
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from ..json_files import as_list, as_object, item, read_json
from .json_grids import as_grid
from .json_tasks import ArcTask, check_names

ATTEMPTS = ("attempt_1", "attempt_2")

_NO_ANSWER = np.zeros((0, 0), np.uint8)


def write_submission(
    path: str | pathlib.Path,
    attempts: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]],
    tasks: list[ArcTask],
) -> None:
    """Write the attempts, grids `r c`, one tuple per test input, at once or not at all.

    An empty grid is written as [[0]], and so is what `attempts` lacks. Raises DataError
    where they do not fit the tasks.
    """
    path = pathlib.Path(path)
    nothing = {task.name: [(_NO_ANSWER,) * 2] * len(task.test) for task in tasks}
    submission = {
        name: [dict(zip(ATTEMPTS, map(_rows, pair), strict=True)) for pair in pairs]
        for name, pairs in (nothing | dict(attempts)).items()
    }
    _check(submission, tasks, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as partial:
            file = pathlib.Path(partial) / path.name
            file.write_text(json.dumps(submission))
            os.replace(file, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error


def check_submission(path: str | pathlib.Path, tasks: list[ArcTask]) -> None:
    """Raise DataError unless the file holds two valid attempts for every test input."""
    path = pathlib.Path(path)
    _check(read_json(path), tasks, path)


def _rows(grid: np.ndarray) -> list:
    return grid.tolist() if grid.size else [[0]]


def _check(value: Any, tasks: list[ArcTask], path: pathlib.Path) -> None:
    content = as_object(value, str(path), "object of task ids", "task")
    check_names(content, tasks, path)
    for task in tasks:
        place = f"{path}: task {task.name}"
        entries = as_list(content[task.name], place, "a list of attempts")
        if len(entries) != len(task.test):
            counts = f"{len(entries)} entries, {len(task.test)} test inputs"
            raise DataError(f"{place}: {counts}")
        for i, value in enumerate(entries, 1):
            _check_attempts(value, f"{place}: test {i}")


def _check_attempts(value: Any, place: str) -> None:
    entry = as_object(value, place, f"object with {' and '.join(ATTEMPTS)}")
    for key in ATTEMPTS:
        as_grid(item(entry, key, place), f"{place}: {key}")
    if len(entry) > len(ATTEMPTS):
        keys = ", ".join(key for key in entry if key not in ATTEMPTS)
        raise DataError(f"{place}: unknown {keys}")
