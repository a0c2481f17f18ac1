# SPDX-License-Identifier: Apache-2.0
"""config.data -> Data, by task."""

import importlib
from types import ModuleType
from typing import Any

from .data import Data, EvalSet
from .errors import DataError
from .spec import PuzzleSpec

TASKS = ("sudoku", "maze", "arc")  # folders with a module `task`, see data.py


def spec_of(*, task: str, **data: Any) -> PuzzleSpec:
    """The sizes that config.data asks for; of ARC, whose ids it must count, read."""
    return _task(task).spec_of(**data)


def load(*, task: str, seed: int, num_augmentations: int, **data: Any) -> Data:
    """Read or make the puzzles and choose the subsets. Raises DataError."""
    module = _task(task)
    if not 0 <= seed < 2**63:
        raise DataError(f"data.seed = {seed}; expected 0 to 2**63 - 1")
    if num_augmentations < 0:
        raise DataError(
            f"data.num_augmentations = {num_augmentations}; expected 0 or more"
        )
    return module.load(seed=seed, num_augmentations=num_augmentations, **data)


def load_test(path: str, *, task: str, **data: Any) -> EvalSet:
    """All test puzzles of a file or folder of the user's own."""
    return _task(task).load_test(path, **data)


def _task(name: str) -> ModuleType:
    if name not in TASKS:
        raise DataError(f"data.task = {name!r}; expected one of {', '.join(TASKS)}")
    return importlib.import_module(f".{name}.task", __package__)
