# SPDX-License-Identifier: Apache-2.0
"""The subsets that a run trains on and is tested on, checked for leaks."""

from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from .bundles import read_subset
from .ids import Tasks
from .json_grids import MAX_SIDE
from .json_tasks import ArcTask, listed
from .leaks import SAME_TRAIN, find_leaks


def read_tasks(
    train_folder: str,
    test_folder: str,
    *,
    train_subsets: Sequence[str],
    test_subset: str,
    allow_leaks: bool,
    max_side: int = MAX_SIDE,
) -> Tasks:
    """The training and test tasks. A subset named for both is only the test subset."""
    others = [name for name in train_subsets if name != test_subset]
    by_subset = {
        name: read_subset(train_folder, name, require_solutions=True, max_side=max_side)
        for name in others
    }
    test = read_subset(test_folder, test_subset, max_side=max_side)
    warnings = _check_leaks(test, test_subset, by_subset, allow_leaks=allow_leaks)
    return Tasks([t for tasks in by_subset.values() for t in tasks], test, warnings)


def that_fit(tasks: list[ArcTask], *, side: int, max_grid: int) -> np.ndarray:
    """Indices of the tasks without a grid larger than `max_grid` (0: of all tasks).

    Raises DataError if one of these tasks does not fit the canvas.
    """
    largest = [
        max(max(g.shape) for p in (*t.train, *t.test) for g in p if g is not None)
        for t in tasks
    ]
    for task, size in zip(tasks, largest, strict=True):
        if size > side and (not max_grid or size <= max_grid):
            raise DataError(
                f"task {task.name} has a grid of side {size}, data.arc.side = {side}; "
                f"set --config.data.arc.max_grid={side} to leave such tasks out"
            )
    return np.flatnonzero(np.array(largest, int) <= (max_grid or side))


def left_out(tasks: Tasks, num_train: int, num_test: int) -> list[str]:
    """A warning, if fewer tasks are kept than were read."""
    counts = ((num_train, len(tasks.train)), (num_test, len(tasks.test)))
    if all(kept == total for kept, total in counts):
        return []
    (train, of_train), (test, of_test) = counts
    return [
        f"data.arc.max_grid, data.train_puzzles, data.test_puzzles: {train} of "
        f"{of_train} training tasks are taken, and {test} of {of_test} test tasks; the "
        "others are neither scored nor in a submission"
    ]


def _check_leaks(
    test: list[ArcTask],
    test_subset: str,
    train: dict[str, list[ArcTask]],
    *,
    allow_leaks: bool,
) -> list[str]:
    """Warnings about leaks. Raises DataError if answers to test inputs are trained on.

    Equal demonstrations under different names only give a warning, because ARC-AGI-1
    itself has such a pair of tasks.
    """
    leaks = find_leaks(test, train)
    answers = [leak for leak in leaks if leak.kind != SAME_TRAIN]
    for subset in dict.fromkeys(leak.subset for leak in answers):
        given = {leak.test for leak in answers if leak.subset == subset}
        message = (
            f"{len(given)} of the {len(test)} tasks of {test_subset} have answers to "
            f"their test inputs in {subset}: {listed(sorted(given))}"
        )
        if not allow_leaks:
            raise DataError(
                f"data.arc.train_subsets: {message}. A score would measure what was "
                f"learnt by heart; train without {subset}, or, for another purpose, "
                "set --config.data.arc.allow_leaks=True"
            )
    return [f"leak: {leak}" for leak in leaks]
