# SPDX-License-Identifier: Apache-2.0
"""Submissions: two attempts for every test input, in the format of the ARC contests.

`{task: [{"attempt_1": grid, "attempt_2": grid}, ..one per test input..]}`
"""

import json
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import DataError
from .json_grids import as_grid
from .json_tasks import ArcTask, check_names

ATTEMPTS = ("attempt_1", "attempt_2")

_NO_ANSWER = np.zeros((0, 0), np.uint8)


def write_submission(
    path: str | pathlib.Path,
    attempts: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]],
    tasks: list[ArcTask],
) -> None:
    """Write a submission, completely or not at all.

    `attempts` holds for each task one tuple of grids `r c` per test input. Empty grids
    and missing tasks are written as [[0]]. Raises DataError if the attempts do not fit
    the tasks.
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


def _rows(grid: np.ndarray) -> list:
    return grid.tolist() if grid.size else [[0]]


def _check(
    submission: dict[str, list[dict]], tasks: list[ArcTask], path: pathlib.Path
) -> None:
    check_names(submission, tasks, path)
    for task in tasks:
        place, entries = f"{path}: task {task.name}", submission[task.name]
        if len(entries) != len(task.test):
            counts = f"{len(entries)} entries, {len(task.test)} test inputs"
            raise DataError(f"{place}: {counts}")
        for i, entry in enumerate(entries, 1):
            for key, grid in entry.items():
                as_grid(grid, f"{place}: test {i}: {key}")
