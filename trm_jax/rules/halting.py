# SPDX-License-Identifier: Apache-2.0
"""When a row of the carry is done: TRM's ACT without a continue head (section 4.6)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def exploration_minimum(
    key: Array, num_rows: int, *, max_steps: int, explore_rate: float
) -> Int[Array, " b"]:
    """Least number of steps per row: usually 0, with `explore_rate` one of 2..max."""
    coin, count = jax.random.split(key)
    explores = jax.random.bernoulli(coin, explore_rate, (num_rows,))
    least = jax.random.randint(count, (num_rows,), min(2, max_steps), max_steps + 1)
    return jnp.where(explores, least, 0)


def halt(
    q_halt: Float[Array, " b"],
    steps: Int[Array, " b"],
    min_steps: Int[Array, " b"],
    *,
    max_steps: int,
) -> Bool[Array, " b"]:
    """A row halts at `max_steps`, or once q_halt > 0 and `min_steps` are done."""
    return (steps >= max_steps) | ((q_halt > 0) & (steps >= min_steps))
