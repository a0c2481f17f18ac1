# SPDX-License-Identifier: Apache-2.0
"""Small training states, for tests of what is saved and restored."""

from functools import cache, partial

import jax
import jax.numpy as jnp

from tests.helpers import short_run
from trm_jax.training.build import make_recipe
from trm_jax.training.config import read_run
from trm_jax.training.sharding import make_mesh, state_shardings
from trm_jax.training.step import init_train_state

SIZES = {"vocab_size": 7, "grid_shape": (4, 4), "num_puzzles": 5, "blank": 1}


def small_recipe(variant="attention", num_puzzles=5, **model):
    """The recipe of a short run in bfloat16, so that some values have two bytes."""
    config = short_run.get_config(variant)
    config.model.update({"dtype": "bfloat16"} | model)
    sizes = SIZES | {"num_puzzles": num_puzzles}
    return make_recipe(config.to_dict(), sizes, read_run(config.to_dict()))


def init_of(recipe, batch_size):
    """The compiled function from a key to the first state of a recipe."""
    return jax.jit(partial(init_train_state, recipe, batch_size=batch_size))


@cache
def init_fn(**changes):
    return init_of(small_recipe(**{"d_model": 64} | changes), batch_size=4)


def make_state(step=0, devices=1, **changes):
    state = init_fn(**changes)(jax.random.key(step))
    state = state._replace(step=jnp.array(step, jnp.int32))
    return jax.device_put(state, state_shardings(state, make_mesh(devices)))


def like(state):
    def spec(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

    return jax.tree.map(spec, state)
