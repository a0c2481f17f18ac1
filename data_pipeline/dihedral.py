# SPDX-License-Identifier: Apache-2.0
"""The eight symmetries of a square, numbered as in the names of published ARC sets."""

import numpy as np

COUNT = 8
INVERSE = np.array([0, 3, 2, 1, 4, 5, 6, 7])


def turn(grids: np.ndarray, transform: int) -> np.ndarray:
    """A view of grids `... r c`, turned.

    Transform 0 changes nothing, 1 to 3 are that many quarter turns to the left, 4
    reverses the columns, 5 reverses the rows, 6 transposes the grid and 7 transposes
    it about the other diagonal.
    """
    match transform:
        case 0 | 1 | 2 | 3:
            return np.rot90(grids, transform, axes=(-2, -1))
        case 4:
            return grids[..., ::-1]
        case 5:
            return grids[..., ::-1, :]
        case 6:
            return grids.swapaxes(-2, -1)
        case 7:
            return grids[..., ::-1, ::-1].swapaxes(-2, -1)
        case _:
            raise ValueError(f"{transform = }; expected 0 to {COUNT - 1}")


def cell_sources(side: int) -> np.ndarray:
    """For square grids, `8 m`: entry [t, i] is the cell that transform t moves to i."""
    cells = np.arange(side**2).reshape(side, side)
    return np.stack([turn(cells, t).ravel() for t in range(COUNT)])
