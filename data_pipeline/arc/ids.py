# SPDX-License-Identifier: Apache-2.0
"""Chosen ARC tasks, and what every puzzle id stands for."""

import hashlib
from typing import NamedTuple

import numpy as np

from .augmentations import sample_codes
from .json_tasks import ArcTask, Pair
from .variants import ArcVariants


class Tasks(NamedTuple):
    """The chosen tasks. Of `test`, only the demonstrations are trained on."""

    train: list[ArcTask]
    test: list[ArcTask]
    warnings: list[str]


class IdTable(NamedTuple):
    """What every puzzle id stands for.

    Id 0 is blank. The others count the forms of the first task, then of the next, ...
    """

    names: list[str]
    codes: np.ndarray  # uint32: the augmentation of each id except the blank one
    starts: np.ndarray  # int64 `tasks + 1`: first code of each task

    @property
    def num_ids(self) -> int:
        """Rows of the puzzle table."""
        return 1 + len(self.codes)

    @property
    def digest(self) -> str:
        """SHA-256 of names and codes."""
        sha = hashlib.sha256("\n".join(self.names).encode())
        for array, dtype in ((self.starts, "<i8"), (self.codes, "<u4")):
            sha.update(array.astype(dtype).tobytes())
        return sha.hexdigest()

    def variants(self, tasks: slice, side: int, seed: int) -> ArcVariants:
        """The forms of some of the tasks."""
        starts = self.starts[tasks.start : tasks.stop + 1]
        codes = self.codes[starts[0] : starts[-1]]
        return ArcVariants(codes, starts - starts[0], side, seed)

    def subset(self, tasks: np.ndarray) -> "IdTable":
        """The table of some of the tasks, whose ids are counted from 1 again."""
        parts = [self.codes[self.starts[t] : self.starts[t + 1]] for t in tasks]
        return IdTable.of([self.names[t] for t in tasks], parts)

    @classmethod
    def of(cls, names: list[str], codes: list[np.ndarray]) -> "IdTable":
        """The table for the codes of each task."""
        starts = np.cumsum([0, *map(len, codes)])
        return cls(names, np.concatenate([*codes, np.empty(0, np.uint32)]), starts)


def make_ids(tasks: Tasks, num_augmentations: int, seed: int) -> IdTable:
    """Assign ids to the forms of all tasks, the test tasks last.

    The answers of test tasks are not used, so hiding them does not change the ids.
    """
    asked = [tuple(Pair(p.input, None) for p in task.test) for task in tasks.test]
    puzzles = [(task.name, (*task.train, *task.test)) for task in tasks.train]
    puzzles += [
        (task.name, (*task.train, *inputs))
        for task, inputs in zip(tasks.test, asked, strict=True)
    ]
    codes = [
        sample_codes(pairs, num_augmentations, seed, name) for name, pairs in puzzles
    ]
    return IdTable.of([name for name, _ in puzzles], codes)
