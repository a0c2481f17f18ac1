# SPDX-License-Identifier: Apache-2.0
"""Facts and warnings about nonogram files and folders; see data_pipeline/check.py."""

from pathlib import Path

import numpy as np

from ..arrays import read_arrays
from ..errors import DataError
from ..repeats import MAX_WARNINGS, find_duplicates
from ..spec import PuzzleSet
from ..text_files import SPLITS, split_files
from .csv_file import read_nonogram_csv, require_runs, shape_in
from .grid import BLANK, EMPTY, FILLED, VOCAB_SIZE, NonogramShape, is_solution
from .lines import LONGEST, SHORTEST
from .solver import solve
from .variants import classes

MAX_SOLVED = 10_000  # per file


def check(path: Path) -> tuple[list[str], list[str]]:
    """Facts and warnings about a CSV file, or about the splits of a folder.

    A folder holds CSV files or arrays. Raises DataError for a label that does not have
    the runs of its clues.
    """
    folders = [path / split for split in SPLITS if (path / split).is_dir()]
    if folders:
        sets = [read_arrays(path, folder.name)[0] for folder in folders]
        shape, files = _shape_of_arrays(folders[0], sets[0]), folders
        for file, puzzles in zip(files, sets, strict=True):
            _require_solutions(file, puzzles, shape)
    else:
        files = split_files(path) if path.is_dir() else [path]
        shape = shape_in(files[0])
        sets = [read_nonogram_csv(file, shape) for file in files]
    facts: list[str] = []
    warnings: list[str] = []
    for file, puzzles in zip(files, sets, strict=True):
        found = _check(file, puzzles, shape)
        facts, warnings = facts + found[0], warnings + found[1]
    if len(sets) == 2:
        warnings += _overlap(sets, files, shape)
    return facts, warnings


def _check(
    path: Path, puzzles: PuzzleSet, shape: NonogramShape
) -> tuple[list[str], list[str]]:
    warnings = find_duplicates(puzzles, path)
    row_clues, column_clues, _ = shape.parts(puzzles.inputs[:MAX_SOLVED])
    several = solve(row_clues, column_clues, shape).num_solutions > 1
    rows = np.flatnonzero(several) + 1
    warnings += _listed(
        [f"{path}: row {row} has more than one solution" for row in rows]
    )
    share = _filled(puzzles, shape).mean((1, 2))
    facts = (
        f"{path}: {len(puzzles):,} rows of {shape.rows}x{shape.cols}, filled share "
        f"{share.mean():.3f} +- {share.std():.3f}, searched the first {len(several):,} "
        "for second solutions"
    )
    return [facts, puzzles.digest_line()], warnings


def _overlap(
    sets: list[PuzzleSet], files: list[Path], shape: NonogramShape
) -> list[str]:
    """A warning for each test row that is a training row or a turned form of one."""
    train, test = (classes(_filled(puzzles, shape), shape).tolist() for puzzles in sets)
    first = {name: row for row, name in reversed([*enumerate(train, 1)])}
    return _listed(
        [
            f"overlap: {files[1]} row {row} is {files[0]} row {first[name]} or a "
            "turned form of it"
            for row, name in enumerate(test, 1)
            if name in first
        ]
    )


def _filled(puzzles: PuzzleSet, shape: NonogramShape) -> np.ndarray:
    return shape.parts(puzzles.labels).cells == FILLED


def _shape_of_arrays(folder: Path, puzzles: PuzzleSet) -> NonogramShape:
    """The shape whose blank cells are those of the first row. Raises DataError."""
    first = puzzles.inputs[0]
    sides = range(SHORTEST, LONGEST + 1)
    for shape in (NonogramShape(rows, cols) for rows in sides for cols in sides):
        if shape.spec.num_cells == len(first):
            blank = shape.labels(np.ones((1, shape.rows, shape.cols), bool))[0] > 0
            if ((first == BLANK) == blank).all():
                return shape
    raise DataError(
        f"{folder}: row 1 of the inputs, {len(first)} tokens, is no nonogram of "
        f"{SHORTEST} to {LONGEST} rows and columns"
    )


def _require_solutions(folder: Path, puzzles: PuzzleSet, shape: NonogramShape) -> None:
    """Raise DataError unless every label has the runs of its clues."""
    if puzzles.inputs.max() >= VOCAB_SIZE:
        raise DataError(
            f"{folder}: token {puzzles.inputs.max()} in the inputs; expected less than "
            f"{VOCAB_SIZE}"
        )
    right = is_solution(puzzles.inputs, puzzles.labels, shape)
    for row in np.flatnonzero(~right)[:1]:
        clues = shape.parts(puzzles.inputs[row : row + 1])
        cells = shape.parts(puzzles.labels[row : row + 1]).cells[0]
        where = f"{folder}: row {row + 1} of the labels"
        for place in np.argwhere((cells != EMPTY) & (cells != FILLED))[:1]:
            raise DataError(
                f"{where}: token {cells[tuple(place)]} at cell row {place[0] + 1}, "
                f"column {place[1] + 1}; expected {EMPTY} or {FILLED}"
            )
        try:
            require_runs(cells == FILLED, clues.row_clues[0], clues.column_clues[0])
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        raise DataError(f"{where}: a cell that the inputs give is changed")


def _listed(messages: list[str]) -> list[str]:
    rest = [f"... and {len(messages) - MAX_WARNINGS} more rows like these"]
    return messages[:MAX_WARNINGS] + (rest if len(messages) > MAX_WARNINGS else [])
