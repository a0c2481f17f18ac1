# SPDX-License-Identifier: Apache-2.0
"""Augmented forms of puzzles: the interface that loaders and evaluation use.

Form 0 of a puzzle is the puzzle itself. The other forms depend only on (puzzle, index),
so nothing augmented is stored.
"""

import abc
from typing import NamedTuple, Protocol

import numpy as np

_CHUNK = 4096  # rows undone at once


class Visit(NamedTuple):
    """What each row of a training batch shows, and its place in training, `b` each."""

    example: np.ndarray  # row of the set
    puzzle: np.ndarray  # the puzzle that it belongs to
    form: np.ndarray  # which form of that puzzle
    slot: np.ndarray  # 0, 1, ...: its place among the examples of this visit
    position: np.ndarray  # its place in the endless stream of epochs


class Variants(Protocol):
    """The forms of the puzzles of one PuzzleSet."""

    num_forms: np.ndarray  # int64 `p`: forms of each puzzle, form 0 included
    has_ids: bool = False  # form i has form 0's id plus i if true, else the same id

    def visit(
        self, rows: Visit, inputs: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Stored tokens `b m` -> tokens to train on, by default those of `apply`."""
        return self.apply(rows.puzzle, rows.form, inputs, labels)

    @abc.abstractmethod
    def apply(
        self,
        puzzle: np.ndarray,
        index: np.ndarray,
        inputs: np.ndarray,
        labels: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Stored tokens `b m` -> tokens of the form, with no further random draws."""

    @abc.abstractmethod
    def undo(
        self, puzzle: np.ndarray, index: np.ndarray, answers: np.ndarray
    ) -> np.ndarray:
        """Predicted tokens `b m` of a form -> the answer to form 0.

        Equal answers get equal tokens, whatever form they come from.
        """


class SingleForm(Variants):
    """The variants of puzzles without symmetries: each has itself as its only form."""

    def __init__(self, num_puzzles: int) -> None:
        self.num_forms = np.ones(num_puzzles, int)

    def apply(
        self,
        puzzle: np.ndarray,
        index: np.ndarray,
        inputs: np.ndarray,
        labels: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The tokens as they are stored."""
        del puzzle, index
        return inputs, labels

    def undo(
        self, puzzle: np.ndarray, index: np.ndarray, answers: np.ndarray
    ) -> np.ndarray:
        """The answers as they are."""
        del puzzle, index
        return answers


def undone(
    variants: Variants, puzzle: np.ndarray, index: np.ndarray, answers: np.ndarray
) -> np.ndarray:
    """`variants.undo` over any number of rows, some thousands at a time."""
    chunks = [
        variants.undo(
            puzzle[i : i + _CHUNK], index[i : i + _CHUNK], answers[i : i + _CHUNK]
        )
        for i in range(0, len(answers), _CHUNK)
    ]
    return np.concatenate(chunks)
