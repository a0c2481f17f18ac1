# SPDX-License-Identifier: Apache-2.0
"""config.data of task "sudoku" -> puzzles in memory, whatever they come from."""

from pathlib import Path
from typing import Any

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
from ..errors import DataError
from ..hub import hub_file
from ..repeats import find_duplicates, find_overlap
from ..spec import PuzzleSet, PuzzleSpec
from ..sudoku_extreme.reader import open_prepared
from .csv_file import read_sudoku_csv
from .generator import generate
from .grid import SudokuShape
from .symmetries import SudokuVariants

SOURCES = ("csv", "arrays", "generator", "hub", "prepared")
TEST_FORMS = 1_001  # of each test puzzle, itself among them, for votes
HUB_REPOSITORY = "sapientinc/sudoku-extreme"


def spec_of(*, box_rows: int, box_cols: int, **_: Any) -> PuzzleSpec:
    """The sizes that config.data asks for, without reading anything."""
    return _shape(box_rows, box_cols).spec


def load(
    *,
    source: str,
    train: str,
    test: str,
    box_rows: int,
    box_cols: int,
    train_puzzles: int,
    test_puzzles: int,
    clues: tuple[int, int],
    num_augmentations: int,
    seed: int,
    **_: Any,
) -> Data:
    """Read or make the puzzles and choose the subsets. Raises DataError."""
    shape, warnings = _shape(box_rows, box_cols), []
    match source:
        case "generator":
            reads_no_file(source, train, test)
            sets = generate(
                shape, (train_puzzles, test_puzzles), clues=clues, seed=seed
            )
        case "csv" | "hub":
            if source == "hub":
                reads_no_file(source, train, test)
                train = hub_file(HUB_REPOSITORY, "train.csv")
                test = hub_file(HUB_REPOSITORY, "test.csv")
            require(train, "train", source)
            require(test, "test", source)
            sets = read_sudoku_csv(train, shape), read_sudoku_csv(test, shape)
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
    sets = choose(sets, train_puzzles, test_puzzles, seed)
    variants = None
    if num_augmentations:
        count = len(sets[0].puzzle_ids)
        variants = SudokuVariants(shape, seed, count, 1 + num_augmentations)
    return Data(
        shape.spec,
        sets[0],
        variants,
        _eval_set(sets[1], shape, seed),
        identity(shape.spec, *sets),
        warnings,
    )


def load_test(
    path: str,
    *,
    box_rows: int,
    box_cols: int,
    seed: int,
    **_: Any,
) -> EvalSet:
    """All puzzles of one CSV file, or of the test split of an array folder."""
    shape = _shape(box_rows, box_cols)
    if (Path(path) / "sudoku_extreme").is_dir():
        puzzles = open_prepared(path, "test", shape)
    elif Path(path).is_dir():
        puzzles = read_split(path, "test", shape.spec)
    else:
        puzzles = read_sudoku_csv(path, shape)
    return _eval_set(puzzles, shape, seed)


def _eval_set(puzzles: PuzzleSet, shape: SudokuShape, seed: int) -> EvalSet:
    count = len(puzzles.puzzle_ids)
    return EvalSet(puzzles, SudokuVariants(shape, seed, count, TEST_FORMS))


def _shape(box_rows: int, box_cols: int) -> SudokuShape:
    if (box_rows, box_cols) not in ((2, 2), (2, 3), (3, 3)):
        raise DataError(
            f"data.box_rows x data.box_cols = {box_rows}x{box_cols}; "
            "expected 2x2, 2x3 or 3x3"
        )
    return SudokuShape(box_rows, box_cols)
