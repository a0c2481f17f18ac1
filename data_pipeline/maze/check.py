# SPDX-License-Identifier: Apache-2.0
"""Facts and warnings about maze files; see data_pipeline/check.py."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..repeats import MAX_WARNINGS, find_duplicates, find_overlap
from ..spec import PuzzleSet
from ..text_files import split_files
from .csv_file import read_maze_csv
from .grid import WALL, MazeShape
from .solver import min_moves, on_path, solve

_SHAPE = MazeShape(30)


def check(path: Path, shape: MazeShape = _SHAPE) -> tuple[list[str], list[str]]:
    """Facts and warnings about a CSV file, or the two splits of a folder."""
    files = split_files(path) if path.is_dir() else [path]
    sets = [read_maze_csv(file, shape) for file in files]
    checked = [_check(*pair, shape) for pair in zip(files, sets, strict=True)]
    facts = [line for found, _ in checked for line in found]
    warnings = [line for _, found in checked for line in found]
    if len(sets) == 2:
        warnings += find_overlap(sets[0], sets[1], files[0], files[1])
    return facts, warnings


def _check(
    path: Path, puzzles: PuzzleSet, shape: MazeShape
) -> tuple[list[str], list[str]]:
    moves = on_path(puzzles.labels).sum(1) - 1
    possible = min_moves(puzzles.inputs, shape)
    by_rule = (puzzles.labels == solve(puzzles.inputs, shape)).all(1)
    rating = puzzles.attributes["rating"]
    warnings = find_duplicates(puzzles, path)
    warnings += _first(
        f"{path}: row {row + 1}: path not shortest: {moves[row]} moves, "
        f"{possible[row]} possible"
        for row in np.flatnonzero(moves != possible)
    )
    warnings += _first(
        f"{path}: row {row + 1}: rating {rating[row]}, path {moves[row]}"
        for row in np.flatnonzero(moves != rating)
    )
    if others := ((moves == possible) & ~by_rule).sum():
        warnings.append(
            f"{path}: {others} of {len(puzzles)} labels are another shortest path than "
            "that of the published rule (breadth first: down, left, right, up)"
        )
    share = (puzzles.inputs == WALL).mean(1)
    facts = (
        f"{path}: {len(puzzles):,} rows, wall share {share.mean():.3f} +- "
        f"{share.std():.3f}, moves {moves.min()} to {moves.max()}, "
        f"mean {moves.mean():.1f}, {by_rule.mean():.1%} of the labels by the rule"
    )
    return [facts, puzzles.digest_line()], warnings


def _first(messages: Iterable[str]) -> list[str]:
    found = list(messages)
    rest = [f"... and {len(found) - MAX_WARNINGS} more rows like these"]
    return found[:MAX_WARNINGS] + (rest if len(found) > MAX_WARNINGS else [])
