# SPDX-License-Identifier: Apache-2.0
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.model.model import init_variables
from trm_jax.training.supervision import init_carry, refill, supervision_step


@pytest.fixture
def world(model, make_batch):
    params, constants = init_variables(model, jax.random.key(0))
    batch = jax.tree.map(jnp.asarray, make_batch(0, model.config))
    return model, params, constants, batch


def step(model, params, carry, min_steps, max_steps=4):
    vectors = jnp.zeros((6, model.config.d_model))
    least = jnp.full(6, min_steps, jnp.int32)
    return supervision_step(model, params, vectors, carry, least, max_steps=max_steps)


def test_halted_rows_are_refilled_and_others_kept(world, make_batch):
    model, _, constants, batch = world
    carry = refill(init_carry(model.config, 6), batch, constants)
    carry = carry._replace(
        y=jnp.full_like(carry.y, 7.0),
        steps=jnp.full(6, 3, jnp.int32),
        halted=jnp.array([True, False, False, True, False, True]),
    )
    incoming = jax.tree.map(jnp.asarray, make_batch(1, model.config))
    after = refill(carry, incoming, constants)
    new = np.array([0, 3, 5])
    old = np.array([1, 2, 4])
    for field in ("inputs", "labels", "label_mask", "puzzle_id", "weight"):
        found = getattr(after.batch, field)
        np.testing.assert_array_equal(found[new], getattr(incoming, field)[new])
        np.testing.assert_array_equal(found[old], getattr(batch, field)[old])
    np.testing.assert_array_equal(after.steps, [0, 3, 3, 0, 3, 0])
    np.testing.assert_array_equal(after.y[old], 7.0)
    expected = np.broadcast_to(constants["y"], after.y[new].shape)
    np.testing.assert_array_equal(after.y[new], expected)
    expected = np.broadcast_to(constants["z"], after.z[new].shape)
    np.testing.assert_array_equal(after.z[new], expected)


def test_a_fresh_carry_takes_the_whole_batch(world):
    model, _, constants, batch = world
    carry = refill(init_carry(model.config, 6), batch, constants)
    chex.assert_trees_all_equal(carry.batch, batch)
    np.testing.assert_array_equal(carry.steps, 0)


def test_steps_count_up_and_nobody_halts_before_min_steps(world):
    model, params, constants, batch = world
    params["halt_bias"] = jnp.full(2, 50.0)  # sure from the start
    carry = refill(init_carry(model.config, 6), batch, constants)
    halted = []
    for _ in range(4):
        carry, output = step(model, params, carry, min_steps=3)
        assert (output.q_halt > 0).all()
        halted.append(bool(carry.halted.all()))
    assert halted == [False, False, True, True]
    np.testing.assert_array_equal(carry.steps, 4)


def test_carry_has_the_compute_dtype_and_keeps_moving(world):
    model, params, constants, batch = world
    carry = refill(init_carry(model.config, 6), batch, constants)
    first, _ = step(model, params, carry, 4)
    second, _ = step(model, params, first, 4)
    chex.assert_trees_all_equal_dtypes(carry, second)
    assert (first.y != second.y).any()
    assert (first.z != second.z).any()


def test_a_row_does_not_depend_on_its_neighbours(world):
    model, params, constants, batch = world
    carry = refill(init_carry(model.config, 6), batch, constants)
    other = carry.batch.inputs.at[1:].set(1)
    changed = carry._replace(batch=carry.batch._replace(inputs=other))
    outputs = [step(model, params, c, 4)[1].logits for c in (carry, changed)]
    np.testing.assert_allclose(outputs[0][0], outputs[1][0], atol=1e-5)
    assert jnp.abs(outputs[0][1:] - outputs[1][1:]).max() > 1e-2
