# SPDX-License-Identifier: Apache-2.0
"""The decays in a chunk: exp of sums of the log decays dt A over segments of tokens.

The sum over tokens j+1 to i is a difference of running sums, s_i - s_j. After a large
term, one running sum in float32 would not have the digits of the small ones. So s is
kept as high + low, and s_i - s_j is (high_i - high_j) + (low_i - low_j). The high parts
of all terms are multiples of one quantum, so their sums are exact, and the low parts
are smaller than the quantum.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


class Decays(NamedTuple):
    """How much is left of the state after some tokens of a chunk."""

    from_start: Float[Array, "*b q"]
    to_end: Float[Array, "*b q"]
    through: Float[Array, "*b"]
    high: Float[Array, "*b q"]
    low: Float[Array, "*b q"]

    def between(self, *, transposed: bool = False) -> Float[Array, "*b q q"]:
        """The decay from token s to token q >= s, and 0 for q < s, at [q, s] or [s, q].

        The mask is applied before exp, which would overflow for q < s.
        """
        gaps = _differences(self.high) + _differences(self.low)
        later = causal(self.high.shape[-1])
        gaps, later = (-gaps, later.T) if transposed else (gaps, later)
        return jnp.exp(jnp.where(later, gaps, -jnp.inf))


def decays(
    log_decays: Float[Array, "*b q"],
    running_sum: Callable[[Array], tuple[Array, Array]],
) -> Decays:
    """The decays of chunks with these dt A.

    `running_sum` gives the running sum along the last axis, and the last of its values.
    """
    (high, all_high), (low, all_low) = map(running_sum, _halves(log_decays))
    return Decays(
        from_start=jnp.exp(high + low),
        to_end=jnp.exp((all_high[..., None] - high) + (all_low[..., None] - low)),
        through=jnp.exp(all_high + all_low),
        high=high,
        low=low,
    )


def causal(q: int) -> Bool[Array, "q q"]:
    """Whether the first position is not before the second."""
    i, j = (lax.broadcasted_iota(jnp.int32, (q, q), axis) for axis in (0, 1))
    return i >= j


def _differences(s: Array) -> Array:
    return s[..., :, None] - s[..., None, :]


def _halves(terms: Float[Array, "*b q"]) -> tuple[Array, Array]:
    """Terms as high + low, where all sums of up to q high parts are exact.

    Terms below -128 are raised to it in float32 (-1024 in float64): exp of any sum with
    such a term is 0 either way.
    """
    limits = jnp.finfo(terms.dtype)
    terms = jnp.maximum(terms, -float(limits.maxexp))
    largest_sum = limits.maxexp * (1 << (terms.shape[-1] - 1).bit_length())
    quantum = largest_sum * 2.0 ** -(limits.nmant + 1)
    high = jnp.floor(terms / quantum) * quantum
    return high, terms - high
