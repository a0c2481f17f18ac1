# SPDX-License-Identifier: Apache-2.0
"""PuzzleSpec: the sizes a model needs. PuzzleSet: puzzles in memory."""

import dataclasses
import hashlib
from typing import Any

import numpy as np

PAD_ID = 0  # token of cells outside the grid; as a label it means no label
BLANK_PUZZLE_ID = 0  # the puzzle id of tasks that do not tell puzzles apart


@dataclasses.dataclass(frozen=True)
class PuzzleSpec:
    """The sizes that connect data and model."""

    vocab_size: int
    grid_shape: tuple[int, int]  # rows, columns
    num_puzzles: int = 1  # rows of the puzzle table; 1: the blank id for all puzzles
    blank: int | None = None  # token of an unknown cell; the others are given
    box_shape: tuple[int, int] | None = None  # rows, columns of a box (Sudoku)

    @property
    def num_cells(self) -> int:
        """Cells of the grid."""
        return self.grid_shape[0] * self.grid_shape[1]

    @property
    def sizes(self) -> dict[str, Any]:
        """The sizes as JSON values, for building a model.

        `blank` is -1 for none, and `box_shape` is absent if the grid has no boxes.
        """
        boxes = {"box_shape": list(self.box_shape)} if self.box_shape else {}
        return {
            "vocab_size": self.vocab_size,
            "grid_shape": list(self.grid_shape),
            "num_puzzles": self.num_puzzles,
            "blank": -1 if self.blank is None else self.blank,
            **boxes,
        }


@dataclasses.dataclass(frozen=True)
class PuzzleSet:
    """Examples, which form puzzles, which form groups.

    A group holds all stored augmentations of one original.
    """

    inputs: np.ndarray  # uint8 `n m` tokens
    labels: np.ndarray  # uint8 `n m` tokens, PAD_ID = no label
    puzzle_starts: np.ndarray  # int64 `p + 1`: first example of each puzzle, then n
    group_starts: np.ndarray  # int64 `g + 1`: first puzzle of each group, then p
    puzzle_ids: np.ndarray  # int32 `p`: row of the puzzle table
    attributes: dict[str, np.ndarray]  # `n` each, for reports: rating, clues

    @classmethod
    def of_single_examples(
        cls, inputs: np.ndarray, labels: np.ndarray, **attributes: np.ndarray
    ) -> "PuzzleSet":
        """Make every example its own puzzle and group; all have the blank id."""
        count = len(inputs)
        starts = np.arange(count + 1)
        ids = np.full(count, BLANK_PUZZLE_ID, np.int32)
        return cls(inputs, labels, starts, starts, ids, attributes)

    def __len__(self) -> int:
        return len(self.inputs)

    def group_of_example(self) -> np.ndarray:
        """Which group each example belongs to, `n`."""
        group = np.repeat(
            np.arange(len(self.group_starts) - 1), np.diff(self.group_starts)
        )
        return np.repeat(group, np.diff(self.puzzle_starts))

    def subset(self, groups: np.ndarray) -> "PuzzleSet":
        """The chosen groups, in the order given."""
        puzzles = _expand(self.group_starts, groups)
        rows = _expand(self.puzzle_starts, puzzles)
        return PuzzleSet(
            self.inputs[rows],
            self.labels[rows],
            _starts(np.diff(self.puzzle_starts)[puzzles]),
            _starts(np.diff(self.group_starts)[groups]),
            self.puzzle_ids[puzzles],
            {name: values[rows] for name, values in self.attributes.items()},
        )

    def first(self, count: int) -> "PuzzleSet":
        """The first `count` groups, or all if `count` is 0."""
        groups = np.arange(len(self.group_starts) - 1)
        return self.subset(groups[:count]) if count else self

    def digests(self) -> dict[str, str]:
        """SHA-256 of every array (dtype, shape, bytes), to name a data set exactly."""
        arrays = {
            name: getattr(self, name)
            for name in ("inputs", "labels", "puzzle_starts", "group_starts")
        }
        return {
            name: array_digest(array)
            for name, array in (arrays | {"puzzle_ids": self.puzzle_ids}).items()
        }

    def digest_line(self) -> str:
        """The digests as one line of a report."""
        return "SHA-256: " + ", ".join(f"{k} {v}" for k, v in self.digests().items())


def array_digest(array: np.ndarray) -> str:
    """SHA-256 over dtype, shape and little-endian C-order bytes."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    head = f"{array.dtype.str}{array.shape}".encode()
    sha = hashlib.sha256(head)
    sha.update(array.data)
    return sha.hexdigest()


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])


def _expand(starts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """All positions inside the chosen ranges, one range after the other."""
    lengths = np.diff(starts)[chosen]
    within = np.arange(lengths.sum()) - np.repeat(_starts(lengths)[:-1], lengths)
    return np.repeat(starts[chosen], lengths) + within
