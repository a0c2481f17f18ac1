# SPDX-License-Identifier: Apache-2.0
"""What the tests of any rule need: a tiny model, its steps, and its random draws."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from tests.helpers.states import init_of
from trm_jax.evaluation.evaluate import (
    evaluate,
    joined,
    make_eval_step,
    stepper,
    take_rows,
)
from trm_jax.rules import RULES, WTA
from trm_jax.rules.losses import row_losses
from trm_jax.training.build import build, make_recipe
from trm_jax.training.config import read_run
from trm_jax.training.sharding import (
    in_mesh,
    make_mesh,
    put_batch,
    put_rows,
    puzzle_vectors,
)
from trm_jax.training.supervision import (
    bind,
    init_carry,
    refill,
    row_keys,
    supervision_step,
)
from trm_jax.types import Batch, StepOutput

ROWS = 8
SIZES = {"vocab_size": 6, "grid_shape": (4, 4), "num_puzzles": 5, "blank": 1}
# Outputs without a gradient, as PARAMETER[COLUMN]: other rules have no continue logit.
CONTINUE = ("hrm", "pair")
NO_CONTINUE = {"halt_kernel[1]", "halt_bias[1]"}


def tiny(name, /, **sections):
    """The config of a tiny model with this rule; `sections` edit it further."""
    config = default.get_config()
    config.data.update(source="generator", train_puzzles=12, test_puzzles=8)
    config.data.sudoku.update(box_rows=2, box_cols=2, clues=(5, 8))
    config.model.update(d_model=16, prefix_len=1, dtype="float32", layers=("swiglu",))
    config.model.swiglu.width = 24
    config.rule.name = name
    config.halting.max_supervision_steps = 3
    config.optim.update(lr=1e-3, table_lr=1e-2, warmup_steps=2)
    config.train.update(steps=6, batch_size=ROWS, log_every=2, eval_every=0)
    config.train.checkpoint_every = 100  # a run saves its last step anyway
    config.eval.batch_size = ROWS
    config.mesh.data = 1
    for section, changes in sections.items():
        config[section].update(changes)
    return config.to_dict()


def make_rows(seed, count=ROWS):
    """A batch of random rows; the last has no label."""
    rng = np.random.default_rng(seed)
    shape = (count, 16)
    mask = rng.random(shape) < 0.8
    mask[-1] = False
    return Batch(
        inputs=rng.integers(1, SIZES["vocab_size"], shape).astype(np.int32),
        labels=rng.integers(1, SIZES["vocab_size"], shape).astype(np.int32),
        label_mask=mask,
        puzzle_id=rng.integers(0, SIZES["num_puzzles"], count).astype(np.int32),
        weight=np.ones(count, np.float32),
    )


def take(batch, rows):
    return jax.tree.map(lambda a: a[rows], batch)


def on_device(batch):
    return jax.tree.map(jnp.asarray, batch)


def recipe_of(config):
    return make_recipe(config, SIZES, read_run(config))


class Begun(NamedTuple):
    """A recipe with fresh weights, and a carry after one step."""

    recipe: Any
    state: Any  # the training state
    keys: Any
    carry: Any


@cache
def begun(rule):
    """A carry after one step, so that its state is not only the initial one."""
    recipe = recipe_of(tiny(rule))
    state = on_device(first_state(rule))
    # The halting kernel starts at 0, and so do the gradients behind it.
    kernel = jax.random.normal(jax.random.key(1), state.params["halt_kernel"].shape)
    state.params["halt_kernel"] = 0.1 * kernel
    keys = row_keys(jax.random.key(2), jnp.arange(ROWS))
    state = state._replace(puzzle_table=state.puzzle_table + 0.1)
    world = Begun(recipe, state, keys, None)
    world = world._replace(carry=first_carry(world))
    carry, _ = jax.jit(lambda: one_step(world, world.carry))()
    # Half of the rows are done: in the next step they begin a second puzzle.
    carry = carry._replace(halted=jnp.arange(ROWS) % 2 == 0)
    return world._replace(carry=refill(carry, on_device(make_rows(1))))


def first_carry(world):
    """The carry before the first step of all rows."""
    recipe, weights = world.recipe, (world.state.params, world.state.constants)
    return refill(
        init_carry(recipe.rule, recipe.model, weights, ROWS), on_device(make_rows(0))
    )


def vectors_of(world, carry=None):
    ids = (carry or world.carry).batch.puzzle_id
    return puzzle_vectors(world.state.puzzle_table, ids)


def model_of(world, params=None, vectors=None):
    """The model that the rule computes with, by default as it is in `world`."""
    recipe, state = world.recipe, world.state
    params = state.params if params is None else params
    vectors = vectors_of(world) if vectors is None else vectors
    return bind(recipe.rule, recipe.model, params, state.constants, vectors)


def one_step(world, carry, weights=None, keep=None):
    """One supervision step in training: the next carry, and the rule's outputs."""
    recipe = world.recipe
    model = model_of(
        world, *(weights or (world.state.params, vectors_of(world, carry)))
    )
    return supervision_step(
        recipe.rule,
        model,
        carry,
        world.keys,
        jnp.zeros(ROWS, jnp.int32),
        jnp.zeros((), jnp.int32),
        max_steps=3,
        training=True,
        keep=keep,
    )


def total_loss(world, params, vectors, first):
    """The loss of one step, as a function of everything that could carry gradients."""
    carry = world.carry._replace(state=first)
    _, outputs = one_step(world, carry, (params, vectors))
    return world.recipe.rule.loss(outputs, carry.batch).total.sum()


def silent_outputs(grads):
    """Every slice along the last axis of a parameter whose gradient is all zero."""
    silent = set()
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        used = np.asarray(grad != 0).reshape(-1, grad.shape[-1]).any(0)
        silent |= {f"{name}[{i}]" for i in np.flatnonzero(~used)}
    return silent


def first_model(recipe):
    """The model of a recipe with its first weights and vectors of ones."""
    state = init_of(recipe, ROWS)(jax.random.key(0))
    vectors = jnp.ones((ROWS, recipe.model.config.puzzle_width))
    return bind(recipe.rule, recipe.model, state.params, state.constants, vectors)


@cache
def first_state(rule):
    """The initial training state, on the host."""
    return jax.device_get(build(tiny(rule), SIZES).init())


def trained(config, batches):
    """The states after each of these batches, starting from the initial state."""
    built = build(config, SIZES)
    like = first_state(config["rule"]["name"])
    shardings = jax.tree.map(lambda leaf: leaf.sharding, built.state_like)
    state, states = jax.device_put(like, shardings), []
    for batch in batches:
        state = built.train_step(state, put_batch(batch._asdict(), built.mesh))
        states.append(jax.device_get(state))
    return states


@cache
def eval_step_of(rule):
    return make_eval_step(begun(rule).recipe, make_mesh(1), num_steps=2)


def evaluated(rule, parts):
    """The outputs of all rows, sorted by number; each part is (batch, numbers)."""
    state = begun(rule).state
    weights = state.params, state.constants, state.puzzle_table
    batches = [(batch._asdict(), numbers) for batch, numbers in parts]
    outputs = list(evaluate(eval_step_of(rule), weights, batches, make_mesh(1)))
    return take_rows(joined(outputs), np.argsort(np.concatenate([n for _, n in parts])))


class DrawState(NamedTuple):
    """What a row has drawn: its start, and the bits of its key in the last step."""

    first: Any
    key: Any


class Draws:
    """A mixin for rules: rows draw as usual, compute nothing, and want to halt."""

    metrics = ()

    def start(self, model, rows, keys, *, training):
        first = super().start(model, rows, keys, training=training)
        return DrawState(first, jnp.zeros((len(keys), 2), jnp.uint32))

    def step(self, model, rows, state, keys, clock, keep=None):
        state = state._replace(key=jax.random.key_data(keys))
        return state, model.predict(model.embed(rows.inputs))

    infer = step

    def loss(self, outputs, rows):
        choices = {"loss": "softmax", "label_smoothing": 0.0, "halt_weight": 1.0}
        return row_losses(outputs[0], outputs[1][:, 0], rows, **choices)

    def answer(self, outputs):
        wants_halt = jnp.ones(len(outputs[1]), bool)
        return StepOutput(outputs[0], outputs[1][:, 0], wants_halt)


def register_draws(rule, patch):
    """Register the rule with Draws mixed in, and return its new name."""
    name = f"draws of {rule}"
    if issubclass(RULES[rule], WTA):
        pytest.skip("its chains draw as the inner rule does; see wta_test.py")
    patch.setitem(RULES, name, type("Draws", (Draws, RULES[rule]), {}))
    return name


def drawn_in_evaluation(config, seed=0):
    """A function from parts to the states after both of two steps, by row number."""
    recipe, mesh = recipe_of(config), make_mesh(config["mesh"]["data"])

    def states(weights, batch, numbers):
        carry, step = stepper(recipe, weights, batch, numbers, 2, seed)
        first, _ = step(carry)
        return first.state, step(first)[0].state

    jitted = jax.jit(in_mesh(states, mesh))
    state = first_state(config["rule"]["name"])
    weights = state.params, state.constants, state.puzzle_table

    def drawn(parts):
        found = []
        for batch, numbers in parts:
            put = put_batch(batch._asdict(), mesh), put_rows(numbers, mesh)
            found.append(jax.device_get(jitted(weights, *put)))
        order = np.argsort(np.concatenate([numbers for _, numbers in parts]))
        return jax.tree.map(lambda *a: np.concatenate(a)[order], *found)

    return drawn


def forget():
    """Clear the caches of what was built with the rules registered so far."""
    for built in (begun, first_state, eval_step_of):
        built.cache_clear()
