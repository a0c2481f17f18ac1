# SPDX-License-Identifier: Apache-2.0
"""The task "sudoku": any grid of 2x2, 2x3 or 3x3 boxes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ..drawing import Look
from ..errors import DataError
from ..prepared.reading import PreparedSet
from ..prepared.sudoku_extreme.names import prepared_set
from ..questions import EvalSet
from ..settings import DataSettings, knob
from ..spec import PuzzleSet, PuzzleSpec
from ..tasks import PuzzleTask
from ..written import as_numbers
from .csv_file import read_sudoku_csv
from .generator import generate
from .grid import BLANK_TOKEN, SudokuShape, decode
from .symmetries import SudokuVariants
from .text import is_solution, parse_puzzle


@dataclasses.dataclass(frozen=True)
class Settings:
    """The section data.sudoku."""

    box_rows: int = knob(
        3, "a box has box_rows x box_cols cells: 2x2, 2x3, 3x3", low=2, high=3
    )
    box_cols: int = knob(3, "see box_rows", low=2, high=3)
    clues: tuple[int, int] = knob(
        (0, 0), "fewest and most clues; (0, 0): minimal", low=0, sources=("generator",)
    )


class Task(PuzzleTask):
    """Every puzzle has one solution, so the label is the only valid answer."""

    SOURCES = ("csv", "arrays", "generator", "hub", "prepared")
    CSV_VERSION = 1
    HUB = "sapientinc/sudoku-extreme"
    MAX_AUGMENTATIONS = None
    NUM_TEST_FORMS = 1_001

    def __init__(self, common: DataSettings, settings: Settings) -> None:
        super().__init__(common, settings)
        self.shape = SudokuShape(settings.box_rows, settings.box_cols)
        if self.shape == SudokuShape(3, 2):
            raise DataError(
                "data.sudoku.box_rows x data.sudoku.box_cols = 3x2; expected 2x2, 2x3 "
                "or 3x3"
            )

    def spec(self) -> PuzzleSpec:
        """The sizes of the shape."""
        return self.shape.spec

    def generate(self) -> tuple[PuzzleSet, PuzzleSet]:
        """Puzzles with one solution each, none a symmetric variant of another."""
        counts = self.common.train_puzzles, self.common.test_puzzles
        clues, seed = self.settings.clues, self.common.seed
        return generate(self.shape, counts, clues=clues, seed=seed)

    def read_csv(self, path: str | Path) -> PuzzleSet:
        """All puzzles, checked, with rating and number of clues."""
        return read_sudoku_csv(path, self.shape)

    def prepared(self) -> PreparedSet:
        """The prepared data set sudoku_extreme for this shape."""
        return prepared_set(self.shape)

    def parse(self, question: Any) -> np.ndarray:
        """Text with `.` or 0 for blanks, or rows of digits with 0 for blanks."""
        if not isinstance(question, str):
            digits = as_numbers(question, self.shape.spec.grid_shape, self.shape.side)
            question = "".join(map(str, digits.ravel()))
        return parse_puzzle("".join(question.split()), self.shape)

    def look(self) -> Look:
        """Digits, in boxes."""
        digits = map(str, range(1, 1 + self.shape.side))
        return Look(("?", ".", *digits), (self.shape.box_rows, self.shape.box_cols))

    def grid(self, tokens: np.ndarray) -> np.ndarray:
        """The digits, with 0 for a blank, `r c`."""
        digits = np.maximum(tokens.astype(int) - BLANK_TOKEN, 0)
        return digits.reshape(self.shape.spec.grid_shape)

    def written(self, tokens: np.ndarray, question: Any) -> Any:
        """Text if the question is text, else rows of digits."""
        if isinstance(question, str):
            return decode(tokens)
        return super().written(tokens, question)

    def pose(self, inputs: np.ndarray, name: str | None = None) -> EvalSet:
        """Answers without a label are judged by the rules."""

        def is_valid(inputs: np.ndarray, answers: np.ndarray) -> np.ndarray:
            pairs = zip(answers, inputs, strict=True)
            return np.array([is_solution(*pair, self.shape) for pair in pairs])

        return super().pose(inputs, name)._replace(is_valid=is_valid)

    def variants(self, puzzles: PuzzleSet, num_forms: int) -> SudokuVariants:
        """Symmetric forms, drawn from data.seed."""
        count, seed = len(puzzles.puzzle_ids), self.common.seed
        return SudokuVariants(self.shape, seed, count, num_forms)
