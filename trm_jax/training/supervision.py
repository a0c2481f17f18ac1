# SPDX-License-Identifier: Apache-2.0
"""One supervision step, for training and evaluation alike, and its carry."""

from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from trm_jax.model.config import ModelConfig
from trm_jax.model.model import TRM
from trm_jax.rules.halting import halt
from trm_jax.rules.recursion import deep_recursion
from trm_jax.types import Batch, Carry, Params, StepOutput


def init_carry(config: ModelConfig, num_rows: int) -> Carry:
    """A carry whose rows all wait for their first puzzle."""
    # Two separate buffers: a donated state may not hold one buffer twice.
    shape = (num_rows, config.seq_len, config.d_model)
    return Carry(
        y=jnp.zeros(shape, config.compute_dtype),
        z=jnp.zeros(shape, config.compute_dtype),
        steps=jnp.zeros(num_rows, jnp.int32),
        halted=jnp.ones(num_rows, jnp.bool_),
        batch=Batch(
            inputs=jnp.zeros((num_rows, config.num_cells), jnp.int32),
            labels=jnp.zeros((num_rows, config.num_cells), jnp.int32),
            label_mask=jnp.zeros((num_rows, config.num_cells), jnp.bool_),
            puzzle_id=jnp.zeros(num_rows, jnp.int32),
            weight=jnp.zeros(num_rows, jnp.float32),
        ),
    )


def refill(carry: Carry, batch: Batch, constants: Params) -> Carry:
    """Row i of the batch replaces row i of the carry if that row has halted.

    Other rows of the batch are dropped unseen. From here on `carry.batch` is the
    only source of inputs and labels.
    """

    def pick(new: Array, old: Array) -> Array:
        halted = carry.halted.reshape(-1, *(1,) * (old.ndim - 1))
        return jnp.where(
            halted, jnp.broadcast_to(new, old.shape).astype(old.dtype), old
        )

    return Carry(
        y=pick(constants["y"], carry.y),
        z=pick(constants["z"], carry.z),
        steps=jnp.where(carry.halted, 0, carry.steps),
        halted=carry.halted,
        batch=jax.tree.map(pick, batch, carry.batch),
    )


def supervision_step(
    model: TRM,
    params: Params,
    puzzle_vector: Float[Array, "b e"],
    carry: Carry,
    min_steps: Int[Array, " b"],
    *,
    max_steps: int,
) -> tuple[Carry, StepOutput]:
    """All h-cycles once on a refilled carry, then predict and decide who halts.

    Training draws `min_steps` (halting.py); evaluation sets it to `max_steps`, so no
    row halts early. The new carry is data of the next step: no gradient crosses it.
    """
    c, apply = model.config, cast(Any, model.apply)

    def net_fn(params: Params, hidden: Float[Array, "b l d"]) -> Array:
        return apply({"params": params}, hidden, method="refine")

    inputs = carry.batch.inputs
    x = apply({"params": params}, inputs, puzzle_vector, method="embed")
    y, z = deep_recursion(
        net_fn,
        params,
        x,
        carry.y,
        carry.z,
        h_cycles=c.h_cycles,
        l_cycles=c.l_cycles,
        remat=c.remat,
    )
    output: StepOutput = apply({"params": params}, y, method="predict")
    steps = carry.steps + 1
    halted = halt(output.q_halt, steps, min_steps, max_steps=max_steps)
    return carry._replace(y=y, z=z, steps=steps, halted=halted), output
