# SPDX-License-Identifier: Apache-2.0
"""Short depthwise convolution over time."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def causal_conv(
    x: Float[Array, "b l f"], kernel: Float[Array, "w f"], bias: Float[Array, " f"]
) -> Float[Array, "b l f"]:
    """Convolve each channel: out[t] = bias + sum_i kernel[i] x[t - w + 1 + i].

    Positions before the first count as 0. This is a sum of w shifted products, which
    XLA fuses; a grouped convolution is slow on every backend. It is computed in float32
    or wider.
    """
    length, window = x.shape[1], kernel.shape[0]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    padded = jnp.pad(x, ((0, 0), (window - 1, 0), (0, 0)))
    taps = kernel.astype(wide)[:, None, None]
    terms = (padded[:, i : i + length] * taps[i] for i in range(window))
    return sum(terms, bias.astype(wide)[None, None]).astype(x.dtype)
