# SPDX-License-Identifier: Apache-2.0
"""Opens mazes that `data_pipeline.maze_hard.prepare` has stored."""

import pathlib

from ..maze.grid import MazeShape
from ..prepared import PreparedSet, open_puzzles, puzzle_columns
from ..spec import PuzzleSet

NAME = "maze_hard"
VERSION = "1.0.0"
DEFAULT_SHAPE = MazeShape(30)


def prepared_set(shape: MazeShape = DEFAULT_SHAPE) -> PreparedSet:
    """The data set of a size."""
    columns = puzzle_columns(shape.num_cells, "rating")
    config = f"side_{shape.side}"
    return PreparedSet(NAME, VERSION, config, ("train", "test"), columns)


def open_prepared(
    data_dir: str | pathlib.Path, split: str, shape: MazeShape = DEFAULT_SHAPE
) -> PuzzleSet:
    """All mazes of a split, in the order of their source, mapped into memory."""
    return open_puzzles(prepared_set(shape), data_dir, split)
