# SPDX-License-Identifier: Apache-2.0
"""The path from noise to an answer, and the sampler that goes it (arXiv 2609.11801)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def noise(keys: Array, shape: tuple[int, ...], dtype: Any) -> Float[Array, "b m v"]:
    """Normal draws of variance 1 / v, those of each row from its own key."""
    draw = jax.vmap(lambda key: jax.random.normal(key, shape, dtype))
    return draw(keys) / jnp.sqrt(jnp.asarray(shape[-1], dtype))


def interpolant(
    noise: Float[Array, "b m v"], answer: Float[Array, "b m v"], t: Float[Array, " b"]
) -> Float[Array, "b m v"]:
    """(1 - t) x0 + t x1."""
    t = t[:, None, None]
    return (1 - t) * noise + t * answer


def sorted_times(draws: Float[Array, "b k"]) -> Float[Array, "b k"]:
    """The draws, ascending (Sudoku and mazes)."""
    return jnp.sort(draws, axis=-1)


def random_start_times(draws: Float[Array, "b k"]) -> Float[Array, "b k"]:
    """The first draw t, then the others, mapped to [t, 1], ascending (ARC)."""
    first, rest = draws[:, :1], draws[:, 1:]
    return jnp.concatenate([first, first + (1 - first) * jnp.sort(rest)], axis=-1)


TIMES = {"sorted": sorted_times, "random_start": random_start_times}


def pseudo_probability(update: Array, steps: int) -> Float[Array, ""]:
    """min(update / steps, 1)."""
    return jnp.minimum(update / steps, 1)


def renoised(
    x: Float[Array, "b m v"],
    fresh: Float[Array, "b m v"],
    step: Float[Array, " b"],
    num_steps: int,
    gamma: float,
) -> tuple[Float[Array, "b m v"], Float[Array, " b"]]:
    """The sample a x with noise as of the time s = a step / num_steps, and s.

    a = clip(1 - gamma / num_steps, 0, 1); the variance of the added noise,
    ((1 - s)^2 - (a - s)^2) / v, is written without a difference of squares.
    """
    a = min(max(1 - gamma / num_steps, 0.0), 1.0)
    s = a * step / num_steps
    added = jnp.sqrt((1 - a) * (1 + a - 2 * s))
    return a * x + added[:, None, None] * fresh, s


def moved(
    noisy: Float[Array, "b m v"],
    guess: Float[Array, "b m v"],
    step: Float[Array, " b"],
    s: Float[Array, " b"],
    num_steps: int,
) -> Float[Array, "b m v"]:
    """The sample at the time of the next step, on the way from `noisy` to `guess`."""
    share = ((step + 1) / num_steps - s) / (1 - s)
    return noisy + share[:, None, None] * (guess - noisy)
