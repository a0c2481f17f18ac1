# SPDX-License-Identifier: Apache-2.0
"""Facts and warnings about Sudoku files; see data_pipeline/check.py."""

import itertools
from pathlib import Path

import numpy as np

from ..console import progress
from ..repeats import find_duplicates, find_overlap
from ..spec import PuzzleSet
from ..text_files import read_rows, split_files
from .csv_file import read_sudoku_csv
from .grid import SudokuShape
from .solver import masks_of, solve

MAX_SOLVED = 250  # per file; they are searched at once, which takes about a second

_BOXES = ((2, 2), (2, 3), (3, 3))  # rows and columns
# By the number of cells. Files of another number are read as if they had 9x9.
_SHAPES = {s.num_cells: s for s in itertools.starmap(SudokuShape, _BOXES)}


def check(path: Path) -> tuple[list[str], list[str]]:
    """Facts and warnings about a file, or the two splits of a folder.

    The first question of the first file decides between 9x9, 6x6 and 4x4 cells.
    """
    files = split_files(path) if path.is_dir() else [path]
    shape = _shape_of(files[0])
    sets = [read_sudoku_csv(file, shape) for file in files]
    facts: list[str] = []
    warnings: list[str] = []
    for file, puzzles in zip(files, sets, strict=True):
        facts += _facts(file, puzzles, shape)
        warnings += find_duplicates(puzzles, file)
        warnings += [
            f"{file}: row {row} has more than one solution"
            for row in 1
            + np.flatnonzero(_have_several(puzzles.inputs[:MAX_SOLVED], shape))
        ]
    if len(sets) == 2:
        warnings += find_overlap(sets[0], sets[1], files[0], files[1])
    return facts, warnings


def _shape_of(file: Path) -> SudokuShape:
    """The shape of the first puzzle, or of 9x9 cells if it has no known number."""
    for _, _, fields in read_rows(file):
        return _SHAPES.get(len(fields[1]), _SHAPES[81])
    return _SHAPES[81]


def _have_several(inputs: np.ndarray, shape: SudokuShape) -> np.ndarray:
    """Which questions `n m` have more than one solution."""
    with progress(len(inputs), "rows searched for second solutions") as show:
        found = solve(masks_of(inputs, shape), shape, limit=2, on_round=show)
    return found.num_solutions > 1


def _facts(path: Path, puzzles: PuzzleSet, shape: SudokuShape) -> list[str]:
    ranges = (
        f"{name} {puzzles.attributes[name].min()} to {puzzles.attributes[name].max()}"
        for name in ("clues", "rating")
    )
    searched = min(len(puzzles), MAX_SOLVED)
    return [
        f"{path}: {len(puzzles):,} rows of {shape.side}x{shape.side} cells in boxes of "
        f"{shape.box_rows}x{shape.box_cols}, {', '.join(ranges)}, "
        f"searched the first {searched:,} for second solutions",
        puzzles.digest_line(),
    ]
