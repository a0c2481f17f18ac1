# SPDX-License-Identifier: Apache-2.0
"""Random numbers of a step: every row draws with a key of its own.

So no draw depends on the other rows, on the mesh or on micro-batches.
"""

import jax
from jaxtyping import Array, Float, Int

from trm_jax.model.layers import truncated_normal


def folded(keys: Array, *numbers: int | Int[Array, ""]) -> Array:
    """The key of every row, folded with these numbers one after another."""
    for number in numbers:
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
    return keys


def normal(keys: Array, shape: tuple[int, ...]) -> Float[Array, "b ..."]:
    """Unit normal numbers of this shape for every row."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def truncated(keys: Array, shape: tuple[int, ...]) -> Float[Array, "b ..."]:
    """Normal numbers of std 1 for every row, truncated as initial weights are."""
    return jax.vmap(lambda key: truncated_normal(1.0)(key, shape))(keys)
