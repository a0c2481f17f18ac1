# SPDX-License-Identifier: Apache-2.0
"""Turned mazes, solved again: a turned label may not be the turned maze's label."""

import numpy as np

from ..dihedral import COUNT, INVERSE, cell_sources
from ..errors import DataError
from ..spec import PuzzleSet
from ..variants import Variants
from .grid import MazeShape
from .solver import solve


class MazeVariants(Variants):
    """Turned forms: form i is the maze turned by dihedral.turn(.., i).

    The solver finds the label of every form but form 0 when it is first needed. The
    label is then kept.
    """

    def __init__(self, puzzles: PuzzleSet, shape: MazeShape, num_forms: int) -> None:
        num_puzzles = len(puzzles.puzzle_ids)
        if num_puzzles != len(puzzles):
            found = f"{len(puzzles)} examples in {num_puzzles} puzzles"
            raise DataError(f"{found}; expected mazes with one example each")
        if not 1 <= num_forms <= COUNT:
            raise ValueError(f"{num_forms = }; expected 1 to {COUNT}")
        self.num_forms = np.full(num_puzzles, num_forms)
        self._shape = shape
        self._sources = cell_sources(shape.side)
        # Row 8 p + i is form i of puzzle p. Rows never written take no memory.
        self._labels = np.zeros((COUNT * num_puzzles, shape.num_cells), np.uint8)
        self._solved = np.zeros(COUNT * num_puzzles, bool)

    def apply(
        self,
        puzzle: np.ndarray,
        index: np.ndarray,
        inputs: np.ndarray,
        labels: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The turned mazes and their labels, which are the stored ones for form 0."""
        turned = np.take_along_axis(inputs, self._sources[index], axis=1)
        form = COUNT * puzzle + index
        new, row = np.unique(form, return_index=True)
        unsolved = ~self._solved[new] & (new % COUNT > 0)
        new, row = new[unsolved], row[unsolved]
        self._labels[new] = solve(turned[row], self._shape)
        self._solved[new] = True
        return turned, np.where((index > 0)[:, None], self._labels[form], labels)

    def undo(
        self, puzzle: np.ndarray, index: np.ndarray, answers: np.ndarray
    ) -> np.ndarray:
        """The answers turned back."""
        return np.take_along_axis(answers, self._sources[INVERSE[index]], axis=1)
