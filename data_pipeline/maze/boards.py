# SPDX-License-Identifier: Apache-2.0
"""Breadth-first search in many mazes at once, with sets of cells stored as bits.

A board, an array `side + 2, n`, is a set of cells in each of n mazes. It holds one word
per row of a maze, in which bit c + 1 stands for column c. The margins are zero, so that
no step leaves the grid.
"""

from collections.abc import Iterator

import numpy as np


def word_type(side: int) -> np.dtype:
    """The smallest word that holds a row and its margins: half the size, half the time.

    It is little-endian, because pack and unpack view words as bytes.
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
    """Whether the board holds the cell (row, column) of each maze, counted from 1."""
    return board[row, maze] >> column.astype(board.dtype) & 1 != 0


def step(frontier: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """The cells of the next level, which are removed from `unseen` in place."""
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
