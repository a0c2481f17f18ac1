# SPDX-License-Identifier: Apache-2.0
"""ARC grids as tokens on a square canvas, and back.

Token 0 is PAD, 1 is the end marker, and 2 to 11 are the colours 0 to 9. The canvas is
`side` x `side`, and its cells form one axis `m`.
"""

import numpy as np

from ..dihedral import cell_sources
from ..spec import PAD_ID

END_ID = 1
FIRST_COLOUR = 2
NUM_COLOURS = 10
VOCAB_SIZE = FIRST_COLOUR + NUM_COLOURS
# By token: PAD and end markers, then colour-blind safe colours in the order of ARC's.
COLOURS = (
    *("#ffffff", "#ffffff", "#1a1a1a", "#0072b2", "#d55e00", "#009e73", "#f0e442"),
    *("#999999", "#cc79a7", "#e69f00", "#56b4e9", "#7a2e2e"),
)

# Cell (r, c) of a turned grid comes from cell (r, c) of the original, or from (c, r) if
# _SWAPS. If _UP, its row is counted from the last row; if _BACK, its column from the
# last column.
_CORNERS = cell_sources(2)
_UP, _BACK = np.divmod(_CORNERS[:, 0], 2)
_SWAPS = abs(_CORNERS[:, 1] - _CORNERS[:, 0]) == 2


def encode(grid: np.ndarray, side: int, offset: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Colours `r c` -> tokens `m`, uint8.

    End markers fill the row below the grid and the column to the right of it, if they
    are on the canvas, but not the corner between them. Raises ValueError if the grid
    does not fit on the canvas.
    """
    (top, left), (rows, columns) = offset, grid.shape
    bottom, right = top + rows, left + columns
    if min(top, left) < 0 or max(bottom, right) > side:
        raise ValueError(f"{grid.shape = } at {offset = } does not fit {side = }")
    canvas = np.full((side, side), PAD_ID, np.uint8)
    canvas[bottom : bottom + 1, left:right] = END_ID
    canvas[top:bottom, right : right + 1] = END_ID
    canvas[top:bottom, left:right] = grid + FIRST_COLOUR
    return canvas.ravel()


def decode(tokens: np.ndarray, side: int) -> np.ndarray:
    """Tokens `m` -> colours `r c`, uint8. Any tokens are allowed; see decode_sizes."""
    rows, columns = decode_sizes(tokens[None], side)
    canvas = tokens.reshape(side, side)
    return canvas[: rows[0], : columns[0]].astype(np.uint8) - np.uint8(FIRST_COLOUR)


def without_ends(tokens: np.ndarray, side: int) -> np.ndarray:
    """The decoded grid of tokens `m` alone on its canvas, `m`: PAD is around it."""
    rows, columns = decode_sizes(tokens[None], side)
    canvas = tokens.reshape(side, side).copy()
    canvas[rows[0] :], canvas[:, columns[0] :] = PAD_ID, PAD_ID
    return canvas.ravel()


def decode_sizes(tokens: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, `b` each, of the grids in tokens `b m`.

    A grid is the largest rectangle at the top left corner that holds only colours. Of
    rectangles with equal area it is the one with the fewest rows. It is 0 x 0 if the
    corner itself holds no colour.
    """
    canvas = tokens.reshape(-1, side, side)
    ends = np.ones((len(canvas), side, side + 1), bool)
    ends[:, :, :side] = (canvas < FIRST_COLOUR) | (canvas >= VOCAB_SIZE)
    widths = np.minimum.accumulate(ends.argmax(2), axis=1)  # down to each row
    last = (widths * np.arange(1, side + 1)).argmax(1)
    columns = widths[np.arange(len(widths)), last]
    return np.where(columns > 0, last + 1, 0), columns


def turned_sizes(
    sizes: tuple[np.ndarray, np.ndarray], transform: np.ndarray
) -> np.ndarray:
    """Rows and columns after the turn, `b 2`."""
    return np.where(_SWAPS[transform], sizes[::-1], sizes).T


def redraw(
    tokens: np.ndarray,
    sizes: tuple[np.ndarray, np.ndarray],
    transform: np.ndarray,
    colours: np.ndarray,
    offset: np.ndarray,
    side: int,
) -> np.ndarray:
    """Turn, recolour and move the grids of `sizes` in tokens `b m`: uint8 `b m`.

    The grids lie in the top left corner. Each is turned as by dihedral.turn, its colour
    i becomes colours[:, i], and its top left cell moves to `offset` (`b 2`). An empty
    grid leaves nothing but PAD.
    """
    rows, columns = shape = turned_sizes(sizes, transform).T
    swap, up, back = _SWAPS[transform], _UP[transform], _BACK[transform]
    count = np.arange(len(tokens))
    start = up * (sizes[0] - 1) * side + back * (sizes[1] - 1) + count * side**2
    steps = np.stack([side - 2 * side * up, 1 - 2 * back])  # in the source, by axis
    steps = np.where(swap, steps[::-1], steps)
    corner = (count * side + offset[:, 0]) * side + offset[:, 1]
    renamed = np.zeros((len(tokens), 256), np.uint8)
    renamed[:, FIRST_COLOUR:VOCAB_SIZE] = colours + FIRST_COLOUR

    # Most of a canvas is PAD: only the cells of the grids are computed, row by row.
    drawn = np.zeros(len(tokens) * side**2, np.uint8)
    grid, row = _ranges(rows)
    width, first = columns[grid], corner[grid] + row * side
    line, column = _ranges(width)
    source = np.repeat(start[grid] + row * steps[0, grid], width)
    source += column * np.repeat(steps[1, grid], width)
    found = tokens.ravel().take(source) + np.repeat(256 * grid, width)
    drawn[first[line] + column] = renamed.ravel().take(found)

    below, right = (offset + shape.T < side).T
    drawn[(first + width)[right[grid]]] = END_ID
    grid, column = _ranges(columns * below)
    drawn[(corner + rows * side)[grid] + column] = END_ID
    return drawn.reshape(len(tokens), side**2)


def _ranges(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers 0 to l - 1 for every length l, and the place of that length."""
    place = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    return place, np.arange(len(place)) - np.repeat(starts, lengths)
