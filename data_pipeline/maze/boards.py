# SPDX-License-Identifier: Apache-2.0
"""Sets of cells of many mazes at once, as bits; breadth-first levels of them.

A board is `side + 2, n`: for each of n mazes a word per row, with bit c + 1 for column
c. The margins are zero, so that nothing leaves the grid.
"""

from collections.abc import Iterator

import numpy as np


def word_type(side: int) -> np.dtype:
    """The smallest words that hold a row and its margins: half the size, half the time.

    Little-endian, for the bytes of pack and unpack.
    """
    return np.dtype("<u4" if side <= 30 else "<u8")


def pack(cells: np.ndarray, side: int) -> np.ndarray:
    """Cells, bool `n m` -> a board."""
    word = word_type(side)
    bits = np.zeros((len(cells), side + 2, 8 * word.itemsize), bool)
    bits[:, 1:-1, 1 : side + 1] = cells.reshape(-1, side, side)
    words = np.packbits(bits, axis=-1, bitorder="little").view(word)[..., 0]
    return np.ascontiguousarray(words.T)


def unpack(board: np.ndarray, side: int) -> np.ndarray:
    """A board -> its cells, bool `n m`."""
    octets = np.ascontiguousarray(board[1:-1].T)[..., None].view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, bitorder="little")
    return bits[..., 1 : side + 1].reshape(-1, side**2).astype(bool)


def has(
    board: np.ndarray, maze: np.ndarray, row: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """Whether the boards of those mazes hold a cell; rows and columns count from 1."""
    return board[row, maze] >> column.astype(board.dtype) & 1 != 0


def step(frontier: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """The cells of the next level, taken out of `unseen` in place."""
    reached = np.zeros_like(frontier)
    inner = reached[1:-1]
    np.left_shift(frontier[1:-1], 1, out=inner)
    inner |= frontier[1:-1] >> 1
    inner |= frontier[2:]
    inner |= frontier[:-2]
    inner &= unseen[1:-1]
    unseen ^= reached
    return reached


def levels(start: np.ndarray, free: np.ndarray) -> Iterator[np.ndarray]:
    """Boards of the cells at 0, 1, .. moves from `start`, until there are no more."""
    unseen = free & ~start
    frontier = start
    while frontier.any():
        yield frontier
        frontier = step(frontier, unseen)
