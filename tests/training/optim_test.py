# SPDX-License-Identifier: Apache-2.0
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from tests.helpers.golden_trm import GOLDEN
from tests.helpers.tiny import tiny_config
from trm_jax.errors import ConfigError
from trm_jax.model.sublayers import Mamba2
from trm_jax.training.optim import (
    NO_DECAY,
    ema_update,
    make_optimizer,
    make_schedule,
    scale_by_adam_atan2,
    sparse_sign_sgd,
)


def test_adam_atan2_matches_the_published_updates():
    g = np.load(GOLDEN / "adam_atan2.npz")
    with jax.enable_x64(True):
        rates = jnp.asarray(g["lr"])
        optimizer = make_optimizer(
            lambda step: rates[step - 1],
            b1=float(g["b1"]),
            b2=float(g["b2"]),
            weight_decay=float(g["weight_decay"]),
        )
        params = jnp.asarray(g["params"][0])
        state = optimizer.init(params)
        for grads, expected in zip(g["grads"], g["params"][1:], strict=True):
            updates, state = optimizer.update(jnp.asarray(grads), state, params)
            params = optax.apply_updates(params, updates)
            np.testing.assert_allclose(params, expected, rtol=1e-12, atol=1e-14)


def test_adam_atan2_leaves_a_parameter_without_gradient_alone():
    optimizer = scale_by_adam_atan2(0.9, 0.95)
    updates, _ = optimizer.update(jnp.zeros(3), optimizer.init(jnp.ones(3)))
    np.testing.assert_array_equal(updates, 0.0)


def test_sparse_sign_sgd_matches_the_published_updates():
    g = np.load(GOLDEN / "sparse_sign_sgd.npz")
    table = jnp.asarray(g["table0"])
    for lr, expected in zip(g["lr"], g["tables"], strict=True):
        table = sparse_sign_sgd(
            table,
            jnp.asarray(g["ids"]),
            jnp.asarray(g["grad"]),
            lr=float(lr),
            weight_decay=float(g["weight_decay"]),
        )
        np.testing.assert_allclose(table, expected, rtol=1e-6, atol=1e-7)


def test_sparse_sign_sgd_leaves_other_rows_alone_to_the_bit():
    table = jax.random.normal(jax.random.key(0), (50, 4))
    ids = jnp.array([7, 7, 3, 49])
    grads = jnp.ones((4, 4))
    new = sparse_sign_sgd(table, ids, grads, lr=0.1, weight_decay=0.5)
    others = np.setdiff1d(np.arange(50), ids)
    np.testing.assert_array_equal(new[others], table[others])
    assert (new[ids] != table[ids]).all()


@pytest.mark.parametrize("min_ratio", [1.0, 0.1, 0.0])
def test_schedule_matches_the_published_one(min_ratio):
    g = np.load(GOLDEN / "lr_schedule.npz")
    schedule = make_schedule(
        float(g["base_lr"]),
        warmup_steps=int(g["warmup"]),
        total_steps=int(g["total"]),
        min_ratio=min_ratio,
    )
    found = jax.vmap(schedule)(jnp.asarray(g["steps"]))
    np.testing.assert_allclose(
        found, g[f"min_ratio_{min_ratio}"], rtol=1e-5, atol=1e-10
    )


def test_first_update_uses_step_1_of_the_schedule():
    optimizer = make_optimizer(
        lambda step: 0.1 * step, b1=0.9, b2=0.9, weight_decay=1.0
    )
    params = jnp.ones(2)
    updates, _ = optimizer.update(jnp.zeros(2), optimizer.init(params), params)
    np.testing.assert_allclose(updates, -0.1, rtol=1e-6)


@pytest.fixture(scope="module")
def mamba2_params():
    hidden = jnp.zeros((1, 4, 32), jnp.float32)
    init = jax.jit(Mamba2(tiny_config()).init)
    return {"network": {"0_mamba2": init(jax.random.key(0), hidden)["params"]}}


def test_decay_spares_what_mamba2_keeps_free_of_it_and_nothing_else(mamba2_params):
    optimizer = make_optimizer(lambda step: 0.1, b1=0.9, b2=0.95, weight_decay=0.5)
    zeros = jax.tree.map(jnp.zeros_like, mamba2_params)
    state = optimizer.init(mamba2_params)
    updates, _ = optimizer.update(zeros, state, mamba2_params)
    found = flatten_dict(updates["network"]["0_mamba2"])
    before = flatten_dict(mamba2_params["network"]["0_mamba2"])
    free = {path for path, update in found.items() if not update.any()}
    assert free == {(name,) for name in NO_DECAY}
    assert found.keys() - free == {
        ("in_proj", "kernel"),
        ("conv_kernel",),
        ("out_proj", "kernel"),
    }
    for path in found.keys() - free:
        np.testing.assert_allclose(found[path], -0.05 * before[path], rtol=1e-6)


def test_decay_goes_by_the_last_name_alone():
    params = {"D": {"kernel": jnp.ones(2)}, "head": {"D": jnp.ones(2)}}
    optimizer = make_optimizer(lambda step: 0.1, b1=0.9, b2=0.95, weight_decay=0.5)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["D"]["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["head"]["D"], 0.0)


def test_the_optimiser_keeps_a_count_and_two_moments_per_weight(mamba2_params):
    # Checkpoints are restored into this tree: a change here makes old ones unreadable.
    optimizer = make_optimizer(lambda step: 0.1, b1=0.9, b2=0.95, weight_decay=0.5)
    state = optimizer.init(mamba2_params)
    adam, decay, rate = state
    assert adam._fields == ("num_updates", "m", "v")
    assert not jax.tree.leaves(decay)
    assert rate._fields == ("count",)
    for moment in (adam.m, adam.v):
        chex.assert_trees_all_equal_shapes_and_dtypes(moment, mamba2_params)
    _, after = optimizer.update(mamba2_params, state, mamba2_params)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert (int(after[0].num_updates), int(after[2].count)) == (1, 1)


def test_decay_starts_late_if_asked_to():
    schedule = make_schedule(
        1.0, warmup_steps=10, total_steps=100, min_ratio=0.0, decay_start=0.5
    )
    assert float(schedule(50)) == 1.0
    assert 0.49 < float(schedule(75)) < 0.51
    assert float(schedule(100)) < 1e-6
    with pytest.raises(ConfigError, match="decay_start"):
        make_schedule(
            1.0, warmup_steps=1, total_steps=9, min_ratio=0.0, decay_start=1.5
        )


def test_ema_follows_its_definition_and_its_ramp():
    old, new = jnp.array(1.0), jnp.array(2.0)
    plain = ema_update(old, new, jnp.array(1), decay=0.9, ramp=False)
    ramped = ema_update(old, new, jnp.array(1), decay=0.9, ramp=True)
    np.testing.assert_allclose([plain, ramped], [1.1, 2 - 2 / 11], rtol=1e-6)
    late = ema_update(old, new, jnp.array(1000), decay=0.9, ramp=True)
    np.testing.assert_allclose(late, 1.1, rtol=1e-6)
