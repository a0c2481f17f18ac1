# SPDX-License-Identifier: Apache-2.0
"""Futoshiki 4x4: a Latin square with signs between neighbours, on a grid of 7x7.

Digits are at even rows and columns. The sign between two neighbouring digits is `<` if
the left or upper one is smaller. Tokens: 0 PAD (where no sign can be), 1 blank, 2 to 5
the digits, 6 a sign that is not shown, 7 `<`, 8 `>`.
"""

import dataclasses
import functools
import itertools

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.hashing import random_below, random_permutations
from data_pipeline.questions import EvalSet
from data_pipeline.settings import knob
from data_pipeline.spec import PuzzleSet, PuzzleSpec
from data_pipeline.tasks import PuzzleTask

SIDE, GRID = 4, 7
BLANK, FIRST_DIGIT, HIDDEN, LESS, MORE = 1, 2, 6, 7, 8

_LINE = np.arange(GRID) % 2  # 0 at digits, 1 between them
IS_DIGIT = (_LINE[:, None] + _LINE == 0).ravel()
IS_SIGN = (_LINE[:, None] + _LINE == 1).ravel()


@dataclasses.dataclass(frozen=True)
class Settings:
    """The section data.futoshiki."""

    num_signs: int = knob(
        8, "signs that a puzzle shows", low=0, high=24, sources=("generator",)
    )


class Task(PuzzleTask):
    """Puzzles with one solution and as few digits as their signs allow."""

    SOURCES = ("arrays", "generator")

    def spec(self) -> PuzzleSpec:
        """The sizes of the grid with signs."""
        return PuzzleSpec(vocab_size=9, grid_shape=(GRID, GRID), blank=BLANK)

    def generate(self) -> tuple[PuzzleSet, PuzzleSet]:
        """Different puzzles; draw k is a function of the seed and k."""
        num_train = self.common.train_puzzles
        count = num_train + self.common.test_puzzles
        found: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
        for k in range(100 * count):
            question, answer = self._draw(k)
            found.setdefault(question.tobytes(), (question, answer))
            if len(found) == count:
                inputs, labels = map(np.stack, zip(*found.values(), strict=True))
                puzzles = PuzzleSet.of_single_examples(inputs, labels)
                train, test = np.split(np.arange(count), [num_train])
                return puzzles.subset(train), puzzles.subset(test)
        raise DataError(
            f"data.futoshiki.num_signs = {self.settings.num_signs}: only {len(found)} "
            f"different puzzles found in {100 * count} draws; {count} are needed"
        )

    def eval_set(self, puzzles: PuzzleSet) -> EvalSet:
        """Answers are valid if the digits obey the rules and keep what is shown."""
        return super().eval_set(puzzles)._replace(is_valid=is_valid)

    def _draw(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """One puzzle and its solution; digits are hidden while this stays unique."""
        seed, squares = self.common.seed, all_solved()
        solved = squares[random_below(len(squares), seed, k, 0)]
        signs, digits = np.flatnonzero(IS_SIGN), np.flatnonzero(IS_DIGIT)
        shown = ~IS_SIGN
        shown[signs[random_permutations(24, seed, k, 1)][: self.settings.num_signs]] = 1
        for cell in digits[random_permutations(16, seed, k, 2)]:
            shown[cell] = False
            agree = (squares[:, shown] == solved[shown]).all(1)
            shown[cell] = agree.sum() > 1
        question = np.where(shown, solved, np.where(IS_SIGN, HIDDEN, BLANK))
        question = question.astype(np.uint8)
        return question, np.where(IS_DIGIT, solved, question)


def is_valid(inputs: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Which answers `n m` solve their questions `n m`; signs in answers are ignored."""
    pairs = zip(inputs, answers, strict=True)
    return np.array([_solves(question, answer) for question, answer in pairs])


def _solves(question: np.ndarray, answer: np.ndarray) -> bool:
    cells = np.where(IS_DIGIT, answer, question)
    kept = (cells == question) | (question == BLANK)
    fits = (all_solved() == cells) | (cells == HIDDEN)
    return bool(kept.all() and fits.all(1).any())


@functools.cache
def all_solved() -> np.ndarray:
    """Every Latin square with all of its signs: tokens uint8 `576 m`."""
    rows = np.array(list(itertools.permutations(range(SIDE))))
    squares = rows[np.indices((len(rows),) * SIDE).reshape(SIDE, -1).T]
    squares = squares[((1 << squares).sum(1) == 15).all(1)]  # 1 + 2 + 4 + 8: all digits
    grids = np.zeros((len(squares), GRID, GRID), np.uint8)
    grids[:, ::2, ::2] = squares + FIRST_DIGIT
    grids[:, ::2, 1::2] = np.where(np.diff(squares, axis=2) > 0, LESS, MORE)
    grids[:, 1::2, ::2] = np.where(np.diff(squares, axis=1) > 0, LESS, MORE)
    return grids.reshape(len(squares), -1)
