# SPDX-License-Identifier: Apache-2.0
"""The puzzle table at the size of ARC: sharded by rows, updated in place, never copied.

Each test runs on one and two virtual devices. eight_devices_test.py runs this file
with eight devices, where each test runs on four and eight.
"""

import math
import re
from functools import cache, partial

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.helpers.tiny import tiny_built
from trm_jax.errors import ConfigError
from trm_jax.evaluation.evaluate import make_eval_step
from trm_jax.runtime import checkpoint
from trm_jax.training import digest
from trm_jax.training.optim.puzzle_table import sparse_sign_sgd
from trm_jax.training.sharding import (
    TABLE_UNIT,
    in_mesh,
    make_mesh,
    put_batch,
    puzzle_vectors,
    state_shardings,
    table_rows,
)
from trm_jax.types import BATCH_AXES

ROWS = 16  # in a batch
ARC_1 = {"num_puzzles": 876_407, "puzzle_dim": 512, "prefix_len": 17}  # table padded
SMALL = {"num_puzzles": TABLE_UNIT, "puzzle_dim": 64}
COUNTS = (1, 2) if jax.device_count() < 8 else (4, 8)
on_one_or_more = pytest.mark.parametrize("devices", COUNTS)
on_several = pytest.mark.parametrize("devices", [n for n in COUNTS if n > 1])


def tiny(mesh, *, num_puzzles=5, puzzle_dim=0, prefix_len=2, micro_batches=1):
    """A run with one cycle of each kind, and no update of its weights.

    Adam amplifies round-off: updated weights would depend on the number of devices.
    """
    changes = {
        "model.layers": ("token_mlp", "swiglu"),
        "rule.trm.h_cycles": 1,
        "rule.trm.l_cycles": 1,
        "model.puzzle_dim": puzzle_dim,
        "model.prefix_len": prefix_len,
        "optim.lr": 0.0,
        "train.batch_size": ROWS,
        "train.log_every": 1,
        "train.micro_batches": micro_batches,
        "eval.batch_size": ROWS,
        "mesh.data": mesh,
        "sizes.num_puzzles": num_puzzles,
    }
    return tiny_built(changes)


@cache
def compiled_train(devices, micro_batches=1):
    built = tiny(devices, **ARC_1, micro_batches=micro_batches)
    like = built.state_like
    return built.train_step.lower(like, like.carry.batch).compile()


@cache
def compiled_eval(devices):
    built = tiny(devices, **ARC_1)
    like = built.state_like
    step = make_eval_step(built.recipe, built.mesh, num_steps=2)
    weights = like.params, like.constants, like.puzzle_table
    numbers = jax.ShapeDtypeStruct((ROWS,), np.int32)
    return step.lower(weights, like.carry.batch, numbers).compile()


def trained(make_batch, built, num_steps):
    """The addresses of the table before training, and the state after it."""
    state = built.init()
    before = addresses(state.puzzle_table)
    for batch in batches(make_batch, built, num_steps):
        state = built.train_step(state, batch)
    return before, state


def batches(make_batch, built, count):
    """Batches with every id in both halves, so on more than one device."""
    for k in range(count):
        batch = make_batch(k, built.recipe.model.config, ROWS)
        batch.puzzle_id[ROWS // 2 :] = batch.puzzle_id[: ROWS // 2]
        yield put_batch(batch._asdict(), built.mesh)


COLLECTIVE = re.compile(r" = (.*?) (all-[a-z]+|collective-[a-z]+|reduce-scatter)[-(]")


def collectives(program):
    """(name, number of elements) of each array that travels between devices."""
    for line in program.as_text().splitlines():
        if found := COLLECTIVE.search(line):
            for dims in re.findall(r"\w+\[([\d,]*)\]", found[1]):
                yield found[2], math.prod(int(d) for d in dims.split(",") if d)


def shares(table):
    return [shard.data.shape for shard in table.addressable_shards]


def addresses(table):
    return [s.data.unsafe_buffer_pointer() for s in table.addressable_shards]


def test_large_tables_are_rounded_up_and_small_ones_stay_as_they_are():
    sizes = [1, 5, TABLE_UNIT - 1, TABLE_UNIT, TABLE_UNIT + 1, 876_407, 1_191_732]
    rows = [1, 5, 3071, 3072, 6144, 878_592, 1_191_936]
    assert [table_rows(n) for n in sizes] == rows
    assert tiny(1, num_puzzles=1).state_like.puzzle_table.shape == (1, 32)
    assert tiny(1, **ARC_1).state_like.puzzle_table.shape == (878_592, 512)


@on_several
def test_every_device_holds_its_share_of_a_large_table_and_all_of_a_small(devices):
    large = tiny(devices, **SMALL).init().puzzle_table
    assert shares(large) == [(TABLE_UNIT // devices, 64)] * devices
    small = tiny(devices, num_puzzles=TABLE_UNIT - 1).init().puzzle_table
    assert shares(small) == [(TABLE_UNIT - 1, 32)] * devices


def test_devices_that_do_not_divide_a_large_table_are_refused():
    mesh = Mesh(np.array((5 * jax.devices())[:5])[:, None], BATCH_AXES)
    state_shardings(tiny(1, num_puzzles=1).state_like, mesh)
    with pytest.raises(ConfigError, match="5 devices does not divide the 878,592"):
        state_shardings(tiny(1, **ARC_1).state_like, mesh)


@pytest.mark.optimized
@on_several
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_training_moves_ids_and_puzzle_vectors_but_never_the_table(
    devices, micro_batches
):
    found = list(collectives(compiled_train(devices, micro_batches)))
    built = tiny(devices, **ARC_1)
    weights = jax.tree.leaves(built.state_like.params)
    largest_weight = max(leaf.size for leaf in weights)
    vectors = ROWS * 512
    assert {name for name, _ in found} <= {"all-gather", "all-reduce"}
    assert max(n for name, n in found if name == "all-gather") <= vectors
    # The gradient of each weight is summed over devices. Activations are b x l x d.
    assert max(n for _, n in found) <= max(vectors, largest_weight)
    assert max(vectors, largest_weight) < ROWS * built.recipe.model.config.seq_len * 32


@pytest.mark.optimized
@on_several
def test_evaluation_moves_ids_and_puzzle_vectors_but_never_the_table(devices):
    found = list(collectives(compiled_eval(devices)))
    assert found
    assert {name for name, _ in found} <= {"all-gather", "all-reduce"}
    assert max(n for _, n in found) <= ROWS * 512
    # Ids, and the answers to all rows, `b m`, which every process gets.
    answers = ROWS * tiny(1).recipe.model.config.num_cells
    assert max(n for name, n in found if name == "all-gather") <= answers


@pytest.mark.optimized
@on_one_or_more
def test_neither_training_nor_evaluation_copies_the_table(devices):
    share = table_rows(876_407) * 512 * 4 // devices
    train = compiled_train(devices).memory_analysis()
    assert train.temp_size_in_bytes < share / 20
    assert share <= train.alias_size_in_bytes <= train.argument_size_in_bytes
    assert train.argument_size_in_bytes < 1.1 * share  # the state has only one table
    evaluation = compiled_eval(devices).memory_analysis()
    assert evaluation.temp_size_in_bytes < share / 20


@on_one_or_more
def test_steps_write_into_the_table_where_it_lies(devices, make_batch):
    before, state = trained(make_batch, tiny(devices, **SMALL), 2)
    assert addresses(state.puzzle_table) == before


def by_hand(table, ids, grads, lr, decay):
    """The update rule, row by row; gradients are added in the order of the batch."""
    new = table.copy()
    for i in np.unique(ids):
        total = np.zeros(table.shape[1], np.float32)
        for grad in grads[ids == i]:
            total += grad
        new[i] = table[i] * np.float32(1 - lr * decay) - np.float32(lr) * np.sign(total)
    return new


def awkward_update(rows):
    """Ids on both halves of the batch; sums that are zero or depend on the order."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((rows, 4)).astype(np.float32)
    ids = np.array([7, rows - 1, 7, 0, 1500, 9, 1500, 0] * 2, np.int32)
    ids[9] = 2000
    grads = rng.standard_normal((ROWS, 4)).astype(np.float32)
    grads[ids == 0] = np.array([1, -2, 3, -2], np.float32)[:, None]
    grads[ids == 9] = 0
    # Added one after the other, these give 1; added by halves of the batch, 0.
    grads[ids == 7] = np.array([1e8, 0, -1e8, 1], np.float32)[:, None]
    return table, ids, grads


@on_one_or_more
def test_the_update_is_the_same_on_any_number_of_devices(devices):
    table, ids, grads = awkward_update(TABLE_UNIT)
    update = partial(sparse_sign_sgd, lr=0.125, weight_decay=0.5)
    mesh = make_mesh(devices)
    rows = NamedSharding(mesh, P(BATCH_AXES))
    args = jax.device_put((table, ids, grads), rows)
    fn = jax.jit(in_mesh(update, mesh), donate_argnums=0, out_shardings=rows)
    found = np.asarray(fn(*args))
    expected = by_hand(table, ids, grads, 0.125, 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    decayed = [0, 9]
    np.testing.assert_array_equal(found[decayed], table[decayed] * np.float32(0.9375))
    others = np.setdiff1d(np.arange(TABLE_UNIT), ids)
    np.testing.assert_array_equal(found[others], table[others])
    np.testing.assert_array_equal(found, jax.jit(update)(table, ids, grads))


@on_several
def test_training_ends_with_the_same_table_on_any_number_of_devices(
    devices, make_batch
):
    found, expected = (
        np.asarray(trained(make_batch, tiny(n, **SMALL), 3)[1].puzzle_table)
        for n in (devices, 1)
    )
    assert np.count_nonzero(expected.any(-1)) >= ROWS // 2
    np.testing.assert_array_equal(found, expected)


@on_one_or_more
def test_an_id_outside_the_table_is_not_taken_for_another(devices):
    mesh = make_mesh(devices)
    rows = NamedSharding(mesh, P(BATCH_AXES))
    table = np.ones((TABLE_UNIT, 4), np.float32)
    ids = np.arange(ROWS, dtype=np.int32)
    outside = [1, 5, 15]
    ids[outside] = [-1, TABLE_UNIT, 2**31 - 1]
    args = jax.device_put((table, ids), rows)
    found = np.asarray(jax.jit(in_mesh(puzzle_vectors, mesh))(*args))
    np.testing.assert_array_equal(np.isnan(found).all(-1), np.isin(ids, ids[outside]))
    assert (np.delete(found, outside, 0) == 1).all()
    update = partial(sparse_sign_sgd, lr=0.5, weight_decay=0.0)
    ones = jax.device_put(np.ones((ROWS, 4), np.float32), rows)
    new = np.asarray(jax.jit(in_mesh(update, mesh))(*args, ones))
    changed = np.flatnonzero((new != 1).any(-1))
    np.testing.assert_array_equal(changed, np.delete(ids, outside))


def test_an_id_outside_the_table_shows_in_the_metrics(make_batch):
    built = tiny(1)
    (batch,) = batches(make_batch, built, 1)
    batch = batch._replace(puzzle_id=batch.puzzle_id.at[3].set(5))
    state = built.train_step(built.init(), batch)
    assert math.isnan(state.metrics["loss"][0])


@on_several
def test_a_checkpoint_of_one_mesh_restores_on_another(devices, tmp_path, make_batch):
    _, state = trained(make_batch, tiny(devices, **SMALL), 2)
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    checkpoints.save(state)
    checkpoints.wait()
    for count in (1, devices // 2, devices):
        like = tiny(count, **SMALL).state_like
        restored = checkpoints.restore_step(like, 2)
        assert shares(restored.puzzle_table) == [(TABLE_UNIT // count, 64)] * count
        assert digest.leaf_digests(restored) == digest.leaf_digests(state)
    checkpoints.close()


@pytest.mark.optimized
@on_one_or_more
def test_digests_read_the_table_without_copying_it(devices):
    table = tiny(devices, **ARC_1).state_like.puzzle_table
    program = digest.digest_words.lower([table]).compile()
    assert program.memory_analysis().temp_size_in_bytes < 2**20
    assert all(n <= 2 * devices for _, n in collectives(program))
