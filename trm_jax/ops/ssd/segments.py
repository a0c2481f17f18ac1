# SPDX-License-Identifier: Apache-2.0
"""The decays in a chunk: exp of sums of the log decays dt A over segments of tokens.

The sum over tokens j+1 to i is a difference of running sums, s_i - s_j. After a large
term, one running sum in float32 would not have the digits of the small ones. So s is
kept as high + low, and s_i - s_j is (high_i - high_j) + (low_i - low_j). The high parts
of all terms are multiples of one quantum, so their sums are exact, and the low parts
are smaller than the quantum.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


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

        def differences(v: Array) -> Array:
            rows, columns = v[..., :, None], v[..., None, :]
            return columns - rows if transposed else rows - columns

        gaps = differences(self.high) + differences(self.low)
        later = differences(lax.iota(jnp.int32, gaps.shape[-1])) >= 0
        return jnp.exp(jnp.where(later, gaps, -jnp.inf))


def decays(
    log_decays: Float[Array, "*b q"], running_sums: Callable[..., Any]
) -> Decays:
    """The decays of chunks with these dt A.

    `running_sums` takes arrays, and gives for each its running sum along the last axis
    and the last value of that sum.
    """
    (high, all_high), (low, all_low) = running_sums(*_halves(log_decays))
    return Decays(
        from_start=jnp.exp(high + low),
        to_end=jnp.exp((all_high[..., None] - high) + (all_low[..., None] - low)),
        through=jnp.exp(all_high + all_low),
        high=high,
        low=low,
    )


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
