# SPDX-License-Identifier: Apache-2.0
"""Facts and warnings about Sudoku files; see data_pipeline/check.py."""

from pathlib import Path

import numpy as np

from ..console import progress
from ..repeats import find_duplicates, find_overlap
from ..spec import PuzzleSet
from ..text_files import split_files
from .csv_file import read_sudoku_csv
from .grid import SudokuShape
from .solver import masks_of, solve

MAX_SOLVED = 250  # per file; they are searched at once, which takes about a second

_SHAPE = SudokuShape(3, 3)


def check(path: Path) -> tuple[list[str], list[str]]:
    """Facts and warnings about a 9x9 file, or the two splits of a folder."""
    files = split_files(path) if path.is_dir() else [path]
    sets = [read_sudoku_csv(file, _SHAPE) for file in files]
    facts: list[str] = []
    warnings: list[str] = []
    for file, puzzles in zip(files, sets, strict=True):
        facts += _facts(file, puzzles)
        warnings += find_duplicates(puzzles, file)
        warnings += [
            f"{file}: row {row} has more than one solution"
            for row in 1 + np.flatnonzero(_have_several(puzzles.inputs[:MAX_SOLVED]))
        ]
    if len(sets) == 2:
        warnings += find_overlap(sets[0], sets[1], files[0], files[1])
    return facts, warnings


def _have_several(inputs: np.ndarray) -> np.ndarray:
    """Which questions `n m` have more than one solution."""
    with progress(len(inputs), "rows searched for second solutions") as show:
        found = solve(masks_of(inputs, _SHAPE), _SHAPE, limit=2, on_round=show)
    return found.num_solutions > 1


def _facts(path: Path, puzzles: PuzzleSet) -> list[str]:
    ranges = (
        f"{name} {puzzles.attributes[name].min()} to {puzzles.attributes[name].max()}"
        for name in ("clues", "rating")
    )
    searched = min(len(puzzles), MAX_SOLVED)
    return [
        f"{path}: {len(puzzles):,} rows, {', '.join(ranges)}, "
        f"searched the first {searched:,} for second solutions",
        puzzles.digest_line(),
    ]
