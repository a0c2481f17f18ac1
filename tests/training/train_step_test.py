# SPDX-License-Identifier: Apache-2.0
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.tiny import ROWS, tiny_built
from trm_jax.errors import ConfigError
from trm_jax.training.sharding import make_mesh, put_batch

pytestmark = pytest.mark.optimized


ATTENTION = {"model.layers": ("attention", "swiglu")}


@pytest.fixture
def network(mixer):
    return {"model.layers": (mixer, "swiglu")}


def run(changes, make_batch, num_steps=1):
    built = tiny_built(changes)
    state = built.init()
    for k in range(num_steps):
        state = built.train_step(state, batch_on(built, make_batch, k))
    return state


def batch_on(built, make_batch, seed):
    batch = make_batch(seed, built.recipe.model.config, ROWS)
    return put_batch(batch._asdict(), built.mesh)


def test_the_step_compiles_once_and_is_donated(network, make_batch):
    built = tiny_built(network)
    state = built.init()
    for k in range(4):
        before = state
        state = built.train_step(state, batch_on(built, make_batch, k))
    assert built.train_step._cache_size() == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    chex.assert_tree_all_finite(state)
    assert int(state.step) == 4


def test_the_step_moves_no_data_between_host_and_device_unasked(network, make_batch):
    built = tiny_built(network)
    state, batch = built.init(), batch_on(built, make_batch, 0)
    with jax.transfer_guard("disallow"):
        built.train_step(state, batch)


def test_two_fresh_runs_are_equal_to_the_bit(network, make_batch):
    states = [run(network, make_batch, 3) for _ in range(2)]
    chex.assert_trees_all_equal(*states)


IN_PARTS = [
    {"train.micro_batches": 4},
    {"mesh.data": 2},
    {"train.micro_batches": 2, "mesh.data": 2},
]
SLOW = pytest.mark.slow
ONE_HERE = [
    "attention",
    *(pytest.param(m, marks=SLOW) for m in ("token_mlp", "mamba2")),
]
CASES = [
    *(pytest.param(m, IN_PARTS[2], marks=SLOW) for m in ("token_mlp", "mamba2")),
    *(pytest.param("attention", how, marks=SLOW) for how in IN_PARTS),
]


@pytest.mark.slow
@pytest.mark.parametrize(("mixer", "how"), [("attention", IN_PARTS[2])])
def test_one_step_in_parts_has_the_same_loss_and_gradients(network, make_batch, how):
    whole, parts = run(network, make_batch), run(network | how, make_batch)
    chex.assert_trees_all_close(parts.metrics, whole.metrics, atol=1e-5, rtol=1e-5)
    chex.assert_trees_all_equal(parts.carry.batch, whole.carry.batch)
    # The first update of Adam-atan2 is lr * pi / 4 * sign(gradient) almost everywhere,
    # and round-off could flip a sign. Gradients are therefore compared through m.
    m, expected = parts.opt_state[0].m, whole.opt_state[0].m
    chex.assert_trees_all_close(m, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("mixer", "how"), CASES)
def test_one_step_in_parts_is_exact_in_float64(mixer, network, make_batch, how):
    # No difference is left without float32 round-off, which the recursion amplifies.
    with jax.enable_x64(True):
        whole, parts = run(network, make_batch), run(network | how, make_batch)
        assert whole.carry.state.y.dtype == jnp.float64
        # Softmax inside attention stays float32.
        tol = {"attention": 1e-5, "token_mlp": 1e-10, "mamba2": 1e-10}[mixer]
        chex.assert_trees_all_close(parts.carry, whole.carry, atol=tol, rtol=tol)
        m, expected = parts.opt_state[0].m, whole.opt_state[0].m
        tol = {"attention": 1e-5, "token_mlp": 1e-8, "mamba2": 1e-8}[mixer]
        chex.assert_trees_all_close(m, expected, atol=tol, rtol=1e-6)


@pytest.mark.parametrize("mixer", ONE_HERE[:2])
@pytest.mark.parametrize("devices", [1, 2])
def test_the_carry_is_sharded_and_weights_are_replicated(network, make_batch, devices):
    state = run(network | {"mesh.data": devices}, make_batch)
    y = state.carry.state.y
    assert len(y.sharding.device_set) == devices
    assert y.addressable_shards[0].data.shape[0] == ROWS // devices
    for leaf in jax.tree.leaves(state.params):
        assert leaf.sharding.is_fully_replicated


@pytest.mark.parametrize("mixer", ONE_HERE)
def test_no_activation_is_gathered_across_devices(network):
    built = tiny_built(network | {"mesh.data": 2})
    like = built.state_like
    program = built.train_step.lower(like, like.carry.batch).compile()
    lines = program.as_text().splitlines()
    gathered = [line for line in lines if " all-gather(" in line]
    # Puzzle ids are b, puzzle-vector gradients b x d. Activations are b x l x d.
    sizes = [jnp.prod(jnp.array(_shape(line))) for line in gathered]
    assert all(size <= like.puzzle_table.shape[1] * ROWS for size in sizes), gathered
    assert any(" all-reduce" in line for line in lines)


def _shape(line):
    dims = line.split("[", 1)[1].split("]", 1)[0]
    return [int(d) for d in dims.split(",") if d] or [1]


def test_loss_falls_on_one_repeated_batch(network, make_batch):
    built = tiny_built(network)
    state, losses = built.init(), []
    for step in range(1, 121):
        state = built.train_step(state, batch_on(built, make_batch, 0))
        if step % 2 == 0:  # log_every is 2: sums of two steps
            total, count = state.metrics["loss"]
            losses.append(float(total / count))
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_metrics_add_up_until_they_are_logged(make_batch):
    built = tiny_built(ATTENTION)
    assert built.run.train.log_every == 2
    state, counts = built.init(), []
    for k in range(5):
        state = built.train_step(state, batch_on(built, make_batch, k))
        counts.append(int(state.metrics["loss"][1]))
    assert counts == [8, 16, 8, 16, 8]


def test_only_the_batchs_rows_of_the_puzzle_table_change(make_batch):
    built = tiny_built(ATTENTION)
    rows = make_batch(0, built.recipe.model.config, ROWS)
    rows = rows._replace(puzzle_id=rows.puzzle_id % 3)
    state, batch = built.init(), put_batch(rows._asdict(), built.mesh)
    before = np.asarray(state.puzzle_table).copy()
    table = np.asarray(built.train_step(state, batch).puzzle_table)
    changed = (table != before).any(-1)
    np.testing.assert_array_equal(np.flatnonzero(changed), np.unique(batch.puzzle_id))


def test_ema_trails_the_parameters_and_constants_stay(make_batch):
    fresh = jax.device_get(tiny_built(ATTENTION).init())
    state = run(ATTENTION, make_batch)
    chex.assert_trees_all_equal(state.constants, fresh.constants)
    expected = jax.tree.map(
        lambda old, new: 0.9 * old + 0.1 * new, fresh.params, state.params
    )
    chex.assert_trees_all_close(state.ema_params, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("mixer", "remat"),
    [
        ("attention", "dots"),
        pytest.param("token_mlp", "none", marks=SLOW),
        *(pytest.param("attention", r, marks=SLOW) for r in ("none", "full")),
    ],
)
def test_bfloat16_trains_float32_weights(make_batch, network, remat):
    narrow = {"model.dtype": "bfloat16", "rule.trm.remat": remat}
    state = run(network | narrow, make_batch, 3)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {
        jnp.dtype(jnp.float32)
    }
    assert {leaf.dtype for leaf in state.carry.state} == {jnp.dtype(jnp.bfloat16)}
    chex.assert_tree_all_finite(state)


@pytest.mark.slow
def test_seed_and_step_alone_make_the_exploration(make_batch):
    explore = {"halting.explore_rate": 1.0, "halting.max_supervision_steps": 4}
    explore |= {"model.layers": ("swiglu",)}

    def steps_and_halts(seed, first_batch=0):
        built = tiny_built(explore | {"seed": seed})
        state = built.init()
        state.params["halt_bias"] = jnp.full(2, 50.0)  # all but exploring rows halt
        history = []
        for k in range(first_batch, first_batch + 12):
            state = built.train_step(state, batch_on(built, make_batch, k))
            history.append(np.asarray(state.carry.halted))
        return np.stack(history)

    first = steps_and_halts(0)
    np.testing.assert_array_equal(steps_and_halts(0, first_batch=50), first)
    assert (steps_and_halts(1) != first).any()
    # A row that drew the same number each time would always stay equally long.
    stays = [set(np.diff(np.flatnonzero(row))) for row in first.T]
    assert max(map(len, stays)) > 1


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="batch_size = 8 is not divisible"):
        tiny_built({"train.micro_batches": 3})
    with pytest.raises(ConfigError, match="b = 7 is not divisible by mesh.data = 2"):
        make_mesh(2, batch_sizes={"a": 4, "b": 7})
    with pytest.raises(ConfigError, match="mesh.data = 64 times mesh.fsdp = 1 is 64"):
        make_mesh(64)
    with pytest.raises(ConfigError, match="mesh.fsdp = 3 is 3, but 2 device"):
        make_mesh(0, 3)
