# SPDX-License-Identifier: Apache-2.0
"""Data: what a task hands to training and evaluation; and what tasks share to make it.

A task is a folder with a module `task` of three functions, which take the keys of
config.data that they read: `spec_of`, `load` (Data) and `load_test` (an EvalSet).
"""

from typing import Any, NamedTuple

import numpy as np

from .arrays import read_arrays
from .errors import DataError
from .hashing import random_bits
from .questions import EvalSet
from .spec import PuzzleSet, PuzzleSpec
from .variants import Variants

_SUBSET, _TEST_SUBSET = range(2)


class Data(NamedTuple):
    """Training and test puzzles, and what names them exactly."""

    spec: PuzzleSpec
    train: PuzzleSet
    train_variants: Variants | None  # None: no augmentation asked for
    test: EvalSet
    identity: dict[str, Any]  # sizes and SHA-256 of every array
    warnings: list[str]


def require(path: str, key: str, source: str) -> None:
    """Raise DataError where a source needs a path that config.data.`key` lacks."""
    if not path:
        raise DataError(
            f"data.{key} is empty; data.source = {source!r} needs "
            f"--config.data.{key}=PATH"
        )


def reads_no_file(source: str, train: str, test: str) -> None:
    """Raise DataError where files are named that the source would not read."""
    if train or test:
        raise DataError(
            f"data.source = {source!r} reads no file, but data.train or data.test is "
            "set; did you mean --config.data.source=csv?"
        )


def unknown_source(source: str, sources: tuple[str, ...]) -> DataError:
    """The error of a source that the task does not have."""
    return DataError(f"data.source = {source!r}; expected one of {', '.join(sources)}")


def read_split(folder: str, split: str, spec: PuzzleSpec) -> PuzzleSet:
    """One split of an array folder, which must have the sizes of config.data."""
    puzzles, found = read_arrays(folder, split)
    if found != spec:
        raise DataError(
            f"{folder}/{split}/dataset.json describes {found}; "
            f"config.data expects {spec}"
        )
    return puzzles


def choose(
    sets: tuple[PuzzleSet, PuzzleSet], train_puzzles: int, test_puzzles: int, seed: int
) -> tuple[PuzzleSet, PuzzleSet]:
    """The subsets that config.data asks for: at random, in file order; all for 0."""
    train, test = sets
    return (
        _subset(train, train_puzzles, seed, _SUBSET, "train_puzzles"),
        _subset(test, test_puzzles, seed, _TEST_SUBSET, "test_puzzles"),
    )


def chosen(total: int, count: int, seed: int, draw: int, key: str) -> np.ndarray:
    """`count` of `total` numbers at random, in order; all for 0. Raises DataError."""
    if not 0 <= count <= total:
        raise DataError(f"data.{key} = {count}; the source holds {total} puzzles")
    order = np.argsort(random_bits(seed, draw, np.arange(total)))
    return np.sort(order[: count or total])


def identity(spec: PuzzleSpec, train: PuzzleSet, test: PuzzleSet) -> dict[str, Any]:
    """Sizes, numbers of examples and SHA-256 of the arrays."""
    sets = {
        name: {"examples": len(puzzles), "sha256": puzzles.digests()}
        for name, puzzles in (("train", train), ("test", test))
    }
    return {"sizes": spec.sizes, **sets}


def _subset(
    puzzles: PuzzleSet, count: int, seed: int, draw: int, key: str
) -> PuzzleSet:
    total = len(puzzles.group_starts) - 1
    groups = chosen(total, count, seed, draw, key)
    # All of them: nothing is copied, so that what lies on disk stays there.
    return puzzles if len(groups) == total else puzzles.subset(groups)
