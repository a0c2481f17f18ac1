# SPDX-License-Identifier: Apache-2.0
from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.tiny import tiny_config, tiny_optim
from trm_jax.errors import ConfigError
from trm_jax.model.model import TRM
from trm_jax.training.sharding import make_mesh, put_batch, state_shardings
from trm_jax.training.step import init_train_state, jit_train_step, make_train_step

ROWS = 8


@cache
def programs(model, x64, devices, micro_batches, seed, log_every, optim):
    """(init, compiled step, mesh); `x64` tells programs of both widths apart."""
    optim = tiny_optim(**dict(optim))
    mesh = make_mesh(devices)
    init = partial(init_train_state, model, optim, batch_size=ROWS)
    state = jax.eval_shape(init, jax.random.key(seed))
    sharded_init = jax.jit(init, out_shardings=state_shardings(state, mesh))
    step = make_train_step(
        model,
        optim,
        loss="stablemax",
        seed=seed,
        micro_batches=micro_batches,
        log_every=log_every,
    )
    compiled = jit_train_step(step, state, mesh, micro_batches=micro_batches)
    return sharded_init, compiled, mesh


def setup(model, *, devices=1, micro_batches=1, seed=0, log_every=2, **optim):
    """(initial state on the mesh, compiled step, mesh)."""
    settings = devices, micro_batches, seed, log_every, tuple(optim.items())
    init, step, mesh = programs(model, jax.enable_x64.value, *settings)
    return init(jax.random.key(seed)), step, mesh


def run(model, make_batch, num_steps=1, **kwargs):
    state, step, mesh = setup(model, **kwargs)
    for k in range(num_steps):
        batch = make_batch(k, model.config, ROWS)
        state = step(state, put_batch(batch._asdict(), mesh))
    return state


def test_the_step_compiles_once_and_is_donated(model, make_batch):
    state, step, mesh = setup(model)
    for k in range(4):
        before = state
        batch = put_batch(make_batch(k, model.config, ROWS)._asdict(), mesh)
        state = step(state, batch)
    assert step._cache_size() == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    chex.assert_tree_all_finite(state)
    assert int(state.step) == 4


def test_the_step_moves_no_data_between_host_and_device_unasked(model, make_batch):
    state, step, mesh = setup(model)
    batch = put_batch(make_batch(0, model.config, ROWS)._asdict(), mesh)
    with jax.transfer_guard("disallow"):
        step(state, batch)


def test_two_fresh_runs_are_equal_to_the_bit(model, make_batch):
    states = [run(model, make_batch, 3) for _ in range(2)]
    chex.assert_trees_all_equal(*states)


IN_PARTS = [{"micro_batches": 4}, {"devices": 2}, {"micro_batches": 2, "devices": 2}]
CASES = [(mixer, how) for mixer in ("attention", "token_mlp") for how in IN_PARTS]
CASES.append(("mamba2", IN_PARTS[2]))


@pytest.mark.parametrize(("mixer", "how"), [("attention", IN_PARTS[2])])
def test_one_step_in_parts_has_the_same_loss_and_gradients(model, make_batch, how):
    whole, parts = run(model, make_batch), run(model, make_batch, **how)
    chex.assert_trees_all_close(parts.metrics, whole.metrics, atol=1e-5, rtol=1e-5)
    chex.assert_trees_all_equal(parts.carry.batch, whole.carry.batch)
    # Adam-atan2's first update is lr * pi / 4 * sign(gradient) almost everywhere: where
    # the gradient is round-off, so is the sign. Gradients are compared through m.
    m, expected = parts.opt_state[0].m, whole.opt_state[0].m
    chex.assert_trees_all_close(m, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("mixer", "how"), CASES)
def test_one_step_in_parts_is_exact_in_float64(mixer, make_batch, how):
    # Without float32 round-off, which the recursion amplifies, nothing is left.
    with jax.enable_x64(True):
        model = TRM(tiny_config(layers=(mixer, "swiglu"), dtype="float64"))
        whole, parts = run(model, make_batch), run(model, make_batch, **how)
        assert whole.carry.y.dtype == jnp.float64
        # Softmax inside attention stays float32.
        tol = {"attention": 1e-5, "token_mlp": 1e-10, "mamba2": 1e-10}[mixer]
        chex.assert_trees_all_close(parts.carry, whole.carry, atol=tol, rtol=tol)
        m, expected = parts.opt_state[0].m, whole.opt_state[0].m
        tol = {"attention": 1e-5, "token_mlp": 1e-8, "mamba2": 1e-8}[mixer]
        chex.assert_trees_all_close(m, expected, atol=tol, rtol=1e-6)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_carry_is_sharded_and_weights_are_replicated(model, make_batch, devices):
    state = run(model, make_batch, devices=devices)
    assert len(state.carry.y.sharding.device_set) == devices
    assert state.carry.y.addressable_shards[0].data.shape[0] == ROWS // devices
    for leaf in jax.tree.leaves(state.params):
        assert leaf.sharding.is_fully_replicated


@pytest.mark.parametrize("mixer", ["attention", "token_mlp", "mamba2"])
def test_no_activation_is_gathered_across_devices(model, make_batch):
    state, step, mesh = setup(model, devices=2)
    batch = put_batch(make_batch(0, model.config, ROWS)._asdict(), mesh)
    lines = step.lower(state, batch).compile().as_text().splitlines()
    gathered = [line for line in lines if " all-gather(" in line]
    # Puzzle ids and puzzle-vector gradients: b and b x d. Activations are b x l x d.
    sizes = [jnp.prod(jnp.array(_shape(line))) for line in gathered]
    assert all(size <= ROWS * model.config.puzzle_width for size in sizes), gathered
    assert any(" all-reduce" in line for line in lines)


def _shape(line):
    dims = line.split("[", 1)[1].split("]", 1)[0]
    return [int(d) for d in dims.split(",") if d] or [1]


def test_loss_falls_on_one_repeated_batch(model, make_batch):
    state, step, mesh = setup(model, log_every=1, lr=3e-3)
    batch = make_batch(0, model.config, ROWS)
    losses = []
    for _ in range(100):
        state = step(state, put_batch(batch._asdict(), mesh))
        total, count = state.metrics["loss"]
        losses.append(float(total / count))
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


def test_metrics_add_up_until_they_are_logged(model, make_batch):
    state, step, mesh = setup(model, log_every=3)
    counts = []
    for k in range(7):
        batch = make_batch(k, model.config, ROWS)
        state = step(state, put_batch(batch._asdict(), mesh))
        counts.append(int(state.metrics["loss"][1]))
    assert counts == [8, 16, 24, 8, 16, 24, 8]


def test_only_the_batchs_rows_of_the_puzzle_table_change(make_batch):
    model = TRM(tiny_config(num_puzzles=40))
    batch = make_batch(0, model.config, ROWS)
    state, step, mesh = setup(model)
    before = np.asarray(state.puzzle_table).copy()
    table = np.asarray(step(state, put_batch(batch._asdict(), mesh)).puzzle_table)
    changed = (table != before).any(-1)
    np.testing.assert_array_equal(np.flatnonzero(changed), np.unique(batch.puzzle_id))


def test_ema_trails_the_parameters_and_constants_stay(model, make_batch):
    fresh, _, _ = setup(model)
    fresh = jax.device_get(fresh)
    state = run(model, make_batch, 1, ema_decay=0.75)
    chex.assert_trees_all_equal(state.constants, fresh.constants)
    expected = jax.tree.map(
        lambda old, new: 0.75 * old + 0.25 * new, fresh.params, state.params
    )
    chex.assert_trees_all_close(state.ema_params, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_bfloat16_trains_float32_weights(make_batch, mixer, remat):
    layers = (mixer, "swiglu")
    model = TRM(tiny_config(layers=layers, dtype="bfloat16", remat=remat))
    state = run(model, make_batch, 3)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {
        jnp.dtype(jnp.float32)
    }
    assert state.carry.y.dtype == state.carry.z.dtype == jnp.bfloat16
    chex.assert_tree_all_finite(state)


def test_seed_and_step_alone_make_the_exploration(make_batch):
    model = TRM(tiny_config(explore_rate=1.0, max_supervision_steps=16))

    def steps_and_halts(seed):
        state, step, mesh = setup(model, seed=seed)
        state.params["halt_bias"] = jnp.full(2, 50.0)  # sure: only exploring rows stay
        history = []
        for k in range(4):
            batch = make_batch(k, model.config, ROWS)
            state = step(state, put_batch(batch._asdict(), mesh))
            history.append(np.asarray(state.carry.halted))
        return np.stack(history)

    np.testing.assert_array_equal(steps_and_halts(0), steps_and_halts(0))
    assert (steps_and_halts(0) != steps_and_halts(1)).any()


def test_sizes_that_do_not_divide_are_refused(model):
    with pytest.raises(ConfigError, match="batch_size = 8 is not divisible"):
        setup(model, micro_batches=3)
    with pytest.raises(ConfigError, match="b = 7 is not divisible by mesh.data = 2"):
        make_mesh(2, batch_sizes={"a": 4, "b": 7})
    with pytest.raises(ConfigError, match="mesh.data = 64 times mesh.fsdp = 1 is 64"):
        make_mesh(64)
    with pytest.raises(ConfigError, match="mesh.fsdp = 3 is 3, but 2 device"):
        make_mesh(0, 3)
