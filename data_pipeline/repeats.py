# SPDX-License-Identifier: Apache-2.0
"""Warnings about puzzles that occur twice in a file, or in both files."""

import pathlib

import numpy as np

from .hashing import random_bits
from .spec import PuzzleSet

MAX_WARNINGS = 10
CHUNK = 2**14  # rows hashed at once, to stay in the cache


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
    rows, earlier = _repeats(train.inputs, test.inputs)
    shared = (rows >= len(train)) & (earlier < len(train))
    rows, earlier = rows[shared] - len(train), earlier[shared]
    return _warnings(f"overlap: {test_path} row", rows, f"is {train_path} row", earlier)


def _repeats(*parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that equal an earlier row, and for each the first such row.

    Rows are counted through the parts `n m`, one after the other. Only rows with equal
    hashes are compared, which are few in a large file.
    """
    hashes = np.concatenate([_hashes(part) for part in parts])
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    number = np.unique(order[np.concatenate([same, same + 1])])
    starts = np.cumsum([0, *map(len, parts)])
    places = np.split(number, np.searchsorted(number, starts[1:-1]))
    triples = zip(parts, places, starts, strict=False)
    inputs = np.concatenate([part[place - start] for part, place, start in triples])
    keys = np.ascontiguousarray(inputs).view(f"V{inputs.shape[1]}")[:, 0]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    origin = number[first[inverse]]
    repeats = origin != number
    return number[repeats], origin[repeats]


def _hashes(inputs: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each row: uint8 `n m` -> uint64 `n`."""
    found = [np.zeros(0, np.uint64)]
    for start in range(0, len(inputs), CHUNK):
        rows = inputs[start : start + CHUNK]
        words = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8))).view(np.uint64)
        found.append(random_bits(*words.T))
    return np.concatenate(found)


def _warnings(head: str, rows: np.ndarray, link: str, others: np.ndarray) -> list[str]:
    pairs = zip(rows[:MAX_WARNINGS] + 1, others[:MAX_WARNINGS] + 1, strict=True)
    warnings = [f"{head} {row} {link} {other}" for row, other in pairs]
    if len(rows) > MAX_WARNINGS:
        warnings.append(f"... and {len(rows) - MAX_WARNINGS} more rows like these")
    return warnings
