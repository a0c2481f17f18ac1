# SPDX-License-Identifier: Apache-2.0
"""config.data of task "arc" -> tasks as puzzles, each in up to 1,001 forms with ids."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..arc_agi.reader import open_prepared
from ..data import (
    Data,
    EvalSet,
    chosen,
    identity,
    require,
    unknown_source,
)
from ..errors import DataError
from ..spec import PuzzleSet, PuzzleSpec
from .bundles import find_subsets, read_subset
from .grids import VOCAB_SIZE, decode, encode
from .ids import IdTable, Tasks, make_ids
from .json_tasks import Pair, Task
from .leaks import SAME_TRAIN, find_leaks
from .submission import write_submission

SOURCES = ("json", "prepared")
MAX_NAMED = 5  # tasks that a message names
_TRAIN, _TEST = range(2)


def spec_of(**data: Any) -> PuzzleSpec:
    """The sizes that config.data asks for. The files are read: ids must be counted."""
    return load(**data).spec


def load(
    *,
    source: str,
    train: str,
    test: str,
    side: int,
    max_grid: int,
    train_subsets: Sequence[str],
    test_subset: str,
    allow_leaks: bool,
    train_puzzles: int,
    test_puzzles: int,
    num_augmentations: int,
    seed: int,
    **_: Any,
) -> Data:
    """Read the subsets, choose tasks, count out the ids. Raises DataError."""
    require(train, "train", source)
    asked: dict[str, Any] = {
        "train_subsets": train_subsets,
        "test_subset": test_subset,
        "allow_leaks": allow_leaks,
    }
    match source:
        case "json":
            tasks, ids = read_tasks(train, test or train, **asked), None
        case "prepared":
            asked |= {"num_augmentations": num_augmentations, "seed": seed}
            tasks, ids = open_prepared(test or train, **asked)
        case _:
            raise unknown_source(source, SOURCES)
    fit = partial(_that_fit, side=side, max_grid=max_grid)
    of_train = _choose(fit(tasks.train), train_puzzles, seed, _TRAIN, "train_puzzles")
    of_test = _choose(fit(tasks.test), test_puzzles, seed, _TEST, "test_puzzles")
    kept = Tasks(
        [tasks.train[i] for i in of_train],
        [tasks.test[i] for i in of_test],
        [*tasks.warnings, *_left_out(tasks, len(of_train), len(of_test))],
    )
    if ids is None:
        ids = make_ids(kept, num_augmentations, seed)
    else:
        ids = ids.subset(np.append(of_train, len(tasks.train) + of_test))
    return as_data(kept, ids, side, seed)


def load_test(path: str, **data: Any) -> EvalSet:
    """The test set of config.data, its files taken from another folder.

    So are those of the training subsets, which the ids need, if that folder holds all.
    """
    files = {"test": path}
    if data["source"] == "json" and {*data["train_subsets"]} <= {*find_subsets(path)}:
        files["train"] = path
    return load(**(data | files)).test


def read_tasks(
    train_folder: str,
    test_folder: str,
    *,
    train_subsets: Sequence[str],
    test_subset: str,
    allow_leaks: bool,
) -> Tasks:
    """The tasks of both kinds; those of a test subset named in both are test tasks."""
    others = [name for name in train_subsets if name != test_subset]
    by_subset = {
        name: read_subset(train_folder, name, require_solutions=True) for name in others
    }
    test = read_subset(test_folder, test_subset)
    warnings = _check_leaks(test, test_subset, by_subset, allow_leaks=allow_leaks)
    return Tasks([t for tasks in by_subset.values() for t in tasks], test, warnings)


def as_data(tasks: Tasks, ids: IdTable, side: int, seed: int) -> Data:
    """Tasks and ids as puzzles and forms."""
    if not tasks.test:
        raise DataError("no test task is left; see data.test_subset and data.max_grid")
    num_train, num_all = len(tasks.train), len(ids.names)
    shown = [(*task.train, *task.test) for task in tasks.train]
    shown += [task.train for task in tasks.test]
    first_ids = (1 + ids.starts[:-1]).astype(np.int32)
    train = _puzzle_set(shown, first_ids, side)
    asked = [task.test for task in tasks.test]
    test = _puzzle_set(asked, first_ids[num_train:], side)
    spec = PuzzleSpec(VOCAB_SIZE, side**2, ids.num_ids, (side, side))
    return Data(
        spec,
        train,
        ids.variants(slice(0, num_all), side, seed),
        EvalSet(
            test,
            ids.variants(slice(num_train, num_all), side, seed),
            id_map=ids.digest,
            write_submission=partial(_write, tasks=tasks.test, side=side),
        ),
        identity(spec, train, test) | {"id_map": ids.digest},
        tasks.warnings,
    )


def _write(path: Path, answers: np.ndarray, *, tasks: list[Task], side: int) -> None:
    """Answers `n 2 m`, in the order of the test inputs, as a submission."""
    grids = [[decode(tokens, side) for tokens in pair] for pair in answers]
    counts = np.cumsum([0, *(len(task.test) for task in tasks)])
    attempts = {
        task.name: [(first, second) for first, second in grids[start:stop]]
        for task, start, stop in zip(tasks, counts[:-1], counts[1:], strict=True)
    }
    write_submission(path, attempts, tasks)


def _puzzle_set(
    puzzles: list[tuple[Pair, ...]], first_ids: np.ndarray, side: int
) -> PuzzleSet:
    pairs = [pair for pairs in puzzles for pair in pairs]
    unknown = np.zeros(side**2, np.uint8)
    return PuzzleSet(
        np.stack([encode(pair.input, side) for pair in pairs]),
        np.stack(
            [
                unknown if pair.output is None else encode(pair.output, side)
                for pair in pairs
            ]
        ),
        np.cumsum([0, *map(len, puzzles)]),
        np.arange(len(puzzles) + 1),
        first_ids,
        {},
    )


def _that_fit(tasks: list[Task], *, side: int, max_grid: int) -> np.ndarray:
    """Which tasks have no grid over `max_grid` (0: all, which must fit the canvas)."""
    largest = [
        max(max(g.shape) for p in (*t.train, *t.test) for g in p if g is not None)
        for t in tasks
    ]
    for task, size in zip(tasks, largest, strict=True):
        if size > side and (not max_grid or size <= max_grid):
            raise DataError(
                f"task {task.name} has a grid of side {size}, data.side = {side}; "
                f"set --config.data.max_grid={side} to leave such tasks out"
            )
    return np.flatnonzero(np.array(largest, int) <= (max_grid or side))


def _left_out(tasks: Tasks, num_train: int, num_test: int) -> list[str]:
    counts = ((num_train, len(tasks.train)), (num_test, len(tasks.test)))
    if all(kept == total for kept, total in counts):
        return []
    (train, of_train), (test, of_test) = counts
    return [
        f"data.max_grid, data.train_puzzles, data.test_puzzles: {train} of {of_train} "
        f"training tasks are taken, and {test} of {of_test} test tasks; the others are "
        "neither scored nor in a submission"
    ]


def _choose(
    tasks: np.ndarray, count: int, seed: int, draw: int, key: str
) -> np.ndarray:
    return tasks[chosen(len(tasks), count, seed, draw, key)]


def _check_leaks(
    test: list[Task],
    test_subset: str,
    train: dict[str, list[Task]],
    *,
    allow_leaks: bool,
) -> list[str]:
    """Warnings; DataError where answers to test inputs would be trained on.

    The same demonstrations under another name are a warning alone: ARC-AGI-1 itself
    has such a pair of tasks.
    """
    leaks = find_leaks(test, train)
    answers = [leak for leak in leaks if leak.kind != SAME_TRAIN]
    for subset in dict.fromkeys(leak.subset for leak in answers):
        given = {leak.test for leak in answers if leak.subset == subset}
        message = (
            f"{len(given)} of the {len(test)} tasks of {test_subset} have answers to "
            f"their test inputs in {subset}, {', '.join(sorted(given)[:MAX_NAMED])} "
            "among them"
        )
        if not allow_leaks:
            raise DataError(
                f"data.train_subsets: {message}. A score would measure what was "
                f"learnt by heart; train without {subset}, or, for another purpose, "
                "set --config.data.allow_leaks=True"
            )
    return [f"leak: {leak}" for leak in leaks]
