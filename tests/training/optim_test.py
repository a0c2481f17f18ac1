# SPDX-License-Identifier: Apache-2.0
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from tests.helpers.golden_trm import GOLDEN
from tests.helpers.tiny import tiny_built
from trm_jax.errors import ConfigError
from trm_jax.model.sublayers import Mamba2
from trm_jax.training.build import decayed
from trm_jax.training.optim import ema_update
from trm_jax.training.optim.adam_atan2 import AdamAtan2, scale_by_adam_atan2
from trm_jax.training.optim.adamw import AdamW
from trm_jax.training.optim.base import Groups, make_schedule
from trm_jax.training.optim.puzzle_table import sparse_sign_sgd


def groups(decayed):
    return Groups(decayed, lambda params: jax.tree.map(lambda _: (), params))


EVERYTHING = groups(lambda params: jax.tree.map(lambda _: True, params))


def test_adam_atan2_matches_the_published_updates():
    g = np.load(GOLDEN / "adam_atan2.npz")
    with jax.enable_x64(True):
        rates = jnp.asarray(g["lr"])
        adam = AdamAtan2(b1=float(g["b1"]), b2=float(g["b2"]))
        wd = float(g["weight_decay"])
        optimizer = adam.build(1.0, lambda step: rates[step - 1], wd, EVERYTHING)
        params = jnp.asarray(g["params"][0])
        state = optimizer.init(params)
        for grads, expected in zip(g["grads"], g["params"][1:], strict=True):
            updates, state = optimizer.update(jnp.asarray(grads), state, params)
            params = optax.apply_updates(params, updates)
            np.testing.assert_allclose(params, expected, rtol=1e-12, atol=1e-14)


def test_adamw_follows_its_definition():
    chosen = AdamW(b1=0.8, b2=0.9, eps=1e-3)
    only_a = groups(lambda params: {"a": True, "b": False})
    optimizer = chosen.build(0.1, lambda k: k, 0.5, only_a)
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([3.0])}
    state, m, v = optimizer.init(params), 0.0, 0.0
    p = np.array([1.0, -2.0, 3.0])
    for k in (1, 2, 3):
        g = np.array([0.5, -0.1 * k, 2.0])
        grads = {"a": jnp.asarray(g[:2]), "b": jnp.asarray(g[2:])}
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        step = m / (1 - 0.8**k) / (np.sqrt(v / (1 - 0.9**k)) + 1e-3)
        p = p - 0.1 * k * (step + 0.5 * p * np.array([1, 1, 0]))
    found = np.concatenate([params["a"], params["b"]])
    np.testing.assert_allclose(found, p, rtol=1e-5)


def test_everything_decays_if_asked_to():
    def decayed_by(**changes):
        layers = {"model.layers": ("mamba1",), "optim.lr": 0.1, "optim.warmup_steps": 0}
        optim = tiny_built(layers | changes).recipe.optim
        params = {"net": {"0_mamba1": {"A_log": jnp.ones(2), "x": jnp.ones(2)}}}
        still = jax.tree.map(jnp.zeros_like, params)
        updates, _ = optim.optimizer.update(still, optim.optimizer.init(params), params)
        return {name: bool(u.any()) for name, u in updates["net"]["0_mamba1"].items()}

    assert decayed_by() == {"A_log": False, "x": True}
    assert decayed_by(**{"optim.decay_all": True}) == {"A_log": True, "x": True}


def test_adam_atan2_leaves_a_parameter_without_gradient_alone():
    optimizer = scale_by_adam_atan2(0.9, 0.95)
    updates, _ = optimizer.update(jnp.zeros(3), optimizer.init(jnp.ones(3)))
    np.testing.assert_array_equal(updates, 0.0)


@pytest.mark.parametrize("size", [1e-10, 1e-20, 1e-30, 1e-39])
def test_the_first_update_of_adam_atan2_has_its_size_for_any_gradient(size):
    optimizer = scale_by_adam_atan2(0.9, 0.95)
    grads = jnp.array([size, -size, 0.0], jnp.float32)
    updates, state = optimizer.update(grads, optimizer.init(jnp.ones(3)))
    expected = np.arctan(0.1) / 0.1 * np.array([1, -1, 0])
    if size < 1e-38:  # a CPU takes such numbers for zero
        assert np.abs(updates).max() <= expected[0] * (1 + 1e-6)
    else:
        np.testing.assert_allclose(updates, expected, rtol=1e-6)
    # A first moment outlives the second one, but moves nothing by itself.
    updates, state = optimizer.update(jnp.zeros(3), state)
    assert size > 1e-19 or not updates.any()


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 50.0])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_gradients_are_clipped_to_their_global_norm(name, max_norm):
    changes = {"model.layers": ("swiglu",), "optim.name": name}
    plain = tiny_built(changes).recipe.optim.optimizer
    clipped = tiny_built(changes | {"optim.clip_norm": max_norm}).recipe.optim.optimizer
    params = {"a": jnp.ones(2), "net": {"0_swiglu": {"down": {"kernel": jnp.eye(3)}}}}
    grads = jax.tree.map(jnp.ones_like, params)
    grads["a"] = jnp.array([2.0, -1.0])  # the norm is the root of 4 + 1 + 9
    scale = min(1, max_norm / 14**0.5) if max_norm else 1
    _, found = clipped.update(grads, clipped.init(params), params)
    scaled = jax.tree.map(lambda g: scale * g, grads)
    _, expected = plain.update(scaled, plain.init(params), params)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)  # the moments


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
    adam = AdamAtan2(b1=0.9, b2=0.9)
    optimizer = adam.build(0.1, lambda step: step, 1.0, EVERYTHING)
    params = jnp.ones(2)
    updates, _ = optimizer.update(jnp.zeros(2), optimizer.init(params), params)
    np.testing.assert_allclose(updates, -0.1, rtol=1e-6)


@pytest.fixture(scope="module")
def mamba2():
    """The optimiser and the parameters of a network with Mamba-2."""
    changes = {"model.layers": ("mamba2", "swiglu"), "optim.warmup_steps": 0}
    built = tiny_built(changes | {"optim.lr": 0.1, "optim.weight_decay": 0.5})
    return built.recipe.optim.optimizer, built.init().params


def test_decay_spares_what_mamba2_keeps_free_of_it_and_nothing_else(mamba2):
    optimizer, params = mamba2

    @jax.jit
    def update(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optimizer.update(zeros, optimizer.init(params), params)[0]

    on_host = jax.device_get((update(params), params))
    found, before = map(flatten_dict, on_host)
    decayed = {path for path in found if before[path].any()}
    free = {path for path in decayed if not found[path].any()}
    assert free == {("net", "0_mamba2", name) for name in Mamba2.no_decay}
    for path in decayed - free:
        np.testing.assert_allclose(found[path], -0.05 * before[path], rtol=1e-5)


def test_decay_goes_by_the_operator_and_the_last_name():
    params = {
        "net": {"0_mamba2": {"D": 1, "D_log": 1, "A_log": {"kernel": 1}}},
        "low": {"1_swiglu": {"D": 1}},
        "head": {"D": 1},
        "rule": {"gate": 1, "inner": {"gate": 1}, "D": 1},
    }
    expected = {
        "net": {"0_mamba2": {"D": False, "D_log": True, "A_log": {"kernel": True}}},
        "low": {"1_swiglu": {"D": True}},
        "head": {"D": True},
        "rule": {"gate": False, "inner": {"gate": False}, "D": True},
    }
    assert decayed(("gate",))(params) == expected


def test_the_optimiser_keeps_a_count_and_two_moments_per_weight(mamba2):
    # Checkpoints are restored into this tree: a change makes old ones unreadable.
    optimizer, params = mamba2
    state = optimizer.init(params)
    adam, decay, rate = state
    assert adam._fields == ("num_updates", "m", "v")
    assert not jax.tree.leaves(decay)
    assert rate._fields == ("count",)
    for moment in (adam.m, adam.v):
        chex.assert_trees_all_equal_shapes_and_dtypes(moment, params)
    _, after = optimizer.update(params, state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert (int(after[0].num_updates), int(after[2].count)) == (1, 1)


def test_decay_starts_late_if_asked_to():
    schedule = make_schedule(
        1.0, warmup_steps=10, total_steps=100, min_ratio=0.0, decay_start=0.5
    )
    assert float(schedule(50)) == 1.0
    assert 0.49 < float(schedule(75)) < 0.51
    assert float(schedule(100)) < 1e-6


def test_the_decay_can_be_a_line_and_end_at_zero():
    shape = {"warmup_steps": 2, "total_steps": 10, "min_ratio": 0.0}
    schedule = make_schedule(0.5, **shape, decay_shape="linear")
    found = [float(schedule(k)) for k in range(1, 11)]
    expected = [0.25, 0.5, *(0.5 * left / 8 for left in range(7, -1, -1))]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_the_warm_up_follows_the_first_updates():
    shape = {"total_steps": 9, "min_ratio": 0.0, "decay_shape": "linear"}
    warm = make_schedule(1.0, warmup_steps=2, first=3, **shape)
    found = [float(warm(k)) for k in range(1, 10)]
    np.testing.assert_allclose(found, [0, 0, 0, 0.5, 1, 0.75, 0.5, 0.25, 0], atol=1e-7)
    cold = make_schedule(1.0, warmup_steps=0, first=3, **shape)
    assert [float(cold(k)) for k in (3, 4)] == [0, pytest.approx(5 / 6)]


def test_the_table_alone_is_refused_without_a_table():
    changes = {"model.prefix_len": 0, "optim.table_only_steps": 1}
    with pytest.raises(ConfigError, match=r"optim\.table_only_steps = 1, but model"):
        tiny_built(changes)


def test_a_ramp_of_no_average_is_refused():
    changes = {"optim.ema_ramp": True, "optim.ema_decay": 0.0}
    with pytest.raises(ConfigError, match=r"optim\.ema_ramp = True, but optim\.ema_de"):
        tiny_built(changes)


@pytest.mark.parametrize(("key", "value"), [("start", 0.5), ("shape", "linear")])
def test_the_form_of_a_decay_is_refused_where_the_rate_is_kept(key, value):
    form = {f"optim.decay_{key}": value}
    with pytest.raises(ConfigError, match=rf"decay_{key} = {value}, but .* keeps the"):
        tiny_built(form)
    tiny_built(form | {"optim.min_ratio": 0.5})


def test_a_run_that_trains_the_table_alone_is_refused():
    changes = {"optim.table_only_steps": 5, "train.steps": 5}
    with pytest.raises(ConfigError, match=r"table_only_steps = 5 of train.steps = 5: "):
        tiny_built(changes)
    tiny_built(changes | {"train.steps": 6})


def test_ema_follows_its_definition_and_its_ramp():
    old, new = jnp.array(1.0), jnp.array(2.0)
    plain = ema_update(old, new, jnp.array(1), decay=0.9, ramp=False)
    ramped = ema_update(old, new, jnp.array(1), decay=0.9, ramp=True)
    np.testing.assert_allclose([plain, ramped], [1.1, 2 - 2 / 11], rtol=1e-6)
    late = ema_update(old, new, jnp.array(1000), decay=0.9, ramp=True)
    np.testing.assert_allclose(late, 1.1, rtol=1e-6)
