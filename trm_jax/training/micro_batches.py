# SPDX-License-Identifier: Apache-2.0
"""Gradients of a batch, accumulated over micro-batches to save memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def micro_batched(
    grad_fn: Callable[..., tuple[Any, Any]],
    micro_batches: int,
    weights: Any,
    *rows: Any,
) -> tuple[Any, Any]:
    """`grad_fn(weights, *rows)`, computed on `micro_batches` parts of the rows in turn.

    `grad_fn` returns sums over rows, which are added up, and values by row. Of n parts,
    part i takes rows i, i + n, ...
    """

    def split(a: Array) -> Array:
        return a.reshape(-1, micro_batches, *a.shape[1:]).swapaxes(0, 1)

    def join(a: Array) -> Array:
        return a.swapaxes(0, 1).reshape(-1, *a.shape[2:])

    def part(total: Any, rows: Any) -> tuple[Any, Any]:
        sums, by_row = grad_fn(weights, *rows)
        return jax.tree.map(jnp.add, total, sums), by_row

    parts = jax.tree.map(split, rows)
    first = jax.tree.map(lambda a: a[0], parts)
    shapes, _ = jax.eval_shape(grad_fn, weights, *first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    sums, by_part = jax.lax.scan(part, zeros, parts)
    return sums, jax.tree.map(join, by_part)
