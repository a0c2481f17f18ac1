# SPDX-License-Identifier: Apache-2.0
"""One supervision step, for training and evaluation alike, and its carry."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from trm_jax.model.config import ModelConfig
from trm_jax.model.model import BoundModel, ReasoningModel
from trm_jax.rules.base import Clock, Keep, Rule
from trm_jax.rules.draws import folded
from trm_jax.rules.halting import halt
from trm_jax.rules.recursion import frozen
from trm_jax.types import Batch, Carry, Params

# The key of a seed is folded with one of these, so that each use has its own draws.
INIT, TRAIN, EVAL = 0, 1, 2
# The key of a row is folded with these for the draws of `start` and `step`. Exploration
# splits the same key in two, which uses 0 and 1.
_START, _STEP = 2, 3


def bind(
    rule: Rule,
    module: ReasoningModel,
    params: Params,
    constants: Params,
    vectors: Float[Array, "b e"],
) -> BoundModel:
    """The model that a rule computes with."""
    own = rule.module(module.config)
    return BoundModel(params, constants, vectors, module, own)


def init_carry(
    rule: Rule,
    module: ReasoningModel,
    weights: tuple[Params, Params],
    num_rows: int,
    *,
    training: bool = True,
) -> Carry:
    """A carry whose rows all wait for their first puzzle, with the rule's own state.

    `weights` are parameters and constants, or their shapes.
    """
    config = module.config
    batch = empty_batch(config, num_rows)

    def start(params: Params, constants: Params, vectors: Array) -> Any:
        model = bind(rule, module, params, constants, vectors)
        keys = row_keys(seed_key(0, INIT), jnp.arange(num_rows))
        return rule.start(model, batch, keys, training=training)

    vectors = jax.ShapeDtypeStruct((num_rows, config.puzzle_width), config.weight_dtype)
    shapes = jax.eval_shape(start, *weights, vectors)
    return Carry(
        state=jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes),
        steps=jnp.zeros(num_rows, int),
        halted=jnp.ones(num_rows, jnp.bool_),
        batch=batch,
    )


def empty_batch(config: ModelConfig, num_rows: int) -> Batch:
    """Rows that hold no puzzle and have weight 0."""
    shape = (num_rows, config.num_cells)
    return Batch(
        inputs=jnp.zeros(shape, jnp.int32),
        labels=jnp.zeros(shape, jnp.int32),
        label_mask=jnp.zeros(shape, jnp.bool_),
        puzzle_id=jnp.zeros(num_rows, jnp.int32),
        weight=jnp.zeros(num_rows, config.weight_dtype),
    )


def seed_key(seed: int, use: int) -> Array:
    """The key of a seed for one use; JAX's settings do not change its generator."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), use)


def row_keys(key: Array, rows: Int[Array, " b"]) -> Array:
    """One key per row, which depends only on `key` and the row's number."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


def refill(carry: Carry, batch: Batch) -> Carry:
    """Row i of the batch replaces row i of the carry if that row has halted.

    Other rows of the batch are dropped unseen. From here on `carry.batch` is the
    only source of inputs and labels. The new rows stay marked as halted, so that the
    next supervision step initialises their state.
    """
    return carry._replace(
        steps=jnp.where(carry.halted, 0, carry.steps),
        batch=where_rows(carry.halted, batch, carry.batch),
    )


def where_rows(rows: Array, new: Any, old: Any) -> Any:
    """The rows of `new` where `rows` is true, else those of `old`."""

    def pick(new: Array, old: Array) -> Array:
        chosen = rows.reshape(-1, *(1,) * (old.ndim - 1))
        return jnp.where(chosen, new.astype(old.dtype), old)

    return jax.tree.map(pick, new, old)


def begin(
    rule: Rule, model: BoundModel, carry: Carry, keys: Array, *, training: bool
) -> Carry:
    """The carry, in which every halted row has the initial state of its puzzle.

    `keys` holds one key per row, that of its next supervision step.
    """
    first = rule.start(
        frozen(model), carry.batch, folded(keys, _START), training=training
    )
    return carry._replace(state=where_rows(carry.halted, first, carry.state))


def supervision_step(
    rule: Rule,
    model: BoundModel,
    carry: Carry,
    keys: Array,
    min_steps: Int[Array, " b"],
    update: Int[Array, ""],
    *,
    max_steps: int,
    training: bool,
    keep: Keep | None = None,
) -> tuple[Carry, Any]:
    """One step of the rule on a refilled carry: the new carry, and the rule's outputs.

    `keys` holds a key per row. Training draws `min_steps` (halting.py); evaluation
    sets it to `max_steps`, so that no row halts early. The next step takes the new
    carry as data, so that no gradient flows through it.
    """
    state = begin(rule, model, carry, keys, training=training).state
    clock = Clock(carry.steps, max_steps, update)
    step = rule.step if training else rule.infer
    state, outputs = step(model, carry.batch, state, folded(keys, _STEP), clock, keep)
    steps = carry.steps + 1
    wants = rule.answer(outputs).wants_halt
    halted = halt(wants, steps, min_steps, max_steps=max_steps)
    return carry._replace(state=state, steps=steps, halted=halted), outputs
