# SPDX-License-Identifier: Apache-2.0
"""Sign-SGD of the puzzle table; a batch updates only the rows of its puzzles."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from trm_jax.training.optim.base import Scalar
from trm_jax.training.sharding import on_every_device, puzzle_vectors


def sparse_sign_sgd(
    table: Float[Array, "ids e"],
    ids: Int[Array, " b"],
    grads: Float[Array, "b e"],
    *,
    lr: Scalar,
    weight_decay: float,
) -> Float[Array, "ids e"]:
    """Sign-SGD on the rows named by `ids`; no other row is read or written.

    Gradients of equal ids are summed first; a zero sum still decays its row. Ids
    outside the table change nothing.
    """
    # Each device sums all rows of the batch, in the same order: otherwise round-off
    # could flip a sign.
    ids, grads = on_every_device(ids), on_every_device(grads)
    _, place = jnp.unique(ids, return_inverse=True, size=ids.shape[0], fill_value=0)
    summed = jax.ops.segment_sum(grads, place, num_segments=ids.shape[0])[place]
    rows = puzzle_vectors(table, ids) * (1 - lr * weight_decay) - lr * jnp.sign(summed)
    rows = rows.astype(table.dtype)  # equal ids write equal rows
    return table.at[ids].set(rows, mode="drop", wrap_negative_indices=False)
