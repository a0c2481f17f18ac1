# SPDX-License-Identifier: Apache-2.0
"""New nonograms with exactly one solution, from a seed.

Draw k of a split depends only on the seed, the split and k. It consists of a share of
filled cells and of the cells, which are filled independently. A draw is accepted if its
clues have no other solution.

No two puzzles are turned forms of each other. A hash of the solution, which its turned
forms share, decides which split may have it, so that no test puzzle is a training
puzzle of any seed.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..hashing import random_bits
from ..spec import PuzzleSet
from .grid import NonogramShape, clues_of
from .solver import solve
from .variants import classes

CHUNK = 512  # draws at once, for speed; the result does not depend on it
MAX_DRAWS = 2**12  # per puzzle on average, before a request counts as impossible
PATIENCE = 2**16  # draws that are always made

_TRAIN, _TEST = range(2)
_SHARE, _CELLS = range(2)


class _Puzzles(NamedTuple):
    """Arrays with one row per puzzle, or the rows of a single puzzle."""

    filled: np.ndarray  # bool `n r c`
    rating: np.ndarray  # int64 `n`


def generate(
    shape: NonogramShape,
    counts: tuple[int, int],
    *,
    filled_share: tuple[float, float],
    seed: int,
) -> tuple[PuzzleSet, PuzzleSet]:
    """A training and a test set of `counts` nonograms, with their ratings.

    Cells are filled with a probability that is drawn uniformly from the range
    `filled_share` for each draw. Raises DataError if `filled_share` is no range, or if
    hardly any draw gives another puzzle.
    """
    low, high = filled_share
    if low > high:
        raise DataError(
            f"data.nonogram.filled_share = {filled_share}; expected lowest <= highest"
        )
    train, test = (
        _split(shape, count, split, filled_share, seed)
        for split, count in zip((_TRAIN, _TEST), counts, strict=True)
    )
    return train, test


def _split(
    shape: NonogramShape,
    count: int,
    split: int,
    filled_share: tuple[float, float],
    seed: int,
) -> PuzzleSet:
    """The first `count` accepted draws of a split that differ."""
    found: dict[int, _Puzzles] = {}  # by the class of the solution
    for draws, (drawn, names) in _draws(shape, split, filled_share, seed):
        for name, *row in zip(names.tolist(), *drawn, strict=True):
            if len(found) < count:
                found.setdefault(name, _Puzzles(*row))
        if len(found) == count:
            break
        if draws >= max(PATIENCE, MAX_DRAWS * (1 + len(found))):
            key = ("data.train_puzzles", "data.test_puzzles")[split]
            raise DataError(
                f"{key} = {count}: only {len(found)} different puzzles of "
                f"{shape.rows}x{shape.cols} with data.nonogram.filled_share = "
                f"{filled_share} found in {draws:,} draws; ask for fewer puzzles or "
                "another share"
            )
    filled, rating = map(np.stack, zip(*found.values(), strict=True))
    inputs = shape.questions(*clues_of(filled))
    return PuzzleSet.of_single_examples(inputs, shape.labels(filled), rating=rating)


def _draws(
    shape: NonogramShape, split: int, filled_share: tuple[float, float], seed: int
) -> Iterator[tuple[int, tuple[_Puzzles, np.ndarray]]]:
    """Endlessly: the number of draws so far, the accepted new ones, their classes."""
    draws = 0
    while True:
        index = np.arange(draws, draws + CHUNK)
        filled = _cells(shape, split, index, filled_share, seed)
        names = classes(filled, shape)
        own = names % 2 == split
        filled, names = filled[own], names[own]
        solved = solve(*clues_of(filled), shape)
        unique = solved.num_solutions == 1
        puzzles = _Puzzles(filled[unique], solved.guesses[unique])
        draws += CHUNK
        yield draws, (puzzles, names[unique])


def _cells(
    shape: NonogramShape,
    split: int,
    index: np.ndarray,
    filled_share: tuple[float, float],
    seed: int,
) -> np.ndarray:
    """One grid per draw, bool `n r c`."""
    low, high = filled_share
    share = low + (high - low) * _uniform(seed, split, index, _SHARE)
    cell = np.arange(shape.rows * shape.cols)
    noise = _uniform(seed, split, index[:, None], _CELLS, cell)
    return (noise < share[:, None]).reshape(-1, shape.rows, shape.cols)


def _uniform(*keys: int | np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), multiples of 2**-53."""
    return (random_bits(*keys) >> np.uint64(11)) * 2.0**-53
