# SPDX-License-Identifier: Apache-2.0
"""What the two Mamba mixers share: the directions of a scan, and initial weights."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

Turn = Callable[[Any], Any]


class Path(NamedTuple):
    """The order in which a scan reads the tokens `b l ...`, and the way back."""

    into: Turn  # from the order of the sequence to that of the scan
    back: Turn


# The paths whose outputs a direction adds up.
DIRECTIONS: dict[str, tuple[str, ...]] = {
    "forward": ("forward",),
    "backward": ("backward",),
    "both": ("forward", "backward"),
    "column": ("column",),
    "row_column": ("forward", "column"),
    "four": ("forward", "backward", "column", "column_backward"),
}


def paths(
    direction: str, grid_shape: tuple[int, int], prefix_len: int
) -> tuple[Path, ...]:
    """The paths of a direction.

    "forward" reads the prefix and then the cells row by row, "column" the prefix and
    then the cells column by column. The backward paths read these two orders from the
    end, so they reach the prefix after every cell.
    """
    rows, columns = grid_shape
    to_columns = partial(_transposed, prefix_len, (rows, columns))
    to_rows = partial(_transposed, prefix_len, (columns, rows))
    known = {
        "forward": Path(_as_is, _as_is),
        "backward": Path(_reversed, _reversed),
        "column": Path(to_columns, to_rows),
        "column_backward": Path(
            lambda v: _reversed(to_columns(v)), lambda v: to_rows(_reversed(v))
        ),
    }
    return tuple(known[name] for name in DIRECTIONS[direction])


def _as_is(v: Any) -> Any:
    return v


def _reversed(v: Any) -> Any:
    return v[:, ::-1]


def _transposed(prefix_len: int, shape: tuple[int, int], v: Any) -> Array:
    """The cells, a grid of this shape after the prefix, in the other order."""
    cells = v[:, prefix_len:]
    grid = cells.reshape(cells.shape[0], *shape, *cells.shape[2:])
    return jnp.concatenate(
        [v[:, :prefix_len], grid.swapaxes(1, 2).reshape(cells.shape)], axis=1
    )


def uniform(limit: float) -> Any:
    """An initialiser that draws between -limit and limit."""

    def draw(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        return jax.random.uniform(key, shape, dtype, minval=-limit, maxval=limit)

    return draw


def uniform_fan_in(key: Array, shape: tuple[int, int], dtype: Any) -> Array:
    """A kernel `i o`, uniform within 1/sqrt(i): PyTorch's default."""
    return uniform(1 / math.sqrt(shape[0]))(key, shape, dtype)


def log_uniform_dt(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """A bias whose softplus, the step size, is log-uniform in [1e-3, 1e-1]."""
    low, high = math.log(1e-3), math.log(1e-1)
    dt = jnp.exp(jax.random.uniform(key, shape, dtype, minval=low, maxval=high))
    return dt + jnp.log(-jnp.expm1(-dt))
