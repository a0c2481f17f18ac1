# SPDX-License-Identifier: Apache-2.0
"""ARC tasks with the augmentations of their ids as columns of numbers, and back."""

from typing import Any

import numpy as np

from ...arc.ids import IdTable, Tasks
from ...arc.json_tasks import ArcTask, Pair
from ..reading import Column

COLUMNS = {
    "name": Column(np.uint8),  # bytes of UTF-8, task after task
    "name_length": Column(np.int64),  # of each task, in bytes
    "is_test": Column(np.uint8),  # of each task: 0 trained on whole, 1 tested on
    "num_pairs": Column(np.int64, (2,)),  # of each task: demonstrations, tests
    "sizes": Column(np.uint8, (4,)),  # of input and output of each pair; 0 0 if unknown
    "cells": Column(np.uint8),  # colours, row by row, grid after grid
    "num_codes": Column(np.int64),  # of each task
    "codes": Column(np.uint32),  # the augmentation of each puzzle id
}


def pack(tasks: Tasks, ids: IdTable) -> list[dict[str, np.ndarray]]:
    """For each task, in the order of the ids, its part of every column."""
    codes = np.split(ids.codes, ids.starts[1:-1])
    return [
        _record(task, codes[i], is_test=i >= len(tasks.train))
        for i, task in enumerate(tasks.train + tasks.test)
    ]


def unpack(
    columns: dict[str, np.ndarray], warnings: list[str]
) -> tuple[Tasks, IdTable]:
    """The tasks and ids that `pack` was given, from the whole columns."""
    sizes = columns["sizes"].reshape(-1, 2)
    cells = _parts(columns["cells"], sizes.prod(1, int))
    grids = [part.reshape(size) for part, size in zip(cells, sizes, strict=True)]
    pairs = [
        Pair(shown, answer if answer.size else None)
        for shown, answer in zip(grids[::2], grids[1::2], strict=True)
    ]
    ends = columns["num_pairs"].cumsum().reshape(-1, 2)
    names = [
        part.tobytes().decode()
        for part in _parts(columns["name"], columns["name_length"])
    ]
    tasks, start = [], 0
    for name, (middle, stop) in zip(names, ends, strict=True):
        train, test = tuple(pairs[start:middle]), tuple(pairs[middle:stop])
        tasks.append(ArcTask(name, train, test))
        start = stop
    num_train = int((columns["is_test"] == 0).sum())
    starts = np.concatenate([[0], columns["num_codes"].cumsum()])
    return (
        Tasks(tasks[:num_train], tasks[num_train:], warnings),
        IdTable(names, columns["codes"], starts),
    )


def _record(
    task: ArcTask, codes: np.ndarray, *, is_test: bool
) -> dict[str, np.ndarray]:
    grids = [grid for pair in (*task.train, *task.test) for grid in pair]
    name = task.name.encode()
    parts: dict[str, Any] = {
        "name": np.frombuffer(name, np.uint8),
        "name_length": len(name),
        "is_test": is_test,
        "num_pairs": (len(task.train), len(task.test)),
        "sizes": [(0, 0) if grid is None else grid.shape for grid in grids],
        "cells": np.concatenate([grid.ravel() for grid in grids if grid is not None]),
        "num_codes": len(codes),
        "codes": codes,
    }
    return {
        name: np.asarray(parts[name], column.dtype).reshape(-1, *column.shape)
        for name, column in COLUMNS.items()
    }


def _parts(values: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    return np.split(values, lengths.cumsum()[:-1])
