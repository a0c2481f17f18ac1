# SPDX-License-Identifier: Apache-2.0
"""What the two Mamba mixers share: the directions of a scan, and initial weights."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

Flip = Callable[[Array], Array]


def _as_is(v: Array) -> Array:
    return v


def _reversed(v: Array) -> Array:
    return v[:, ::-1]


FLIPS: dict[str, tuple[Flip, ...]] = {
    "forward": (_as_is,),
    "backward": (_reversed,),
    "both": (_as_is, _reversed),
}


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
