# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of any mesh restores on any other, to the bit.

Some tests need eight virtual devices: eight_devices_test.py runs this file on them.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.runs import digest, short_config
from tests.helpers.states import small_recipe
from trm_jax.commands import stop_signal, train
from trm_jax.errors import ConfigError
from trm_jax.runtime.checkpoint import Checkpoints
from trm_jax.training.digest import leaf_digests
from trm_jax.training.sharding import (
    TABLE_UNIT,
    make_mesh,
    path_string,
    state_shardings,
)
from trm_jax.training.step import init_train_state

MESHES = [(1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (8, 1), (4, 2), (2, 4), (1, 8)]
TABLES = {"sharded": TABLE_UNIT, "whole": 5}
EIGHT = jax.device_count() >= 8
on_eight = pytest.mark.skipif(not EIGHT, reason="eight_devices_test.py starts these")


@cache
def like(network, table, mesh):
    recipe = small_recipe(network, TABLES[table])
    init = partial(init_train_state, recipe, batch_size=16)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(
        lambda s, h: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=h),
        shapes,
        state_shardings(shapes, make_mesh(*mesh)),
    )


def noise(spec, step):
    """A state on the host with random bytes; what is not finite becomes 1."""
    rng = np.random.default_rng(0)

    def values(path, leaf):
        if path_string(path) == "step":
            return np.array(step, np.int32)
        if leaf.dtype == jnp.bool_:
            return rng.integers(0, 2, leaf.shape).astype(bool)
        size = leaf.size * leaf.dtype.itemsize
        drawn = np.frombuffer(rng.bytes(size), leaf.dtype).reshape(leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.floating):  # what is not finite is not saved
            with np.errstate(invalid="ignore"):
                finite = np.isfinite(drawn)
            drawn = np.where(finite, drawn, np.ones((), leaf.dtype))
        return drawn

    return jax.tree_util.tree_map_with_path(values, spec)


def as_bytes(tree):
    """The bytes of all leaves: NaNs are equal if their bits are equal."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def shardings(tree):
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


@on_eight
@pytest.mark.parametrize(
    ("network", "table"), [("attention", "sharded"), ("mamba2_attn", "whole")]
)
def test_all_pairs_of_meshes(network, table, tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=len(MESHES))
    expected = {}
    for step, mesh in enumerate(MESHES):
        spec = like(network, table, mesh)
        expected[step] = noise(spec, step)
        checkpoints.save(jax.device_put(expected[step], shardings(spec)))
    checkpoints.wait()
    for mesh in MESHES:
        spec = like(network, table, mesh)
        for step, state in expected.items():
            found = checkpoints.restore_step(spec, step)
            assert as_bytes(found) == as_bytes(state)
            assert shardings(found) == shardings(spec)
            if step == 0:
                assert leaf_digests(found) == leaf_digests(state)
    checkpoints.close()


@on_eight
def test_parameters_and_table_lie_in_parts():
    spec = like("attention", "sharded", (2, 4))
    parts = {path_string(p): x.sharding for p, x in jax.tree.leaves_with_path(spec)}
    split = [name for name, s in parts.items() if not s.is_fully_replicated]
    for section in ("params", "ema_params", "opt_state", "carry", "puzzle_table"):
        assert any(name.startswith(section) for name in split)
    whole = like("attention", "whole", (2, 4)).puzzle_table.sharding
    assert whole.is_fully_replicated


def trained(folder, steps, **mesh):
    config = short_config(steps=steps).unlock()
    config.mesh.update(mesh)
    return train.train(config.lock(), str(folder))


@on_eight
def test_a_run_goes_on_another_mesh_or_is_refused_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(stop_signal, "StopSignal", lambda: lambda: False)
    assert trained(tmp_path, 4, data=4) == 0
    before = digest(tmp_path)
    for mesh in ({"data": 3}, {"data": 3, "fsdp": 2}, {"data": 1, "fsdp": 16}):
        with pytest.raises(ConfigError, match=r"mesh\.data"):
            trained(tmp_path, 8, **mesh)
        assert digest(tmp_path) == before
    assert trained(tmp_path, 8, data=2, fsdp=2) == 0
    assert digest(tmp_path)[0] == 8
