# SPDX-License-Identifier: Apache-2.0
"""SSD as Pallas kernels for Hopper GPUs (Mosaic GPU), forward and backward.

The passes are those of kernels.py. The walk through the chunks is in mosaic_walk.py:
it computes y, the last state, the states at the chunk starts, and their cotangents at
the chunk ends. The kernel in mosaic_backward.py treats every chunk separately.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from trm_jax.ops.ssd.mosaic_backward import SUMS, chunk_gradients
from trm_jax.ops.ssd.mosaic_tiles import DT, FROM_START, in_tiles, vectors
from trm_jax.ops.ssd.mosaic_walk import walk


def forward(
    x: Float[Array, "b l h p"],
    dt: Float[Array, "b l h"],
    A: Float[Array, " h"],
    B: Float[Array, "b l g n"],
    C: Float[Array, "b l g n"],
    initial_state: Float[Array, "b h p n"] | None,
    *,
    chunk_size: int,
) -> tuple[Float[Array, "b l h p"], Float[Array, "b h p n"]]:
    """The outputs y and the last state; arguments as in `ops.ssd.ssd`.

    The last state has its own kernel, which the compiler removes if it is not used.
    """
    X, keys, queries = map(in_tiles, (x, B, C))
    args = X, vectors(dt, A, chunk_size), keys
    run = partial(walk, *args, first=initial_state)
    (y,) = run(queries, results=("y",))
    (last,) = run(results=("last",))
    return y[:, : x.shape[1]], last


def backward(
    x: Float[Array, "b l h p"],
    dt: Float[Array, "b l h"],
    A: Float[Array, " h"],
    B: Float[Array, "b l g n"],
    C: Float[Array, "b l g n"],
    initial_state: Float[Array, "b h p n"] | None,
    dy: Float[Array, "b l h p"],
    dlast: Float[Array, "b h p n"] | None,
    *,
    chunk_size: int,
) -> tuple[Any, ...]:
    """Cotangents of x, dt (without its part in dt A), dt A, B, C and initial_state."""
    X, keys, queries, dY = map(in_tiles, (x, B, C, dy))
    of_rows = vectors(dt, A, chunk_size)
    (starts,) = walk(X, of_rows, keys, first=initial_state, results=("states",))
    results = ("states",) if initial_state is None else ("states", "last")
    ends, *dfirst = walk(
        dY, of_rows, queries, first=dlast, results=results, reverse=True
    )
    dx, dB, dC, sums = chunk_gradients(X, keys, queries, dY, of_rows, starts, ends)
    grads = dx, *_of_decays(sums, of_rows), dB, dC
    dx, ddt, da, dB, dC = (v[:, : x.shape[1]] for v in grads)
    return dx, ddt, da, dB, dC, dfirst[0] if dfirst else None


def _of_decays(sums: Array, vectors: Array) -> tuple[Array, Array]:
    """Cotangents of dt (without its part in dt A) and of dt A, in whole chunks."""
    within, later, earlier, added, read, kept = (sums[..., i, :] for i in SUMS)
    dt, through = vectors[..., DT, :], vectors[..., FROM_START, -1]
    # The decay of token t is between all earlier tokens and t and all later ones. The
    # pairs of tokens from t on are in both sums, `later` and `earlier`.
    before = jnp.cumsum(added * dt, axis=-1) - added * dt
    da = _from_here(earlier - later * dt) + _from_here(read) + before
    da += (through * kept.sum(-1))[..., None]
    b, h = da.shape[:2]
    ddt, da = (v.transpose(0, 2, 3, 1).reshape(b, -1, h) for v in (within + added, da))
    return ddt, da


def _from_here(terms: Array) -> Array:
    return lax.cumsum(terms, axis=terms.ndim - 1, reverse=True)
