# SPDX-License-Identifier: Apache-2.0
"""Grids of puzzles in figures: a question, an answer, one number per cell."""

import math
from typing import Any

import numpy as np

from trm_jax.errors import ConfigError
from trm_jax.inspect import style

_FILLED, _EMPTY = "#", "#.? "  # symbols of a filled cell, and those without a text
_DARK = 0.5  # a cell of more than this share of the scale has a white text


def draw_grid(
    axis: Any,
    record: dict[str, Any],
    step: int = -1,
    *,
    shade: Any = None,
    most: float = 1.0,
    text: bool = True,
) -> Any:
    """Draw one answer of a record (`replay.py`), or the question for step -1.

    Givens are bold. An orange corner marks a cell that has changed since the step
    before, and a red frame a cell that is wrong, if the solution is known. `shade`, one
    number for each cell, colours the cells, from 0 (white) to `most`; the image is
    returned, for a colour bar, or else None. Raises ConfigError for a shade of another
    length.
    """
    rows, columns = record["shape"]
    before = record["steps"][step - 1]["tokens"] if step > 0 else record["question"]
    tokens = record["question"] if step < 0 else record["steps"][step]["tokens"]
    colours = record["colours"] or [
        style.GREY if symbol == _FILLED else None for symbol in record["symbols"]
    ]
    image, dark = None, np.zeros(rows * columns, bool)
    if shade is not None:
        values = np.asarray(shade, np.float64)
        if values.size != rows * columns:
            raise ConfigError(
                f"shade: {values.size} numbers for {rows * columns} cells"
            )
        dark = values.ravel() > _DARK * most
        image = _image(axis, values.reshape(rows, columns), most)
    for i, token in enumerate(tokens):
        r, c = divmod(i, columns)
        if shade is None and colours[token]:
            axis.fill([c, c + 1, c + 1, c], [r, r, r + 1, r + 1], color=colours[token])
        if step >= 0 and token != before[i]:
            axis.fill([c, c + 0.3, c], [r, r, r + 0.3], color=style.COLORS[4], lw=0)
        if wrong := bool(step >= 0 and record["solution"]):
            wrong = token != record["solution"][i]
        if wrong:
            x = np.array([0.07, 0.93, 0.93, 0.07, 0.07]) + c
            y = np.array([0.07, 0.07, 0.93, 0.93, 0.07]) + r
            axis.plot(x, y, color=style.COLORS[1], linewidth=1.4)
        symbol = record["symbols"][token].strip(_EMPTY)
        if text and symbol and not record["colours"]:
            given = record["given"][i]
            is_black = given or shade is not None
            color = "white" if dark[i] else "black" if is_black else style.COLORS[0]
            weight = "bold" if given else "normal"
            place = {"ha": "center", "va": "center_baseline"}
            axis.text(c + 0.5, r + 0.53, symbol, color=color, weight=weight, **place)
    _lines(axis, (rows, columns), record["box"])
    return image


def draw_cells(
    axis: Any, values: Any, record: dict[str, Any], *, most: float, mark: int = -1
) -> Any:
    """Draw one number per cell, from 0 (white) to `most`; return the image.

    A black dot marks the cell `mark`. Raises ConfigError for other numbers of values.
    """
    image = draw_grid(axis, record, shade=values, most=most, text=False)
    if mark >= 0:
        row, column = divmod(mark, record["shape"][1])
        axis.plot(column + 0.5, row + 0.5, "o", color="black", markersize=5)
    return image


def _image(axis: Any, values: np.ndarray, most: float) -> Any:
    rows, columns = values.shape
    edges = (0, columns, rows, 0)
    return axis.imshow(values, cmap="Blues", vmin=0, vmax=most, extent=edges)


def _lines(axis: Any, shape: tuple[int, int], box: list[int] | None) -> None:
    """The lines between cells and between boxes; no axes."""
    rows, columns = shape
    down, across = box or (rows, columns)
    for places, length, every, line in (
        (range(rows + 1), columns, down, axis.hlines),
        (range(columns + 1), rows, across, axis.vlines),
    ):
        thick = [1.4 if place % every == 0 else 0.5 for place in places]
        line(list(places), 0, length, color=style.GREY, linewidth=thick)
    margin = 0.02 * math.sqrt(rows * columns)
    axis.set(xlim=(-margin, columns + margin), ylim=(rows + margin, -margin))
    axis.set(aspect="equal")
    axis.axis("off")
