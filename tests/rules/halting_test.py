# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from trm_jax.rules.halting import exploration_minimum, halt
from trm_jax.training.supervision import row_keys


def draw(seed=0, rows=20_000, max_steps=16, explore_rate=0.1):
    keys = row_keys(jax.random.key(seed), jnp.arange(rows))
    return np.asarray(
        exploration_minimum(keys, max_steps=max_steps, explore_rate=explore_rate)
    )


def test_a_tenth_of_the_rows_explore_uniformly_between_2_and_max():
    least = draw()
    explorers = least[least > 0]
    assert abs(len(explorers) / len(least) - 0.1) < 0.01
    values, counts = np.unique(explorers, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(2, 17))
    assert counts.min() > 0.7 * counts.mean()


def test_rows_draw_their_own_coin_and_seeds_differ():
    assert 0 < (draw() > 0).mean() < 1
    assert (draw(seed=0) != draw(seed=1)).any()


def test_what_a_row_draws_does_not_depend_on_the_other_rows():
    np.testing.assert_array_equal(
        draw(rows=50, explore_rate=0.5), draw(rows=200, explore_rate=0.5)[:50]
    )


def test_no_row_explores_at_rate_0_and_one_step_stays_possible():
    assert (draw(explore_rate=0.0) == 0).all()
    assert draw(max_steps=1, explore_rate=1.0).max() == 1


def test_rows_halt_at_the_maximum_or_when_sure_and_explored_enough():
    wants_halt = jnp.array([False, False, True, True, False, True])
    steps = jnp.array([3, 3, 3, 3, 4, 4])
    least = jnp.array([0, 0, 0, 4, 4, 2])
    found = halt(wants_halt, steps, least, max_steps=4)
    np.testing.assert_array_equal(found, [False, False, True, False, True, True])
