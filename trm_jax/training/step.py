# SPDX-License-Identifier: Apache-2.0
"""One training step: refill, supervision step, gradients, optimiser, average."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from trm_jax.errors import ConfigError
from trm_jax.model.model import ReasoningModel, init_params
from trm_jax.rules.base import Rule
from trm_jax.rules.curriculum import current, phases
from trm_jax.rules.halting import Halting, exploration_minimum
from trm_jax.training.metrics import (
    add_metrics,
    all_finite,
    step_metrics,
    unless_skipped,
    zero_metrics,
)
from trm_jax.training.micro_batches import micro_batched
from trm_jax.training.optim import Optim, ema_update
from trm_jax.training.optim.puzzle_table import sparse_sign_sgd
from trm_jax.training.sharding import (
    in_mesh,
    on_own_rows,
    puzzle_vectors,
    state_shardings,
    table_rows,
)
from trm_jax.training.supervision import (
    TRAIN,
    bind,
    init_carry,
    refill,
    row_keys,
    seed_key,
    supervision_step,
)
from trm_jax.types import BATCH_AXES, Batch, Carry, Metrics, Params, TrainState

TrainStep = Callable[[TrainState, Batch], TrainState]
Weights = tuple[Params, Params, Int[Array, ""]]  # parameters, constants, updates done
Sums = tuple[Params, Metrics]  # over rows: gradients of the parameters, metrics
Rows = tuple[Float[Array, "b e"], Carry]  # gradients of the puzzle vectors, next carry


class Recipe(NamedTuple):
    """What a training step is made of."""

    model: ReasoningModel
    rule: Rule
    halting: Halting
    optim: Optim
    num_updates: int  # of the whole training


def init_train_state(recipe: Recipe, key: Array, batch_size: int) -> TrainState:
    """Step 0: fresh weights, a puzzle table of zeros, every row of the carry halted."""
    model, rule = recipe.model, recipe.rule
    config = model.config
    params_key, constants_key = jax.random.split(key)
    params = init_params(model, rule.module(config), params_key)
    constants = rule.constants(constants_key, config, params)
    table_shape = (table_rows(config.num_puzzles), config.puzzle_width)
    return TrainState(
        step=jnp.zeros((), int),
        params=params,
        constants=constants,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=recipe.optim.optimizer.init(params),
        puzzle_table=jnp.zeros(table_shape, config.weight_dtype),
        carry=init_carry(rule, model, (params, constants), batch_size),
        metrics=zero_metrics(rule.metrics),
    )


def loss_and_grads(
    recipe: Recipe,
    batch_size: int,
    weights: Weights,
    vectors: Float[Array, "b e"],
    carry: Carry,
    keys: Array,
    min_steps: Int[Array, " b"],
) -> tuple[Sums, Rows]:
    """Gradients and metrics, summed over the rows; vector gradients and next carry.

    The loss is the sum over rows, weighted by their supervision steps, divided by the
    global batch size.
    """
    params, constants, update = weights
    rule = recipe.rule
    if len(found := phases(rule, recipe.num_updates)) > 1:
        # The branches end in gradients: the residuals of all of them would add up.
        each = (recipe._replace(rule=one) for _, one in found)
        forms = [partial(loss_and_grads, one, batch_size) for one in each]
        args = weights, vectors, carry, keys, min_steps
        return jax.lax.switch(current(found, update), forms, *args)

    def loss_fn(params: Params, vectors: Array) -> tuple[Array, tuple[Carry, Metrics]]:
        next_carry, outputs = supervision_step(
            rule,
            bind(rule, recipe.model, params, constants, vectors),
            carry,
            keys,
            min_steps,
            update,
            max_steps=recipe.halting.max_supervision_steps,
            training=True,
        )
        weight = carry.batch.weight
        rows = rule.loss(outputs, carry.batch)
        metrics = step_metrics(
            rows, rule.answer(outputs), next_carry.steps, next_carry.halted, weight
        )
        total = recipe.halting.weighted(rows.total, next_carry.steps)
        return (weight * total).sum() / batch_size, (next_carry, metrics)

    grad_fn = jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)
    (_, (next_carry, metrics)), (grads, vector_grads) = grad_fn(params, vectors)
    return (grads, metrics), (vector_grads, next_carry)


def make_train_step(
    recipe: Recipe,
    *,
    seed: int,
    micro_batches: int,
    log_every: int,
    skips: bool = False,
) -> TrainStep:
    """The pure step (state, batch) -> state.

    Every random draw depends only on (seed, step, row). With `skips`, a step whose loss
    or gradient is not finite changes no weight.
    """
    halting = recipe.halting

    def train_step(state: TrainState, batch: Batch) -> TrainState:
        carry = refill(state.carry, batch)
        batch_size = carry.steps.shape[0]
        ids = carry.batch.puzzle_id
        step_key = jax.random.fold_in(seed_key(seed, TRAIN), state.step)
        keys = row_keys(step_key, jnp.arange(batch_size))
        min_steps = exploration_minimum(
            keys,
            max_steps=halting.max_supervision_steps,
            explore_rate=halting.explore_rate,
        )

        grad_fn = partial(loss_and_grads, recipe, batch_size)
        if micro_batches > 1:
            grad_fn = partial(micro_batched, grad_fn, micro_batches)
        vectors = puzzle_vectors(state.puzzle_table, ids)
        weights = state.params, state.constants, state.step
        rows = vectors, carry, keys, min_steps
        (grads, metrics), (vector_grads, carry) = on_own_rows(grad_fn)(weights, *rows)

        # The norm also shows a gradient that is not finite, before its update is saved.
        norm = optax.tree.norm(grads).astype(float)
        metrics["grad_norm"] = norm, jnp.ones((), float)
        # It is counted without `skips` too, since a resumed run may change the policy.
        metrics["skipped"] = jnp.zeros((), float), jnp.ones((), float)
        if skips:
            ok = all_finite(metrics)
            metrics = unless_skipped(ok, metrics)
            ids = jnp.where(ok, ids, state.puzzle_table.shape[0])  # changes no row
        logged = state.step % log_every == 0  # the sums so far have been written
        kept = jax.tree.map(lambda s: jnp.where(logged, 0, s), state.metrics)
        after = _updated(recipe.optim, state, grads, ids, vector_grads)
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
    s = optim.settings
    ema = ema_update(state.ema_params, params, step, decay=s.ema_decay, ramp=s.ema_ramp)
    table = sparse_sign_sgd(
        state.puzzle_table,
        ids,
        vector_grads,
        lr=optim.table_schedule(step),
        weight_decay=s.table_weight_decay,
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
    """`after`; if not `ok`, with the weights of `before` and every row halted."""
    old, new = (
        (state.params, state.ema_params, state.opt_state) for state in (before, after)
    )
    params, ema, opt_state = jax.tree.map(partial(jnp.where, ok), new, old)
    carry, batch = after.carry, after.carry.batch
    carry = carry._replace(
        state=jax.tree.map(lambda s: jnp.where(ok, s, 0), carry.state),
        halted=carry.halted | ~ok,
        batch=batch._replace(weight=jnp.where(ok, batch.weight, 0)),
    )
    return after._replace(
        params=params, ema_params=ema, opt_state=opt_state, carry=carry
    )


def jit_train_step(
    train_step: TrainStep, state: TrainState, mesh: Mesh, *, micro_batches: int
) -> Any:
    """Compile for the mesh; donate the state, shard it by rule and the batch by row."""
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
