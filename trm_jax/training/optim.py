# SPDX-License-Identifier: Apache-2.0
"""Adam-atan2, learning-rate schedule, sign-SGD for the puzzle table, and EMA."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from trm_jax.errors import ConfigError
from trm_jax.training.sharding import on_every_device, path_string, puzzle_vectors
from trm_jax.types import Params

Scalar = Float[Array, ""] | float

# What Mamba-2 keeps free of weight decay: the scan's rates and scales, and biases.
NO_DECAY = ("A_log", "D", "dt_bias", "norm_weight", "conv_bias")


class AdamAtan2State(NamedTuple):
    """Number of updates, first and second moments."""

    num_updates: Int[Array, ""]
    m: Params
    v: Params


def scale_by_adam_atan2(b1: float, b2: float) -> optax.GradientTransformation:
    """Adam-atan2 (arXiv 2407.05872): no epsilon, zero gradients give zero.

    The correction of the first moment stands outside the atan2, as published with TRM.
    """

    def init(params: Params) -> AdamAtan2State:
        def zeros() -> Params:
            return jax.tree.map(jnp.zeros_like, params)

        return AdamAtan2State(jnp.zeros((), jnp.int32), zeros(), zeros())

    def update(
        grads: Params, state: AdamAtan2State, params: Params = None
    ) -> tuple[Params, AdamAtan2State]:
        del params
        num_updates = state.num_updates + 1
        m = optax.tree.update_moment(grads, state.m, b1, 1)
        v = optax.tree.update_moment(grads, state.v, b2, 2)
        first = 1 - b1**num_updates
        second = jnp.sqrt(1 - b2**num_updates)
        updates = jax.tree.map(
            lambda m, v: jnp.atan2(m, jnp.sqrt(v) / second) / first, m, v
        )
        return updates, AdamAtan2State(num_updates, m, v)

    return optax.GradientTransformation(init, update)


def make_schedule(
    lr: float,
    *,
    warmup_steps: int,
    total_steps: int,
    min_ratio: float,
    decay_start: float = 0.0,
) -> optax.Schedule:
    """Rate of update k = 1, 2, ...: linear from 0 over the warm-up, then a cosine.

    The cosine falls to `min_ratio * lr` at `total_steps`; it starts at the end of the
    warm-up, or at the share `decay_start` of all steps if that is later.
    """
    if not 0 <= decay_start < 1:
        raise ConfigError(f"optim.decay_start = {decay_start}; expected 0 <= x < 1")
    start = max(warmup_steps, round(decay_start * total_steps))

    def schedule(step: Int[Array, ""] | int) -> Scalar:
        progress = jnp.clip((step - start) / max(1, total_steps - start), 0, 1)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * progress))
        decayed = min_ratio + (1 - min_ratio) * cosine
        warm = step / max(1, warmup_steps)
        return lr * jnp.where(step < warmup_steps, warm, decayed)

    return schedule


def make_optimizer(
    schedule: optax.Schedule, *, b1: float, b2: float, weight_decay: float
) -> optax.GradientTransformation:
    """Adam-atan2 with decoupled decay of all but NO_DECAY: p (1 - lr wd) - lr u."""

    def add_decay(updates: Params, params: Params) -> Params:
        def decayed(path: tuple[Any, ...], update: Array, param: Array) -> Array:
            free = path_string(path).rsplit("/", 1)[-1] in NO_DECAY
            return update if free else update + weight_decay * param

        return jax.tree_util.tree_map_with_path(decayed, updates, params)

    return optax.chain(
        scale_by_adam_atan2(b1, b2),
        optax.stateless(add_decay),
        # optax counts updates from 0, the papers from 1.
        optax.scale_by_learning_rate(lambda count: schedule(count + 1)),
    )


class Optim(NamedTuple):
    """The optimiser section of a config, and the schedules made from it."""

    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    table_schedule: optax.Schedule
    table_weight_decay: float
    ema_decay: float
    ema_ramp: bool


def make_optim(
    *,
    lr: float,
    weight_decay: float,
    table_lr: float,
    table_weight_decay: float,
    b1: float,
    b2: float,
    warmup_steps: int,
    min_ratio: float,
    decay_start: float,
    ema_decay: float,
    ema_ramp: bool,
    total_steps: int,
) -> Optim:
    """Build the optimiser; one schedule shape serves weights and puzzle table."""
    shaped = partial(
        make_schedule,
        warmup_steps=warmup_steps,
        total_steps=total_steps,
        min_ratio=min_ratio,
        decay_start=decay_start,
    )
    schedule = shaped(lr)
    return Optim(
        make_optimizer(schedule, b1=b1, b2=b2, weight_decay=weight_decay),
        schedule,
        shaped(table_lr),
        table_weight_decay,
        ema_decay,
        ema_ramp,
    )


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
    # Each device sums all rows of the batch, so in one order: a sign hangs on it.
    ids, grads = on_every_device(ids), on_every_device(grads)
    _, place = jnp.unique(ids, return_inverse=True, size=ids.shape[0], fill_value=0)
    summed = jax.ops.segment_sum(grads, place, num_segments=ids.shape[0])[place]
    rows = puzzle_vectors(table, ids) * (1 - lr * weight_decay) - lr * jnp.sign(summed)
    rows = rows.astype(table.dtype)  # equal ids write equal rows
    return table.at[ids].set(rows, mode="drop", wrap_negative_indices=False)


def ema_update(
    ema: Params, params: Params, step: Int[Array, ""], *, decay: float, ramp: bool
) -> Params:
    """Decay * ema + (1 - decay) * params; `ramp` starts at (1 + t) / (10 + t)."""
    d = jnp.minimum(decay, (1 + step) / (10 + step)) if ramp else decay
    return optax.incremental_update(params, ema, 1 - d)
