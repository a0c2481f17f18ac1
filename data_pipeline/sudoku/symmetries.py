# SPDX-License-Identifier: Apache-2.0
"""Sudoku symmetries: drawn from (seed, puzzle, index), applied, and undone."""

import dataclasses

import numpy as np

from ..hashing import random_below, random_permutations
from ..variants import Variants
from .grid import SudokuShape

# Keys of the independent draws that make one symmetry.
_BANDS, _ROWS, _STACKS, _COLS, _DIGITS, _TRANSPOSE = range(6)


@dataclasses.dataclass(frozen=True)
class Symmetry:
    """A batch of symmetries: cells move, then tokens are renamed."""

    cell_source: np.ndarray  # `b m`: cell t of the variant comes from cell_source[t]
    token_map: np.ndarray  # uint8 `b v`: new name of every token

    def apply(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens `b m` of the original -> tokens `b m` of the variant."""
        row = np.arange(len(tokens))[:, None]
        num_tokens = self.token_map.shape[1]
        moved = tokens.ravel().take(self.cell_source + row * tokens.shape[1])
        return self.token_map.ravel().take(moved + row * num_tokens)

    def invert(self) -> "Symmetry":
        """The symmetry that maps the variant back to the original."""
        return Symmetry(
            np.argsort(self.cell_source, axis=1),
            np.argsort(self.token_map, axis=1).astype(np.uint8),
        )


def sample_symmetries(
    shape: SudokuShape, seed: int, puzzle: np.ndarray, index: np.ndarray
) -> Symmetry:
    """The `index`-th symmetry of each puzzle, `b` each; index 0 is the identity.

    A symmetry permutes bands, rows within bands, stacks, columns within stacks and
    digits. With square boxes it also transposes the grid with probability 1/2.
    """
    r, c, side = shape.box_rows, shape.box_cols, shape.side
    given = (index == 0)[:, None]

    def lines(outer: int, inner: int, num_blocks: int, width: int) -> np.ndarray:
        """Source of each row (or column): `b side`."""
        blocks = random_permutations(num_blocks, seed, puzzle, index, outer)
        keys = (puzzle[:, None], index[:, None], inner, np.arange(num_blocks))
        within = random_permutations(width, seed, *keys)
        drawn = (blocks[..., None] * width + within).reshape(-1, side)
        return np.where(given, np.arange(side), drawn)

    rows, cols = lines(_BANDS, _ROWS, c, r), lines(_STACKS, _COLS, r, c)
    source = rows[:, :, None] * side + cols[:, None, :]
    if r == c:
        coin = random_below(2, seed, puzzle, index, _TRANSPOSE)
        turned = ((coin == 1) & (index != 0))[:, None, None]
        source = np.where(turned, source.swapaxes(1, 2), source)
    drawn = random_permutations(side, seed, puzzle, index, _DIGITS)
    digits = np.where(given, np.arange(side), drawn) + 2
    fixed = np.broadcast_to(np.arange(2), (len(digits), 2))  # PAD and blank
    token_map = np.concatenate([fixed, digits], axis=1).astype(np.uint8)
    return Symmetry(source.reshape(-1, side**2), token_map)


class SudokuVariants(Variants):
    """Symmetric forms: form i of a puzzle is its i-th symmetry."""

    def __init__(
        self, shape: SudokuShape, seed: int, num_puzzles: int, num_forms: int
    ) -> None:
        self._shape, self._seed = shape, seed
        self.num_forms = np.full(num_puzzles, num_forms)

    def apply(
        self,
        puzzle: np.ndarray,
        index: np.ndarray,
        inputs: np.ndarray,
        labels: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Question and answer, transformed by the same symmetry."""
        symmetry = sample_symmetries(self._shape, self._seed, puzzle, index)
        return symmetry.apply(inputs), symmetry.apply(labels)

    def undo(
        self, puzzle: np.ndarray, index: np.ndarray, answers: np.ndarray
    ) -> np.ndarray:
        """The answers, transformed back."""
        symmetry = sample_symmetries(self._shape, self._seed, puzzle, index)
        return symmetry.invert().apply(answers)
