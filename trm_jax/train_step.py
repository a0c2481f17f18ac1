# SPDX-License-Identifier: Apache-2.0
"""One training step: refill, supervision step, gradients, optimiser, EMA."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from trm_jax.config import ModelConfig
from trm_jax.errors import ConfigError
from trm_jax.halting import exploration_minimum
from trm_jax.losses import LOSSES, row_losses, unknown_loss
from trm_jax.metrics import add_metrics, step_metrics, zero_metrics
from trm_jax.model import TRM, init_variables
from trm_jax.optim import ema_update, make_optimizer, make_schedule, sparse_sign_sgd
from trm_jax.sharding import in_mesh, puzzle_vectors, state_shardings, table_rows
from trm_jax.supervision import init_carry, refill, supervision_step
from trm_jax.types import Batch, Carry, Metrics, Params, TrainState

TrainStep = Callable[[TrainState, Batch], TrainState]


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
    params: Params,
    vectors: Float[Array, "b e"],
    carry: Carry,
    min_steps: Int[Array, " b"],
    batch_size: int,
) -> tuple[tuple[Params, Array], Carry, Metrics]:
    """Gradients of (params, puzzle vectors), the next carry, and the metrics.

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
    (_, (next_carry, metrics)), grads = grad_fn(params, vectors)
    return grads, next_carry, metrics


def micro_batched(
    grad_fn: Callable[..., tuple[tuple[Params, Array], Carry, Metrics]],
    micro_batches: int,
    *rows: Any,
) -> tuple[tuple[Params, Array], Carry, Metrics]:
    """`grad_fn(*rows)` in `micro_batches` parts of the rows, one after the other.

    Part i takes rows i, i + n, ...: on a mesh each device splits its own rows.
    """

    def split(a: Array) -> Array:
        return a.reshape(-1, micro_batches, *a.shape[1:]).swapaxes(0, 1)

    def join(a: Array) -> Array:
        return a.swapaxes(0, 1).reshape(-1, *a.shape[2:])

    def part(total: Any, rows: Any) -> tuple[Any, Any]:
        (grads, vector_grads), carry, metrics = grad_fn(*rows)
        return jax.tree.map(jnp.add, total, (grads, metrics)), (vector_grads, carry)

    parts = jax.tree.map(split, rows)
    first = jax.tree.map(lambda a: a[0], parts)
    (shapes, _), _, metric_shapes = jax.eval_shape(grad_fn, *first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes, metric_shapes))
    (grads, metrics), by_part = jax.lax.scan(part, zeros, parts)
    vector_grads, carry = jax.tree.map(join, by_part)
    return (grads, vector_grads), carry, metrics


def make_train_step(
    model: TRM,
    optim: Optim,
    *,
    loss: str,
    seed: int,
    micro_batches: int,
    log_every: int,
) -> TrainStep:
    """The pure step (state, batch) -> state; all of its randomness is (seed, step)."""
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

        def grad_fn(vectors: Array, carry: Carry, min_steps: Array) -> Any:
            args = (state.params, vectors, carry, min_steps, batch_size)
            return loss_and_grads(model, loss, *args)

        rows = (puzzle_vectors(state.puzzle_table, ids), carry, min_steps)
        if micro_batches == 1:
            (grads, vector_grads), carry, metrics = grad_fn(*rows)
        else:
            parts = micro_batched(grad_fn, micro_batches, *rows)
            (grads, vector_grads), carry, metrics = parts

        # Also shows a gradient that is not finite before its update is saved.
        metrics["grad_norm"] = optax.tree.norm(grads), jnp.ones(())
        update = optim.optimizer.update
        updates, opt_state = update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        table = sparse_sign_sgd(
            state.puzzle_table,
            ids,
            vector_grads,
            lr=optim.table_schedule(step),
            weight_decay=optim.table_weight_decay,
        )
        ema = ema_update(
            state.ema_params, params, step, decay=optim.ema_decay, ramp=optim.ema_ramp
        )
        logged = state.step % log_every == 0  # the sums so far have been written
        kept = jax.tree.map(lambda s: jnp.where(logged, 0, s), state.metrics)
        return TrainState(
            step,
            params,
            state.constants,
            ema,
            opt_state,
            table,
            carry,
            add_metrics(kept, metrics),
        )

    return train_step


def jit_train_step(
    train_step: TrainStep, state: TrainState, mesh: Mesh, *, micro_batches: int
) -> Any:
    """Compile over the mesh: state donated and sharded by rule, batch over "data"."""
    rows = state.carry.steps.shape[0]
    if rows % (micro_batches * mesh.shape["data"]):
        raise ConfigError(
            f"train.batch_size = {rows} is not divisible by train.micro_batches = "
            f"{micro_batches} times mesh.data = {mesh.shape['data']}"
        )
    state_sharding = state_shardings(state, mesh)
    return jax.jit(
        in_mesh(train_step, mesh),
        in_shardings=(state_sharding, NamedSharding(mesh, P("data"))),
        out_shardings=state_sharding,
        donate_argnums=0,
    )
