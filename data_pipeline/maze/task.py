# SPDX-License-Identifier: Apache-2.0
"""config.data of task "maze" -> mazes in memory, whatever they come from."""

from pathlib import Path
from typing import Any

import numpy as np

from ..data import (
    Data,
    EvalSet,
    choose,
    identity,
    read_split,
    reads_no_file,
    require,
    unknown_source,
)
from ..dihedral import COUNT
from ..errors import DataError
from ..hub import hub_file
from ..maze_hard.reader import open_prepared
from ..repeats import find_duplicates, find_overlap
from ..spec import PuzzleSet, PuzzleSpec
from .csv_file import read_maze_csv
from .generator import generate
from .grid import MazeShape
from .solver import is_shortest_path, solve
from .variants import MazeVariants

SOURCES = ("csv", "arrays", "generator", "hub", "prepared")
HUB_REPOSITORY = "sapientinc/maze-30x30-hard-1k"


def spec_of(*, side: int, **_: Any) -> PuzzleSpec:
    """The sizes that config.data asks for, without reading anything."""
    return MazeShape(side).spec


def load(
    *,
    source: str,
    train: str,
    test: str,
    side: int,
    train_puzzles: int,
    test_puzzles: int,
    min_moves: int,
    wall_share: tuple[float, float],
    num_augmentations: int,
    seed: int,
    **_: Any,
) -> Data:
    """Read or make the mazes and choose the subsets. Raises DataError."""
    shape, warnings = MazeShape(side), []
    if num_augmentations >= COUNT:
        raise DataError(
            f"data.num_augmentations = {num_augmentations}; a maze has {COUNT - 1}"
        )
    match source:
        case "generator":
            reads_no_file(source, train, test)
            counts = train_puzzles, test_puzzles
            sets = generate(
                shape, counts, min_moves=min_moves, wall_share=wall_share, seed=seed
            )
        case "csv" | "hub":
            if source == "hub":
                reads_no_file(source, train, test)
                train = hub_file(HUB_REPOSITORY, "train.csv")
                test = hub_file(HUB_REPOSITORY, "test.csv")
            require(train, "train", source)
            require(test, "test", source)
            sets = read_maze_csv(train, shape), read_maze_csv(test, shape)
            warnings += find_duplicates(sets[0], train)
            warnings += find_overlap(*sets, train, test)
        case "arrays":
            require(train, "train", source)
            sets = (
                read_split(train, "train", shape.spec),
                read_split(test or train, "test", shape.spec),
            )
        case "prepared":
            require(train, "train", source)
            sets = (
                open_prepared(train, "train", shape),
                open_prepared(test or train, "test", shape),
            )
        case _:
            raise unknown_source(source, SOURCES)
    off_rule = (solve(sets[0].inputs, shape) != sets[0].labels).any(1).sum()
    if off_rule and num_augmentations:
        warnings.append(
            f"{off_rule} of {len(sets[0])} training labels do not follow the published "
            "rule; those of turned mazes will, so the labels contradict each other"
        )
    sets = choose(sets, train_puzzles, test_puzzles, seed)
    variants = None
    if num_augmentations:
        variants = MazeVariants(sets[0], shape, 1 + num_augmentations)
    test_set = _test_set(sets[1], shape)
    return Data(
        shape.spec, sets[0], variants, test_set, identity(shape.spec, *sets), warnings
    )


def load_test(path: str, *, side: int, **_: Any) -> EvalSet:
    """All mazes of one CSV file, or of the test split of an array folder."""
    shape = MazeShape(side)
    if (Path(path) / "maze_hard").is_dir():
        return _test_set(open_prepared(path, "test", shape), shape)
    if Path(path).is_dir():
        return _test_set(read_split(path, "test", shape.spec), shape)
    return _test_set(read_maze_csv(path, shape), shape)


def _test_set(puzzles: PuzzleSet, shape: MazeShape) -> EvalSet:
    def is_valid(inputs: np.ndarray, answers: np.ndarray) -> np.ndarray:
        return is_shortest_path(inputs, answers, shape)

    return EvalSet(puzzles, MazeVariants(puzzles, shape, COUNT), is_valid=is_valid)
