# SPDX-License-Identifier: Apache-2.0
"""The TFDS builder `maze_hard`; prepares and reads without TensorFlow."""

from typing import Any

import tensorflow_datasets as tfds

from ...maze.grid import LARGEST_SIDE, SMALLEST_SIDE, MazeShape
from ...maze.task import Task
from ..builder import PuzzleBuilder
from ..reading import PreparedSet
from .names import DEFAULT_SHAPE, VERSION, prepared_set

_SHAPES = {
    prepared_set(shape).config: shape
    for shape in map(MazeShape, range(SMALLEST_SIDE, LARGEST_SIDE + 1))
}


class Builder(PuzzleBuilder):
    """Blocks of mazes in the order of their source."""

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in _SHAPES]
    DEFAULT_BUILDER_CONFIG_NAME = prepared_set(DEFAULT_SHAPE).config
    HOMEPAGE = f"https://huggingface.co/datasets/{Task.HUB}"
    TASK = "maze"

    def prepared_set(self) -> PreparedSet:
        """What the chosen size stores."""
        return prepared_set(_SHAPES[self.builder_config.name])

    def sizes(self) -> dict[str, Any]:
        """The keys of the shape."""
        return {"side": _SHAPES[self.builder_config.name].side}
