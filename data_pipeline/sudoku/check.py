# SPDX-License-Identifier: Apache-2.0
"""Facts and warnings about Sudoku files; see data_pipeline/check.py."""

from pathlib import Path

from ..repeats import find_duplicates, find_overlap
from ..spec import PuzzleSet
from ..text_files import split_files
from .csv_file import read_sudoku_csv
from .grid import SudokuShape
from .solver import count_solutions

MAX_SOLVED = 250  # per file; the solver takes some 20 ms for a hard puzzle

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
            for row, question in enumerate(puzzles.inputs[:MAX_SOLVED], 1)
            if count_solutions(question, _SHAPE) > 1
        ]
    if len(sets) == 2:
        warnings += find_overlap(sets[0], sets[1], files[0], files[1])
    return facts, warnings


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
