# SPDX-License-Identifier: Apache-2.0
"""The TFDS builder `sudoku_extreme`; prepares and reads without TensorFlow."""

from typing import Any

import tensorflow_datasets as tfds

from ...sudoku.task import Task
from ..builder import PuzzleBuilder
from ..reading import PreparedSet
from .names import SHAPES, VERSION, prepared_set


class Builder(PuzzleBuilder):
    """Blocks of Sudoku puzzles in the order of their source."""

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in SHAPES]
    HOMEPAGE = f"https://huggingface.co/datasets/{Task.HUB}"
    TASK = "sudoku"

    def prepared_set(self) -> PreparedSet:
        """What the chosen shape stores."""
        return prepared_set(SHAPES[self.builder_config.name])

    def sizes(self) -> dict[str, Any]:
        """The keys of the shape."""
        shape = SHAPES[self.builder_config.name]
        return {"box_rows": shape.box_rows, "box_cols": shape.box_cols}
