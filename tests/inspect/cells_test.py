# SPDX-License-Identifier: Apache-2.0
"""How cells act on each other: Jacobian blocks, and the units of a Sudoku."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.untrained import model_of
from trm_jax.errors import ConfigError
from trm_jax.inspect import cells


@pytest.fixture(scope="module")
def small():
    def edit(config):
        config.model.update(d_model=4)

    return model_of(edit=edit, h_cycles=1, l_cycles=1)


@pytest.fixture(scope="module")
def state(small):
    x = small.embed("1.....3..4.....2")
    y, z = np.random.default_rng(0).normal(size=(2, *x.shape)).astype(np.float32)
    return y, z, x


@pytest.mark.slow
@pytest.mark.parametrize(("of", "on"), [("z", "y"), ("y", "z")])
def test_influence_is_the_size_of_the_blocks_of_the_jacobian(small, state, of, on):
    y, z, x = state
    first = {"y": 0, "z": 1}
    jacobian = jax.jacfwd(small.cycle, argnums=first[of])(
        jnp.asarray(y), jnp.asarray(z), x
    )[first[on]]
    blocks = np.asarray(jacobian)[0, 1:, :, 0, 1:]  # j d i d, without the prefix
    expected = np.sqrt((blocks**2).sum((1, 3)) / 4).T
    found = cells.influence(small, y, z, x, of=of, on=on)
    assert found.shape == (16, 16)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_influence_refuses_unknown_states_and_several_puzzles(small, state):
    with pytest.raises(ConfigError, match="of = 'x'"):
        cells.influence(small, *state, of="x")
    twice = [np.concatenate([part, part]) for part in state]
    with pytest.raises(ConfigError, match="2 rows; expected one puzzle"):
        cells.influence(small, *twice)


def test_relations_are_the_units_of_a_sudoku():
    found = cells.relations((6, 6), (2, 3))
    counts = {name: pairs.sum(1) for name, pairs in found.items()}
    assert {name: set(n.tolist()) for name, n in counts.items()} == {
        "row": {5},
        "column": {5},
        "box": {5},
        "no unit": {36 - 1 - 5 - 5 - 3 + 1},
    }
    first = {name: np.flatnonzero(pairs[0]).tolist() for name, pairs in found.items()}
    assert first["row"] == [1, 2, 3, 4, 5]
    assert first["column"] == [6, 12, 18, 24, 30]
    assert first["box"] == [1, 2, 6, 7, 8]


def test_means_by_relation():
    related = cells.relations((4, 4), (2, 2))
    maps = np.stack([related["row"].astype(float), 2 * np.eye(16)])
    means = cells.by_relation(maps, related)
    assert [*means] == ["itself", "row", "column", "box", "no unit"]
    assert means["itself"].tolist() == [0, 2]
    assert means["row"].tolist() == [1, 0]
    assert means["box"].tolist() == pytest.approx([1 / 3, 0])
    assert means["no unit"].tolist() == [0, 0]
