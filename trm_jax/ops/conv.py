# SPDX-License-Identifier: Apache-2.0
"""Short depthwise convolutions, over time and over a grid.

Each is a sum of shifted products, which XLA fuses; a grouped convolution is slow on
every backend. It is computed in float32 or wider. Positions outside count as 0.
"""

import itertools

import jax.numpy as jnp
from jaxtyping import Array, Float


def causal_conv(
    x: Float[Array, "b l f"],
    kernel: Float[Array, "w f"],
    bias: Float[Array, " f"],
    *,
    ahead: int = 0,
) -> Float[Array, "b l f"]:
    """Convolve each channel: out[t] = bias + sum_i kernel[i] x[t - w + 1 + i].

    With `ahead`, the window moves to the right: out[t] sees x[t + ahead] as well.
    """
    length, window = x.shape[1], kernel.shape[0]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    padded = jnp.pad(x, ((0, 0), (window - 1 - ahead, ahead), (0, 0)))
    taps = kernel.astype(wide)[:, None, None]
    terms = (padded[:, i : i + length] * taps[i] for i in range(window))
    return sum(terms, bias.astype(wide)[None, None]).astype(x.dtype)


def grid_conv(
    x: Float[Array, "b r c f"], kernel: Float[Array, "w w f"], bias: Float[Array, " f"]
) -> Float[Array, "b r c f"]:
    """Convolve each channel of a grid with a window centred on each cell (w is odd).

    Rows do not wrap: a cell at the end of a row is no neighbour of the next row.
    """
    (_, rows, columns, _), window = x.shape, kernel.shape[0]
    wide, reach = jnp.promote_types(x.dtype, jnp.float32), window // 2
    padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    taps = kernel.astype(wide)[:, :, None, None, None]
    terms = (
        padded[:, i : i + rows, j : j + columns] * taps[i, j]
        for i, j in itertools.product(range(window), repeat=2)
    )
    return sum(terms, bias.astype(wide)[None, None, None]).astype(x.dtype)
