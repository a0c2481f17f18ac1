# SPDX-License-Identifier: Apache-2.0
"""What only TRM does; tests/training/parity_test.py compares its numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.tiny import tiny_built
from trm_jax.rules.levers import CycleOutputs


@pytest.mark.parametrize("seed", [0, 1])
def test_the_first_y_and_z_are_drawn_once_with_deviation_1(seed):
    wide = {"model.layers": ("swiglu",), "model.d_model": 512}
    recipe = tiny_built(wide).recipe
    constants = recipe.rule.constants(jax.random.key(seed), recipe.model.config, {})
    assert set(constants) == {"y", "z"}
    for start in constants.values():
        assert start.shape == (512,)
        assert abs(float(start.std()) - 1) < 4 / math.sqrt(2 * 512)
    assert (constants["y"] != constants["z"]).any()


def test_a_row_halts_as_soon_as_q_is_above_0():
    rule = tiny_built().recipe.rule
    q = jnp.array([[-1.0, 9.0], [0.0, 9.0], [0.1, -9.0]])
    answer = rule.answer(CycleOutputs(jnp.zeros((3, 16, 7)), q, None))
    np.testing.assert_array_equal(answer.wants_halt, [False, False, True])
    np.testing.assert_array_equal(answer.q_halt, q[:, 0])
