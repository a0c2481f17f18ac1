# SPDX-License-Identifier: Apache-2.0
"""One training step: refill, supervision step, gradients, optimiser, EMA."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from trm_jax.errors import ConfigError
from trm_jax.model.config import ModelConfig
from trm_jax.model.model import TRM, init_variables
from trm_jax.rules.halting import exploration_minimum
from trm_jax.rules.losses import LOSSES, row_losses, unknown_loss
from trm_jax.training.metrics import (
    add_metrics,
    all_finite,
    step_metrics,
    unless_skipped,
    zero_metrics,
)
from trm_jax.training.optim import Optim, ema_update, sparse_sign_sgd
from trm_jax.training.sharding import (
    in_mesh,
    on_own_rows,
    puzzle_vectors,
    state_shardings,
    table_rows,
)
from trm_jax.training.supervision import init_carry, refill, supervision_step
from trm_jax.types import BATCH_AXES, Batch, Carry, Metrics, Params, TrainState

TrainStep = Callable[[TrainState, Batch], TrainState]
Sums = tuple[Params, Metrics]  # over rows: gradients of the parameters, metrics
Rows = tuple[Float[Array, "b e"], Carry]  # gradients of the puzzle vectors, next carry


def init_train_state(
    model: TRM, optim: Optim, key: Array, batch_size: int
) -> TrainState:
    """Step 0: fresh weights, an empty puzzle table, every carry row halted."""
    c: ModelConfig = model.config
    params, constants = init_variables(model, key)
    table_shape = (table_rows(c.num_puzzles), c.puzzle_width)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        constants=constants,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optim.optimizer.init(params),
        puzzle_table=jnp.zeros(table_shape, jnp.float32),
        carry=init_carry(c, batch_size),
        metrics=zero_metrics(),
    )


def loss_and_grads(
    model: TRM,
    loss: str,
    batch_size: int,
    params: Params,
    vectors: Float[Array, "b e"],
    carry: Carry,
    min_steps: Int[Array, " b"],
) -> tuple[Sums, Rows]:
    """Gradients and metrics, summed over the rows; vector gradients and next carry.

    The loss is the sum over rows divided by the global batch size.
    """

    def loss_fn(params: Params, vectors: Array) -> tuple[Array, tuple[Carry, Metrics]]:
        next_carry, output = supervision_step(
            model,
            params,
            vectors,
            carry,
            min_steps,
            max_steps=model.config.max_supervision_steps,
        )
        weight = carry.batch.weight
        rows = row_losses(output, carry.batch, loss=loss)
        metrics = step_metrics(
            rows, output.q_halt, next_carry.steps, next_carry.halted, weight
        )
        return (weight * rows.total).sum() / batch_size, (next_carry, metrics)

    grad_fn = jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)
    (_, (next_carry, metrics)), (grads, vector_grads) = grad_fn(params, vectors)
    return (grads, metrics), (vector_grads, next_carry)


def micro_batched(
    grad_fn: Callable[..., tuple[Sums, Rows]],
    micro_batches: int,
    params: Params,
    *rows: Any,
) -> tuple[Sums, Rows]:
    """`grad_fn(params, *rows)` in `micro_batches` parts of the rows, in turn.

    Part i takes rows i, i + n, ...
    """

    def split(a: Array) -> Array:
        return a.reshape(-1, micro_batches, *a.shape[1:]).swapaxes(0, 1)

    def join(a: Array) -> Array:
        return a.swapaxes(0, 1).reshape(-1, *a.shape[2:])

    def part(total: Sums, rows: Any) -> tuple[Sums, Rows]:
        sums, by_row = grad_fn(params, *rows)
        return jax.tree.map(jnp.add, total, sums), by_row

    parts = jax.tree.map(split, rows)
    first = jax.tree.map(lambda a: a[0], parts)
    shapes, _ = jax.eval_shape(grad_fn, params, *first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    sums, by_part = jax.lax.scan(part, zeros, parts)
    return sums, jax.tree.map(join, by_part)


def make_train_step(
    model: TRM,
    optim: Optim,
    *,
    loss: str,
    seed: int,
    micro_batches: int,
    log_every: int,
    skips: bool = False,
) -> TrainStep:
    """The pure step (state, batch) -> state; all of its randomness is (seed, step).

    `skips`: a step whose loss or gradient is not finite changes no weight.
    """
    c = model.config
    if loss not in LOSSES:
        raise unknown_loss(loss)

    def train_step(state: TrainState, batch: Batch) -> TrainState:
        carry = refill(state.carry, batch, state.constants)
        batch_size = carry.steps.shape[0]
        ids = carry.batch.puzzle_id
        step_key = jax.random.fold_in(jax.random.key(seed), state.step)
        min_steps = exploration_minimum(
            step_key,
            batch_size,
            max_steps=c.max_supervision_steps,
            explore_rate=c.explore_rate,
        )

        grad_fn = partial(loss_and_grads, model, loss, batch_size)
        if micro_batches > 1:
            grad_fn = partial(micro_batched, grad_fn, micro_batches)
        vectors = puzzle_vectors(state.puzzle_table, ids)
        sums, rows = on_own_rows(grad_fn)(state.params, vectors, carry, min_steps)
        (grads, metrics), (vector_grads, carry) = sums, rows

        # Also shows a gradient that is not finite before its update is saved.
        norm = optax.tree.norm(grads).astype(jnp.float32)
        metrics["grad_norm"] = norm, jnp.ones((), jnp.float32)
        # Counted by steps that never skip, too: a run may change its mind.
        metrics["skipped"] = jnp.zeros((), jnp.float32), jnp.ones((), jnp.float32)
        if skips:
            ok = all_finite(metrics)
            metrics = unless_skipped(ok, metrics)
            ids = jnp.where(ok, ids, state.puzzle_table.shape[0])  # changes no row
        logged = state.step % log_every == 0  # the sums so far have been written
        kept = jax.tree.map(lambda s: jnp.where(logged, 0, s), state.metrics)
        after = _updated(optim, state, grads, ids, vector_grads)
        after = after._replace(carry=carry, metrics=add_metrics(kept, metrics))
        return _unless_skipped(ok, state, after) if skips else after

    return train_step


def _updated(
    optim: Optim,
    state: TrainState,
    grads: Params,
    ids: Int[Array, " b"],
    vector_grads: Float[Array, "b e"],
) -> TrainState:
    """Step, weights, their average and the puzzle table after one update."""
    step = state.step + 1
    update = optim.optimizer.update
    updates, opt_state = update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = ema_update(
        state.ema_params, params, step, decay=optim.ema_decay, ramp=optim.ema_ramp
    )
    table = sparse_sign_sgd(
        state.puzzle_table,
        ids,
        vector_grads,
        lr=optim.table_schedule(step),
        weight_decay=optim.table_weight_decay,
    )
    return state._replace(
        step=step,
        params=params,
        ema_params=ema,
        opt_state=opt_state,
        puzzle_table=table,
    )


def _unless_skipped(
    ok: Bool[Array, ""], before: TrainState, after: TrainState
) -> TrainState:
    """`after`; but if not `ok`, weights as `before`, and every row to be replaced."""
    old, new = (
        (state.params, state.ema_params, state.opt_state) for state in (before, after)
    )
    params, ema, opt_state = jax.tree.map(partial(jnp.where, ok), new, old)
    carry, batch = after.carry, after.carry.batch
    carry = carry._replace(
        y=jnp.where(ok, carry.y, 0),
        z=jnp.where(ok, carry.z, 0),
        halted=carry.halted | ~ok,
        batch=batch._replace(weight=jnp.where(ok, batch.weight, 0)),
    )
    return after._replace(
        params=params, ema_params=ema, opt_state=opt_state, carry=carry
    )


def jit_train_step(
    train_step: TrainStep, state: TrainState, mesh: Mesh, *, micro_batches: int
) -> Any:
    """Compile over the mesh: state donated and sharded by rule, batch by row."""
    rows = state.carry.steps.shape[0]
    if rows % (micro_batches * mesh.size):
        raise ConfigError(
            f"train.batch_size = {rows} is not divisible by train.micro_batches = "
            f"{micro_batches} times the {mesh.size} device(s) of the mesh"
        )
    state_sharding = state_shardings(state, mesh)
    return jax.jit(
        in_mesh(train_step, mesh),
        in_shardings=(state_sharding, NamedSharding(mesh, P(BATCH_AXES))),
        out_shardings=state_sharding,
        donate_argnums=0,
    )
