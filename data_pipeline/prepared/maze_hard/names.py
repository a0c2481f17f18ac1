# SPDX-License-Identifier: Apache-2.0
"""The configs, splits and columns of the prepared data set maze_hard."""

from ...maze.grid import MazeShape
from ..reading import PreparedSet, puzzle_columns

NAME = "maze_hard"
VERSION = "1.0.0"
DEFAULT_SHAPE = MazeShape(30)


def prepared_set(shape: MazeShape = DEFAULT_SHAPE) -> PreparedSet:
    """The data set of a size."""
    columns = puzzle_columns(shape.num_cells, "rating")
    config = f"side_{shape.side}"
    return PreparedSet(NAME, VERSION, config, ("train", "test"), columns)
