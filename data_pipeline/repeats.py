# SPDX-License-Identifier: Apache-2.0
"""Warnings about puzzles that occur twice in a file, or in both files."""

import pathlib

import numpy as np

from .spec import PuzzleSet

MAX_WARNINGS = 10


def find_duplicates(puzzles: PuzzleSet, path: str | pathlib.Path) -> list[str]:
    """A warning for each row that repeats the question of an earlier row."""
    rows, earlier = _repeats(puzzles.inputs)
    return _warnings(f"{path}: duplicate: row", rows, "repeats row", earlier)


def find_overlap(
    train: PuzzleSet,
    test: PuzzleSet,
    train_path: str | pathlib.Path,
    test_path: str | pathlib.Path,
) -> list[str]:
    """A warning for each test row whose question is also in the training set."""
    rows, earlier = _repeats(np.concatenate([train.inputs, test.inputs]))
    shared = (rows >= len(train)) & (earlier < len(train))
    rows, earlier = rows[shared] - len(train), earlier[shared]
    return _warnings(f"overlap: {test_path} row", rows, f"is {train_path} row", earlier)


def _repeats(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that equal an earlier row, and for each the first such row."""
    keys = np.ascontiguousarray(inputs).view(f"V{inputs.shape[1]}")[:, 0]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    origin = first[inverse]
    rows = np.flatnonzero(origin != np.arange(len(inputs)))
    return rows, origin[rows]


def _warnings(head: str, rows: np.ndarray, link: str, others: np.ndarray) -> list[str]:
    pairs = zip(rows[:MAX_WARNINGS] + 1, others[:MAX_WARNINGS] + 1, strict=True)
    warnings = [f"{head} {row} {link} {other}" for row, other in pairs]
    if len(rows) > MAX_WARNINGS:
        warnings.append(f"... and {len(rows) - MAX_WARNINGS} more rows like these")
    return warnings
