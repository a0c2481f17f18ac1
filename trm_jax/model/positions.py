# SPDX-License-Identifier: Apache-2.0
"""Learned positions: the vectors that are added to the embedded question."""

import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# The choices of model.positions, with the parts of the grid that have vectors.
LEARNED: dict[str, tuple[str, ...]] = {
    "learned": (),
    "rows_columns": ("rows", "columns"),
    "rows_columns_boxes": ("rows", "columns", "boxes"),
}
WHOLE, PREFIX = "embed_positions", "embed_prefix"


def units(
    kind: str,
    grid_shape: tuple[int, int],
    box_shape: tuple[int, int] | None,
    prefix_len: int,
) -> dict[str, np.ndarray]:
    """Which vector of each table the positions have, by the name of the table.

    "learned" has one table for all positions. The other kinds have a table for the
    prefix, if there is one, and tables for the rows, columns and boxes of the cells.
    """
    row, column = np.indices(grid_shape).reshape(2, -1)
    if not LEARNED[kind]:
        return {WHOLE: np.arange(prefix_len + len(row))}
    height, width = box_shape or grid_shape
    box = row // height * (grid_shape[1] // width) + column // width
    of_cells = {"rows": row, "columns": column, "boxes": box}
    prefix = {PREFIX: np.arange(prefix_len)} if prefix_len else {}
    return prefix | {f"embed_{part}": of_cells[part] for part in LEARNED[kind]}


def vectors(
    tables: Mapping[str, Float[Array, "n d"]], units: Mapping[str, np.ndarray]
) -> Float[Array, "l d"]:
    """The vector of every position.

    The vectors of a cell's row, column and box are added and divided by the root of
    their number, so that the sum begins as large as the vector of a prefix token.
    """
    if WHOLE in units:
        return tables[WHOLE]
    parts = [tables[name][place] for name, place in units.items() if name != PREFIX]
    cells = sum(parts[1:], parts[0]) / math.sqrt(len(parts))
    return jnp.concatenate([tables[PREFIX], cells]) if PREFIX in units else cells
