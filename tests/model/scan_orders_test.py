# SPDX-License-Identifier: Apache-2.0
"""The orders in which Mamba layers read a grid."""

from functools import cache

import chex
import jax
import numpy as np
import pytest

from trm_jax.model.sublayers import SUBLAYERS
from trm_jax.settings import defaults, read

GRID, PREFIX = (2, 5), 3
# The place in the sequence of each token that is read by columns.
COLUMNS = np.array([0, 1, 2, 3, 8, 4, 9, 5, 10, 6, 11, 7, 12])
SIZES = {
    "mamba1": {"d_state": 4},
    "mamba2": {"d_state": 4, "head_dim": 8, "num_groups": 2, "chunk_size": 4},
}


def layer(name):
    kind = SUBLAYERS[name]
    values = defaults(kind.Settings) | SIZES[kind.section]
    return kind(read(kind.Settings, values, f"model.{kind.section}"), GRID, PREFIX)


@pytest.fixture(scope="module", params=SIZES)
def apply(request):
    """A function of the suffix of an operator and an input, with fixed weights."""
    like = jax.random.normal(jax.random.key(0), (2, len(COLUMNS), 16))
    params = jax.jit(layer(request.param).init)(jax.random.key(1), like)

    @cache
    def compiled(suffix):
        made = layer(request.param + suffix)
        shapes = jax.eval_shape(made.init, jax.random.key(0), like)
        chex.assert_trees_all_equal_shapes_and_dtypes(shapes, params)
        return jax.jit(made.apply)

    return lambda suffix, hidden: compiled(suffix)(params, hidden)


def test_orders_of_a_grid_are_permutations_of_its_tokens(apply):
    hidden = jax.random.normal(jax.random.key(2), (2, len(COLUMNS), 16))
    back = np.argsort(COLUMNS)
    by_columns = apply("", hidden[:, COLUMNS])[:, back]
    rows = apply("", hidden)
    np.testing.assert_allclose(apply("_column", hidden), by_columns, atol=1e-5)
    assert abs(by_columns - rows).max() > 0.01
    both = rows + by_columns
    np.testing.assert_allclose(apply("_row_column", hidden), both, atol=1e-5)
    four = apply("_both", hidden) + apply("_both", hidden[:, COLUMNS])[:, back]
    np.testing.assert_allclose(apply("_four", hidden), four, atol=1e-5)


def test_only_backward_scans_show_the_prefix_the_cells(apply):
    hidden = jax.random.normal(jax.random.key(2), (2, len(COLUMNS), 16))
    other = hidden.at[:, PREFIX:].add(1.0)
    for suffix, sees in (("_column", False), ("_row_column", False), ("_four", True)):
        first, second = (apply(suffix, h)[:, :PREFIX] for h in (hidden, other))
        assert (abs(first - second).max() > 1e-3) == sees
