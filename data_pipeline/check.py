# SPDX-License-Identifier: Apache-2.0
"""Checks puzzle files: `python -m data_pipeline.check KIND PATH`.

Exit code 0: the data can be used; facts on stdout, warnings on stderr. 2: it cannot.
"""

import pathlib
import sys
from collections.abc import Iterable

import numpy as np

from data_pipeline.arrays import read_arrays
from data_pipeline.errors import DataError
from data_pipeline.spec import PuzzleSet
from data_pipeline.sudoku.csv_file import find_duplicates, find_overlap, read_sudoku_csv
from data_pipeline.sudoku.grid import SudokuShape
from data_pipeline.sudoku.solver import count_solutions

USAGE = "usage: python -m data_pipeline.check {sudoku,maze,arc,built} PATH\n"
SPLITS = ("train", "test")
MAX_SOLVED = 250  # per file: hard puzzles take the solver some 20 ms each

_SHAPE = SudokuShape(3, 3)


def main(argv: list[str]) -> int:
    """Runs the check; returns the exit code."""
    if argv in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        return 0
    if len(argv) != 2:
        sys.stderr.write(USAGE)
        return 2
    kind, path = argv[0], pathlib.Path(argv[1])
    try:
        match kind:
            case "sudoku":
                _check_sudoku(path)
            case "built":
                _check_built(path)
            case "maze" | "arc":
                raise DataError(f"{path}: kind {kind} is not supported yet")
            case _:
                sys.stderr.write(USAGE)
                return 2
    except DataError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _check_sudoku(path: pathlib.Path) -> None:
    files = _split_files(path) if path.is_dir() else [path]
    sets = [_check_sudoku_file(file) for file in files]
    if len(sets) == 2:
        _warn(find_overlap(sets[0], sets[1], files[0], files[1]))


def _check_sudoku_file(path: pathlib.Path) -> PuzzleSet:
    puzzles = read_sudoku_csv(path, _SHAPE)
    _warn(find_duplicates(puzzles, path))
    solved = puzzles.inputs[:MAX_SOLVED]
    _warn(
        f"{path}: row {row} has more than one solution"
        for row, question in enumerate(solved, 1)
        if count_solutions(question, _SHAPE) > 1
    )
    facts = [
        _range("clues", puzzles.attributes["clues"]),
        _range("rating", puzzles.attributes["rating"]),
        f"searched the first {len(solved):,} for second solutions",
    ]
    _summarise(path, puzzles, facts)
    return puzzles


def _split_files(folder: pathlib.Path) -> list[pathlib.Path]:
    found = []
    for split in SPLITS:
        names = (folder / f"{split}.csv", folder / f"{split}.csv.gz")
        files = [file for file in names if file.exists()]
        if len(files) == 2:
            raise DataError(f"{folder}: both {split}.csv and {split}.csv.gz")
        found += files
    if not found:
        raise DataError(f"{folder}: is a folder without train.csv or test.csv[.gz]")
    return found


def _check_built(folder: pathlib.Path) -> None:
    splits = [split for split in SPLITS if (folder / split).is_dir()]
    if not splits:
        raise DataError(f"{folder}: no folder train or test found in it")
    for split in splits:
        puzzles, spec = read_arrays(folder, split)
        facts = [
            f"{len(puzzles.puzzle_ids):,} puzzles",
            f"{len(puzzles.group_starts) - 1:,} groups",
            f"vocab_size {spec.vocab_size}",
            f"grid {spec.grid_shape[0]}x{spec.grid_shape[1]}",
            f"num_puzzles {spec.num_puzzles:,}",
        ]
        _summarise(folder / split, puzzles, facts)


def _range(name: str, values: np.ndarray) -> str:
    return f"{name} {values.min()} to {values.max()}"


def _summarise(path: pathlib.Path, puzzles: PuzzleSet, facts: list[str]) -> None:
    digests = (f"{name} {digest}" for name, digest in puzzles.digests().items())
    rows = f"{len(puzzles):,} rows"
    sys.stdout.write(f"{path}: {', '.join([rows, *facts])}\n")
    sys.stdout.write(f"SHA-256: {', '.join(digests)}\n")


def _warn(messages: Iterable[str]) -> None:
    for message in messages:
        sys.stderr.write(f"warning: {message}\n")


if __name__ == "__main__":
    # A terminal that lacks a character of the path is no reason to fail.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
