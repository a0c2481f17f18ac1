# SPDX-License-Identifier: Apache-2.0
"""The task "maze": shortest paths in square mazes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ..dihedral import COUNT
from ..drawing import Look
from ..errors import DataError
from ..prepared.maze_hard.names import prepared_set
from ..prepared.reading import PreparedSet
from ..questions import EvalSet
from ..settings import DataSettings, knob
from ..spec import PuzzleSet, PuzzleSpec
from ..tasks import PuzzleTask
from .csv_file import read_maze_csv
from .generator import generate
from .grid import CHARACTERS, COLOURS, LARGEST_SIDE, SMALLEST_SIDE, MazeShape
from .solver import is_shortest_path, solve
from .text import characters, parse_maze
from .variants import MazeVariants


@dataclasses.dataclass(frozen=True)
class Settings:
    """The section data.maze."""

    side: int = knob(30, "rows and columns", low=SMALLEST_SIDE, high=LARGEST_SIDE)
    min_moves: int = knob(
        109,
        "least length of the shortest paths",
        low=1,
        high=2**12,
        sources=("generator",),
    )
    wall_share: tuple[float, float] = knob(
        (0.2, 0.5),
        "the range from which each maze draws its share of walls",
        low=0.0,
        high=1.0,
        sources=("generator",),
    )


class Task(PuzzleTask):
    """An answer may be another shortest path than the label."""

    SOURCES = ("csv", "arrays", "generator", "hub", "prepared")
    CSV_VERSION = 1
    HUB = "sapientinc/maze-30x30-hard-1k"
    MAX_AUGMENTATIONS = COUNT - 1
    NUM_TEST_FORMS = COUNT

    def __init__(self, common: DataSettings, settings: Settings) -> None:
        super().__init__(common, settings)
        self.shape = MazeShape(settings.side)

    def spec(self) -> PuzzleSpec:
        """The sizes of the shape."""
        return self.shape.spec

    def generate(self) -> tuple[PuzzleSet, PuzzleSet]:
        """Mazes with long shortest paths, none of them in both sets."""
        return generate(
            self.shape,
            (self.common.train_puzzles, self.common.test_puzzles),
            min_moves=self.settings.min_moves,
            wall_share=self.settings.wall_share,
            seed=self.common.seed,
        )

    def read_csv(self, path: str | Path) -> PuzzleSet:
        """All mazes, checked, with their rating."""
        return read_maze_csv(path, self.shape)

    def prepared(self) -> PreparedSet:
        """The prepared data set maze_hard for this side."""
        return prepared_set(self.shape)

    def parse(self, question: Any) -> np.ndarray:
        """Text with one character per cell, with or without line ends."""
        if not isinstance(question, str):
            raise DataError(f"the maze: {type(question).__name__}; text expected")
        return parse_maze(question, self.shape)

    def look(self) -> Look:
        """The characters of mazes as text."""
        return Look(("?", *CHARACTERS), colours=COLOURS)

    def grid(self, tokens: np.ndarray) -> np.ndarray:
        """The characters of the cells, `r c`."""
        return characters(tokens, self.shape)

    def written(self, tokens: np.ndarray, question: Any) -> Any:
        """Text, which is split into lines if the question is."""
        lines = map("".join, self.grid(tokens))
        return ("\n" if "\n" in question else "").join(lines)

    def variants(self, puzzles: PuzzleSet, num_forms: int) -> MazeVariants:
        """Turned forms, solved again."""
        return MazeVariants(puzzles, self.shape, num_forms)

    def eval_set(self, puzzles: PuzzleSet) -> EvalSet:
        """Answers that are a shortest path are valid."""

        def is_valid(inputs: np.ndarray, answers: np.ndarray) -> np.ndarray:
            return is_shortest_path(inputs, answers, self.shape)

        return super().eval_set(puzzles)._replace(is_valid=is_valid)

    def warnings(self, train: PuzzleSet) -> list[str]:
        """Warn of labels off the rule: they contradict the labels of turned mazes."""
        if not self.common.num_augmentations:
            return []
        off_rule = (solve(train.inputs, self.shape) != train.labels).any(1).sum()
        if not off_rule:
            return []
        return [
            f"{off_rule} of {len(train)} training labels do not follow the published "
            "rule; those of turned mazes will, so the labels contradict each other"
        ]
