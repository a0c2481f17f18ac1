# SPDX-License-Identifier: Apache-2.0
"""The task "nonogram": grids of 5x5 to 10x10 cells with the clues around them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ..drawing import Look
from ..errors import DataError
from ..questions import EvalSet
from ..settings import DataSettings, knob
from ..spec import PuzzleSet, PuzzleSpec
from ..tasks import PuzzleTask
from .csv_file import read_nonogram_csv
from .generator import generate
from .grid import NonogramShape, is_solution
from .lines import LONGEST, SHORTEST
from .text import characters, parse_question
from .variants import NonogramVariants


@dataclasses.dataclass(frozen=True)
class Settings:
    """The section data.nonogram."""

    rows: int = knob(5, "rows of cells, without clues", low=SHORTEST, high=LONGEST)
    cols: int = knob(5, "columns of cells, without clues", low=SHORTEST, high=LONGEST)
    filled_share: tuple[float, float] = knob(
        (0.4, 0.6),
        "the range from which each draw takes its share of filled cells",
        low=0.0,
        high=1.0,
        sources=("generator",),
    )


class Task(PuzzleTask):
    """Any grid whose runs are those of the clues is a valid answer."""

    SOURCES = ("csv", "arrays", "generator")
    CSV_VERSION = 1

    def __init__(self, common: DataSettings, settings: Settings) -> None:
        self.shape = NonogramShape(settings.rows, settings.cols)
        self.NUM_TEST_FORMS = len(self.shape.turns)
        self.MAX_AUGMENTATIONS = self.NUM_TEST_FORMS - 1
        super().__init__(common, settings)

    def spec(self) -> PuzzleSpec:
        """The sizes of the shape."""
        return self.shape.spec

    def generate(self) -> tuple[PuzzleSet, PuzzleSet]:
        """Puzzles with one solution each, none a turned form of another."""
        return generate(
            self.shape,
            (self.common.train_puzzles, self.common.test_puzzles),
            filled_share=self.settings.filled_share,
            seed=self.common.seed,
        )

    def read_csv(self, path: str | Path) -> PuzzleSet:
        """All puzzles, checked, with their rating."""
        return read_nonogram_csv(path, self.shape)

    def parse(self, question: Any) -> np.ndarray:
        """The clues as text: those of the rows, a bar, those of the columns."""
        if not isinstance(question, str):
            kind = type(question).__name__
            raise DataError(f"the nonogram: {kind}; text expected")
        try:
            return parse_question(question, self.shape)
        except DataError as error:
            raise DataError(f"the nonogram: {error}") from None

    def shown(self, answers: np.ndarray, question: np.ndarray) -> np.ndarray:
        """The clues of the question, and the cells of the answers."""
        rectangle = np.zeros(self.spec().grid_shape, bool)
        rectangle[self.shape.top :, self.shape.left :] = True
        return np.where(rectangle.ravel(), answers, question)

    def is_whole(self, line: str) -> bool:
        """A question has no line ends."""
        return "|" in line

    def look(self) -> Look:
        """The entries of the clues (10 as X), `#` filled, `.` empty, `?` unknown."""
        entries = [*map(str, range(LONGEST)), "X"]
        return Look((" ", "?", ".", "#", " ", *entries))

    def grid(self, tokens: np.ndarray) -> np.ndarray:
        """The characters of the cells without the clues, `r c`."""
        return characters(tokens, self.shape)

    def written(self, tokens: np.ndarray, question: Any) -> str:
        """The rows of the cells as lines of `#` and `.`."""
        del question
        return "\n".join(map("".join, self.grid(tokens)))

    def variants(self, puzzles: PuzzleSet, num_forms: int) -> NonogramVariants:
        """Turned forms."""
        return NonogramVariants(self.shape, len(puzzles.puzzle_ids), num_forms)

    def eval_set(self, puzzles: PuzzleSet) -> EvalSet:
        """Answers that have the runs of the clues are valid."""

        def is_valid(inputs: np.ndarray, answers: np.ndarray) -> np.ndarray:
            return is_solution(inputs, answers, self.shape)

        return super().eval_set(puzzles)._replace(is_valid=is_valid)
