# SPDX-License-Identifier: Apache-2.0
from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.tiny import tiny_built
from trm_jax.rules.halting import exploration_minimum
from trm_jax.rules.trm import TRM
from trm_jax.training.supervision import (
    EVAL,
    INIT,
    TRAIN,
    bind,
    init_carry,
    refill,
    row_keys,
    seed_key,
    supervision_step,
)
from trm_jax.types import StepOutput

ROWS = 8
OLD, NEW = np.array([1, 2, 4, 6, 7]), np.array([0, 3, 5])


@cache
def step_of(mixer):
    """A supervision step of the tiny run, compiled once for all tests."""
    recipe = tiny_built({"model.layers": (mixer, "swiglu")}).recipe
    rule, model = recipe.rule, recipe.model

    def step(params, constants, carry, min_steps, training):
        vectors = jnp.zeros((ROWS, model.config.puzzle_width))
        carry, outputs = supervision_step(
            rule,
            bind(rule, model, params, constants, vectors),
            carry,
            row_keys(jax.random.key(0), jnp.arange(ROWS)),
            jnp.full(ROWS, min_steps, jnp.int32),
            jnp.int32(0),
            max_steps=4,
            training=training,
        )
        return carry, rule.answer(outputs)

    return jax.jit(step, static_argnames="training")


class World:
    """A tiny run, its first weights and carry, and one batch."""

    def __init__(self, mixer, make_batch):
        built = tiny_built({"model.layers": (mixer, "swiglu")})
        self.recipe, state = built.recipe, built.init()
        self.params, self.constants = state.params, state.constants
        self.carry = state.carry
        self.make_batch = make_batch
        self.mixer = mixer

    def batch(self, seed):
        rows = self.make_batch(seed, self.recipe.model.config, ROWS)
        return jax.tree.map(jnp.asarray, rows)

    def step(self, params, carry, min_steps, *, training=False):
        args = params, self.constants, carry, min_steps
        return step_of(self.mixer)(*args, training=training)


@pytest.fixture
def world(mixer, make_batch):
    return World(mixer, make_batch)


def test_halted_rows_get_the_next_puzzle_and_others_keep_theirs(world):
    carry = refill(world.carry, world.batch(0))
    halted = np.isin(np.arange(ROWS), NEW)
    carry = carry._replace(
        steps=jnp.full(ROWS, 3, jnp.int32), halted=jnp.asarray(halted)
    )
    incoming = world.batch(1)
    after = refill(carry, incoming)
    for field, found in after.batch._asdict().items():
        np.testing.assert_array_equal(found[NEW], getattr(incoming, field)[NEW])
        expected = getattr(carry.batch, field)
        np.testing.assert_array_equal(found[OLD], expected[OLD])
    np.testing.assert_array_equal(after.steps, np.where(halted, 0, 3))


@pytest.mark.parametrize("training", [True, False])
def test_a_halted_row_begins_anew_and_others_go_on(world, training):
    fresh = refill(world.carry, world.batch(0))
    first, _ = world.step(world.params, fresh, 4, training=training)
    halted = jnp.asarray(np.isin(np.arange(ROWS), NEW))
    carry = refill(first._replace(halted=halted), world.batch(0))
    second, _ = world.step(world.params, carry, 4, training=training)
    for after, once in zip(second.state, first.state, strict=True):
        np.testing.assert_allclose(after[NEW], once[NEW], atol=1e-5)
        assert (after[OLD] != once[OLD]).any((1, 2)).all()
    np.testing.assert_array_equal(second.steps, np.where(halted, 1, 2))


def test_a_fresh_carry_takes_the_whole_batch(world):
    batch = world.batch(0)
    carry = refill(world.carry, batch)
    chex.assert_trees_all_equal(carry.batch, batch)
    np.testing.assert_array_equal(carry.steps, 0)


def test_steps_count_up_and_nobody_halts_before_min_steps(world):
    sure = world.params | {"halt_bias": jnp.full(2, 50.0)}
    carry = refill(world.carry, world.batch(0))
    halted = []
    for _ in range(4):
        carry, answer = world.step(sure, carry, 3)
        assert (answer.q_halt > 0).all()
        assert answer.wants_halt.all()
        halted.append(bool(carry.halted.all()))
    assert halted == [False, False, True, True]
    np.testing.assert_array_equal(carry.steps, 4)


def test_a_row_does_not_depend_on_its_neighbours(world):
    carry = refill(world.carry, world.batch(0))
    other = carry.batch.inputs.at[1:].set(1)
    changed = carry._replace(batch=carry.batch._replace(inputs=other))
    first, second = (world.step(world.params, c, 4)[1].logits for c in (carry, changed))
    np.testing.assert_allclose(first[0], second[0], atol=1e-5)
    assert jnp.abs(first[1:] - second[1:]).max() > 1e-2


seen = []


class Draws(TRM):
    """A rule that records its keys and does nothing else."""

    def start(self, model, rows, keys, *, training):
        seen.extend(jax.random.key_data(keys))
        return jnp.zeros(len(keys))

    def step(self, model, rows, state, keys, clock, keep=None):
        seen.extend(jax.random.key_data(keys))
        return state, None

    def answer(self, outputs):
        logits = jnp.zeros((ROWS, 1, 1))
        return StepOutput(logits, logits[:, 0, 0], jnp.ones(ROWS, bool))


@pytest.mark.parametrize("mixer", ["attention"])
def test_exploration_start_and_step_draw_from_different_keys(world, monkeypatch):
    def spied(draw):
        def spy(key, *args):
            jax.debug.callback(seen.append, jax.random.key_data(key))
            return draw(key, *args)

        return spy

    for name in ("bernoulli", "randint"):
        monkeypatch.setattr(jax.random, name, spied(getattr(jax.random, name)))
    keys = row_keys(jax.random.key(0), jnp.arange(ROWS))
    seen.clear()
    least = exploration_minimum(keys, max_steps=4, explore_rate=0.5)
    jax.effects_barrier()
    rule, carry = Draws(), world.carry._replace(state=jnp.zeros(ROWS))
    vectors = jnp.zeros((ROWS, world.recipe.model.config.puzzle_width))
    model = bind(rule, world.recipe.model, world.params, world.constants, vectors)
    at = {"max_steps": 4, "training": True}
    supervision_step(rule, model, carry, keys, least, jnp.int32(0), **at)
    assert len(seen) == 4 * ROWS  # a coin, a count, a start and a step for each
    assert len({tuple(np.asarray(key)) for key in seen}) == 4 * ROWS


def test_weights_training_and_evaluation_have_keys_of_their_own():
    keys = {
        tuple(np.asarray(jax.random.key_data(seed_key(seed, use))))
        for seed in (0, 1)
        for use in (INIT, TRAIN, EVAL)
    }
    assert len(keys) == 6


class Wider(TRM):
    """A rule whose state has one number more in evaluation than in training."""

    def start(self, model, rows, keys, *, training):
        return jnp.zeros((len(rows.weight), 3 if training else 4))


@pytest.mark.parametrize("training", [True, False])
def test_the_carry_has_the_state_of_the_start_it_is_for(world, training):
    weights = world.params, world.constants
    args = Wider(), world.recipe.model, weights, ROWS
    carry = init_carry(*args, training=training)
    assert carry.state.shape == (ROWS, 3 if training else 4)
