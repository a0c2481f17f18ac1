# SPDX-License-Identifier: Apache-2.0
"""One step on eight devices, in any layout, equals the step of one device.

Most tests need eight virtual devices: eight_devices_test.py runs this file on them.
"""

import math
import re
from functools import lru_cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.tiny import tiny_built
from trm_jax.evaluation.evaluate import make_eval_step
from trm_jax.training.digest import state_digest
from trm_jax.training.sharding import (
    TABLE_UNIT,
    make_mesh,
    own_rows,
    put_batch,
    put_rows,
)

ROWS = 16
NETWORKS = {
    "attention": {"model.layers": ("attention", "swiglu")},
    "mlp_t": {"model.layers": ("token_mlp", "swiglu")},
    "mamba2_attn": {"model.layers": ("mamba2", "mamba2", "attention", "swiglu")},
    "mamba2_mlp_t": {"model.layers": ("mamba2", "mamba2", "token_mlp")},
}
OTHERS = {  # these run on the mesh ALL_PARTS only
    "mamba1": {"model.layers": ("mamba1_both", "swiglu")},
    "one_latent": {"model.layers": ("swiglu",), "rule.name": "one_latent"},
    "eqr": {
        "model.layers": ("swiglu",),
        "rule.name": "eqr",
        "rule.eqr.every_cycle": True,
    },
    "urm": {"model.layers": ("swiglu",), "rule.name": "urm"},
    "muon": {
        "model.layers": ("mamba2", "attention"),
        "optim.name": "muon",
        "optim.clip_norm": 0.1,
    },
    "hrm": {"model.layers": ("token_mlp", "swiglu"), "rule.name": "hrm"},
    "grid": {
        "model.layers": ("conv_swiglu", "mamba1_four"),
        "model.conv_swiglu.sides": "grid",
        "model.positions": "rows_columns_boxes",
        "sizes.box_shape": (2, 2),
    },
    "loop": {
        "model.layers": ("mamba1_both",),
        "model.norm": "pre",
        "rule.name": "loop",
        "rule.loop.lifeline": True,
        "rule.loop.loop_encoding": True,
        "rule.loop.supervise": "every",
    },
    "wta": {
        "model.layers": ("swiglu",),
        "rule.name": "wta",
        "rule.wta.inner": "flow",
        "rule.wta.chains": 3,
        "rule.flow.h_cycles": 2,
        "rule.flow.l_cycles": 2,
        "rule.flow.pseudo_steps": 10,
    },
    "registers": {
        "model.layers": ("attention", "swiglu"),
        "model.registers": 2,
        "model.attention.positions": "rope_2d",
        "model.swiglu.inner_norm": True,
    },
}
MESHES = {  # data, fsdp, parts of a batch
    "data": (8, 1, 1),
    "data x fsdp": (4, 2, 1),
    "data x fsdp, in parts": (4, 2, 2),
    "fsdp": (1, 8, 1),
}
EIGHT = jax.device_count() >= 8
on_eight = pytest.mark.skipif(not EIGHT, reason="eight_devices_test.py starts these")
ALL_PARTS = "data x fsdp, in parts"
each_mesh = pytest.mark.parametrize("mesh", MESHES)
each_case = pytest.mark.parametrize(
    ("network", "mesh"),
    [(n, m) for n in NETWORKS for m in MESHES] + [(n, ALL_PARTS) for n in OTHERS],
    scope="module",  # all tests of a case follow each other and share what it compiled
)


class Layout:
    """A small network with a sharded puzzle table, and its step, on one mesh."""

    def __init__(self, network, data, fsdp=1, micro_batches=1):
        changes = {
            **(NETWORKS | OTHERS)[network],
            "sizes.num_puzzles": TABLE_UNIT,
            "train.batch_size": ROWS,
            "eval.batch_size": ROWS,
            "train.log_every": 1,
            "train.micro_batches": micro_batches,
            "mesh.data": data,
            "mesh.fsdp": fsdp,
        }
        built = tiny_built(changes)
        self.recipe, self.mesh = built.recipe, built.mesh
        self.config = built.recipe.model.config
        self.init, self.like = built.init, built.state_like
        self.shardings = jax.tree.map(lambda s: s.sharding, built.state_like)
        self.step = built.train_step.lower(self.like, self.like.carry.batch).compile()

    def after(self, state, *batches):
        """The state after these batches, from a state on the host."""
        state = jax.device_put(state, self.shardings)
        weight = self.like.carry.batch.weight.dtype  # the compiled step casts nothing
        for batch in batches:
            rows = batch._replace(weight=batch.weight.astype(weight))._asdict()
            state = self.step(state, put_batch(rows, self.mesh))
        return state


@lru_cache(maxsize=8)  # more would need too many memory mappings: see conftest.py
def _layout(x64, args):
    return Layout(*args)


def layout(*args):
    return _layout(jax.enable_x64.value, args)


def batches(make_batch, count):
    config = layout("attention", 1).config
    for k in range(count):
        batch = make_batch(k, config, ROWS)
        batch.puzzle_id[ROWS // 2 :] = batch.puzzle_id[: ROWS // 2]
        yield batch


def losses(state):
    return {name: float(total) for name, (total, _) in state.metrics.items()}


@on_eight
@each_case
def test_one_step_from_20_states_of_a_run_has_the_losses_of_one_device(
    network, mesh, make_batch
):
    one, other = layout(network, 1), layout(network, *MESHES[mesh])
    state = jax.device_get(one.init())
    for batch in batches(make_batch, 20):
        followed = jax.device_get(one.after(state, batch))
        found = losses(other.after(state, batch))
        assert found == pytest.approx(losses(followed), rel=1e-5, abs=1e-5)
        state = followed


@on_eight
@each_case
def test_three_steps_in_float64_are_those_of_one_device(network, mesh, make_batch):
    with jax.enable_x64(True):
        one = layout(network, 1)
        other = layout(network, *MESHES[mesh])
        start = jax.device_get(one.init())
        steps = list(batches(make_batch, 3))
        expected, found = one.after(start, *steps), other.after(start, *steps)
        state = jax.tree.leaves(expected.carry.state)
        assert state[0].dtype == jnp.float64
        expected, found = jax.device_get((expected, found))
        assert losses(found) == pytest.approx(losses(expected), rel=1e-6, abs=1e-6)
        chex.assert_trees_all_equal(found.carry.batch, expected.carry.batch)
        chex.assert_trees_all_close(found.params, expected.params, atol=1e-6)
        assert np.count_nonzero(expected.puzzle_table.any(-1)) >= 5


@on_eight
@each_case
def test_each_layout_repeats_itself_to_the_bit(network, mesh, make_batch):
    on_mesh = layout(network, *MESHES[mesh])
    start = jax.device_get(on_mesh.init())
    steps = list(batches(make_batch, 3))
    first, second = (state_digest(on_mesh.after(start, *steps)) for _ in range(2))
    assert first == second


@on_eight
def test_every_layout_starts_from_the_same_state():
    digests = {
        state_digest(layout("attention", *m).init()) for m in [(1,), *MESHES.values()]
    }
    assert len(digests) == 1


@on_eight
@pytest.mark.parametrize("fsdp", [2, 4, 8])
def test_weights_and_moments_are_shared_out_over_fsdp(fsdp):
    state = layout("mamba2_attn", 8 // fsdp, fsdp).init()
    matrices = shared = 0
    for tree in (state.params, state.ema_params, state.opt_state):
        for leaf in jax.tree.leaves(tree):
            matrices += leaf.ndim > 1
            parts = {s.data.size for s in leaf.addressable_shards}
            shared += parts == {leaf.size // fsdp} and leaf.ndim > 1
            assert leaf.ndim > 1 or parts == {leaf.size}
    assert shared >= 0.9 * matrices
    for leaf in (state.carry.state.y, state.puzzle_table):
        assert leaf.addressable_shards[0].data.shape[0] == len(leaf) // 8


def test_over_two_devices_of_fsdp_each_has_half_of_every_matrix():
    layers = ("mamba2", "attention", "token_mlp", "swiglu", "conv_swiglu")
    changes = {"model.layers": layers, "mesh.data": 1, "mesh.fsdp": 2}
    changes |= {"model.positions": "rows_columns", "model.conv_swiglu.sides": "grid"}
    like = tiny_built(changes).state_like
    leaves = jax.tree.leaves((like.params, like.ema_params, like.opt_state))
    parts = [math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves]
    for leaf, part in zip(leaves, parts, strict=True):
        assert leaf.ndim > 1 or part == leaf.size
    halves = [
        part == leaf.size // 2
        for leaf, part in zip(leaves, parts, strict=True)
        if leaf.ndim > 1
    ]
    assert sum(halves) >= 0.9 * len(halves) > 0


@pytest.mark.slow
def test_over_two_devices_of_fsdp_a_run_starts_from_the_same_state():
    plain, shared = (
        tiny_built({"model.layers": ("swiglu",)} | mesh).init()
        for mesh in ({}, {"mesh.data": 1, "mesh.fsdp": 2})
    )
    assert any(
        not x.sharding.is_fully_replicated for x in jax.tree.leaves(shared.params)
    )
    assert state_digest(plain) == state_digest(shared)


COLLECTIVE = re.compile(
    r" = (.*?) (all-[a-z]+|collective-[a-z]+|reduce-scatter)(?:-start)?\("
)


def collectives(program):
    """Yield (name, shapes, whether in a loop) of each exchange between devices."""
    for line in program.as_text().splitlines():
        if found := COLLECTIVE.search(line):
            shapes = re.findall(r"\w+\[([\d,]*)\]", found[1])
            sizes = [tuple(int(d) for d in s.split(",") if d) for s in shapes]
            yield found[2], sizes, "while/body" in line


@on_eight
@each_case
def test_only_sums_weights_ids_and_puzzle_vectors_travel(network, mesh):
    on_mesh = layout(network, *MESHES[mesh])
    config, weights = on_mesh.config, jax.tree.leaves(on_mesh.like.params)
    vectors = (ROWS, config.puzzle_width)
    allowed = {
        "all-reduce": {w.shape for w in weights} | {(), vectors},
        "all-gather": {(ROWS,), (ROWS, 1), vectors},
    }
    if MESHES[mesh][1] > 1:
        allowed["all-gather"] |= {w.shape for w in weights}
    found = list(collectives(on_mesh.step))
    assert {name for name, *_ in found} == {"all-reduce", "all-gather"}
    for name, shapes, in_loop in found:
        assert set(shapes) <= allowed[name], (name, shapes)
        assert not in_loop, (name, shapes)
    # The gradients of all weights travel together, once.
    summed = [shapes for name, shapes, _ in found if name == "all-reduce"]
    assert sum(len(shapes) > len(weights) // 2 for shapes in summed) == 1


@on_eight
@each_mesh
def test_evaluation_gathers_answers_weights_and_ids_alone(mesh):
    on_mesh = layout("mamba2_attn", *MESHES[mesh])
    config, like = on_mesh.config, on_mesh.like
    step = make_eval_step(on_mesh.recipe, on_mesh.mesh, num_steps=2)
    weights = like.params, like.constants, like.puzzle_table
    numbers = jax.ShapeDtypeStruct((ROWS,), jnp.int32)
    args = weights, like.carry.batch, numbers
    weights = {w.shape for w in jax.tree.leaves(like.params)}
    answers = {(ROWS, config.num_cells), (2, ROWS), (ROWS,), (ROWS, 1)}
    vectors = {(ROWS, config.puzzle_width)}
    for name, shapes, in_loop in collectives(step.lower(*args).compile()):
        assert name in ("all-gather", "all-reduce")
        assert set(shapes) <= weights | answers | vectors | {()}, (name, shapes)
        assert not in_loop


@on_eight
@each_mesh
def test_evaluation_answers_as_on_one_device(mesh, make_batch):
    (batch,) = batches(make_batch, 1)
    outputs = []
    for size in [(1,), MESHES[mesh]]:
        at = layout("attention", *size)
        step = make_eval_step(at.recipe, at.mesh, num_steps=3)
        state = at.init()
        weights = state.params, state.constants, state.puzzle_table
        rows = put_batch(batch._asdict(), at.mesh)
        outputs.append(step(weights, rows, put_rows(np.arange(ROWS), at.mesh)))
        assert all(leaf.is_fully_replicated for leaf in outputs[-1])
    one, other = jax.device_get(outputs)
    np.testing.assert_array_equal(other.predictions, one.predictions)
    np.testing.assert_allclose(other.q_halt, one.q_halt, rtol=1e-5)


@on_eight
def test_rows_lie_where_the_mesh_puts_them():
    mesh = make_mesh(4, 2)
    np.testing.assert_array_equal(own_rows(mesh, 24), np.arange(24))
    fields = {
        name: np.arange(24.0) for name in layout("mlp_t", 1).like.carry.batch._fields
    }
    batch = put_batch(fields, mesh)
    np.testing.assert_array_equal(batch.weight, np.arange(24.0))
    parts = [np.asarray(s.data).tolist() for s in batch.weight.addressable_shards]
    assert sorted(parts) == [[3.0 * i, 3 * i + 1, 3 * i + 2] for i in range(8)]
