# SPDX-License-Identifier: Apache-2.0
"""Turned nonograms: the clues move and are reversed with the rows and columns."""

import numpy as np

from ..dihedral import INVERSE, turn
from ..hashing import random_bits
from ..spec import PAD_ID
from ..variants import Variants
from .grid import NO_ENTRY, NonogramShape

_WORDS = 2  # of 64 bits, which hold a grid of up to 10x10 cells


class NonogramVariants(Variants):
    """Turned forms: form i is the nonogram turned by shape.turns[i]."""

    def __init__(self, shape: NonogramShape, num_puzzles: int, num_forms: int) -> None:
        most = len(shape.turns)
        if not 1 <= num_forms <= most:
            raise ValueError(f"{num_forms = }; expected 1 to {most}")
        self.num_forms = np.full(num_puzzles, num_forms)
        self._shape = shape
        self._sources = np.stack([_sources(shape, t) for t in shape.turns])
        back = [shape.turns.index(INVERSE[t]) for t in shape.turns]
        self._back = self._sources[back]
        cells = np.zeros(shape.spec.grid_shape, bool)
        cells[shape.top :, shape.left :] = True
        self._is_cell = cells.ravel()

    def apply(
        self,
        puzzle: np.ndarray,
        index: np.ndarray,
        inputs: np.ndarray,
        labels: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The turned nonograms, their clues aligned again, and their turned labels."""
        del puzzle
        sources = self._sources[index]
        turned = np.take_along_axis(inputs, sources, axis=1)
        aligned = _aligned(turned, self._shape)
        return aligned, np.take_along_axis(labels, sources, axis=1)

    def undo(
        self, puzzle: np.ndarray, index: np.ndarray, answers: np.ndarray
    ) -> np.ndarray:
        """The cells of the answers turned back; PAD where the clues are."""
        del puzzle
        back = np.take_along_axis(answers, self._back[index], axis=1)
        return np.where(self._is_cell, back, np.array(PAD_ID, back.dtype))


def classes(filled: np.ndarray, shape: NonogramShape) -> np.ndarray:
    """A hash that exactly the turned forms of a solution share, bool `n r c` -> `n`.

    If two other solutions ever had the same hash, one of them would count as a
    repetition, which loses a puzzle and does no other harm.
    """
    total = np.zeros(len(filled), np.uint64)
    for transform in shape.turns:
        cells = turn(filled, transform).reshape(len(filled), -1)
        octets = np.packbits(cells, axis=1, bitorder="little")
        octets = np.pad(octets, ((0, 0), (0, 8 * _WORDS - octets.shape[1])))
        total += random_bits(*octets.view("<u8").T)
    return random_bits(total)


def _sources(shape: NonogramShape, transform: int) -> np.ndarray:
    """Which token the turn moves to each place, `m`, before clues are aligned."""
    tokens = np.arange(shape.spec.num_cells).reshape(shape.spec.grid_shape)
    top, left = shape.top, shape.left
    result = tokens.copy()
    result[top:, left:] = turn(tokens[top:, left:], transform)
    # The clues turn like the cells. Those that would land on the right or below are put
    # on the other side, in the same order.
    on_left = turn(tokens[top:, :left], transform)
    above = turn(tokens[:top, left:], transform)
    if len(on_left) != shape.rows:  # rows have become columns
        on_left, above = above, on_left
    result[top:, :left], result[:top, left:] = on_left, above
    return result.ravel()


def _aligned(tokens: np.ndarray, shape: NonogramShape) -> np.ndarray:
    """Move the entries of each clue next to the cells, in place."""
    grids = tokens.reshape(-1, *shape.spec.grid_shape)
    sides = (
        (grids[:, shape.top :, : shape.left], 2),
        (grids[:, : shape.top, shape.left :], 1),
    )
    for clues, axis in sides:
        order = (clues != NO_ENTRY).argsort(axis, kind="stable")
        clues[...] = np.take_along_axis(clues, order, axis)
    return grids.reshape(len(grids), -1)
