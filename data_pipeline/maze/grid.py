# SPDX-License-Identifier: Apache-2.0
"""Square mazes: characters, tokens, sizes.

Tokens: 0 PAD, then `#` wall, space free, `S` start, `G` goal, `o` path.
"""

import dataclasses

import numpy as np

from ..errors import DataError
from ..spec import PAD_ID, PuzzleSpec

CHARACTERS = "# SGo"
# By token: unknown, wall, free, start, goal, path.
COLOURS = ("#999999", "#333333", "#f5f5f5", "#009e73", "#d55e00", "#56b4e9")
WALL, FREE, START, GOAL, PATH = range(1, 6)
SMALLEST_SIDE, LARGEST_SIDE = 2, 62  # a row and its two margins are bits of one word


@dataclasses.dataclass(frozen=True)
class MazeShape:
    """A square of `side` x `side` cells."""

    side: int

    def __post_init__(self) -> None:
        if not SMALLEST_SIDE <= self.side <= LARGEST_SIDE:
            expected = f"expected {SMALLEST_SIDE} to {LARGEST_SIDE}"
            raise DataError(f"data.maze.side = {self.side}; {expected}")

    @property
    def num_cells(self) -> int:
        """Cells of the grid."""
        return self.side**2

    @property
    def spec(self) -> PuzzleSpec:
        """The sizes for the model. All mazes have the blank puzzle id.

        The tokens are PAD and the characters. Free cells must be filled in: each stays
        free or is on the path.
        """
        grid_shape = (self.side, self.side)
        return PuzzleSpec(1 + len(CHARACTERS), grid_shape, blank=FREE)


def encode(text: str) -> np.ndarray:
    """Characters (already checked) -> uint8 tokens `m`."""
    table = bytearray(256)
    for token, character in enumerate(CHARACTERS, PAD_ID + 1):
        table[ord(character)] = token
    return np.frombuffer(text.encode("ascii").translate(table), np.uint8)
