# SPDX-License-Identifier: Apache-2.0
"""How the cells of a grid act on each other, and which of them share a unit."""

import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from trm_jax.errors import ConfigError
from trm_jax.inspect.cycle import Loaded, States


def influence(
    model: Loaded, y: States, z: States, x: States, *, of: str = "z", on: str = "y"
) -> np.ndarray:
    """How much one cycle carries from each cell to each other one: `m m`.

    Entry [i, j] belongs to the block d on_j / d of_i of the Jacobian, which says how
    the state `on` at cell j follows a small change of the state `of` at cell i. It is
    the Frobenius norm of this block, divided by sqrt(d): the mean growth of a change in
    a random direction. y, z and x are those of one puzzle, `1 l d`. Raises ConfigError
    for other states than "y" and "z", or for several puzzles.
    """
    if not {of, on} <= {"y", "z"}:
        raise ConfigError(f"of = {of!r}, on = {on!r}; expected 'y' or 'z'")
    if len(x) != 1:
        raise ConfigError(f"x has {len(x)} rows; expected one puzzle")
    state = {"y": jnp.asarray(y), "z": jnp.asarray(z)}
    question, width = jnp.asarray(x), x.shape[-1]
    prefix = model.bound().config.prefix_len

    def after(changed: Array) -> Array:
        both = state | {of: changed}
        moved = model.cycle(both["y"], both["z"], question)
        return moved["yz".index(on)]

    def row(place: Array) -> Array:
        """The norms of the blocks of one position of `of`, by position of `on`."""
        units = jnp.eye(width, dtype=state[of].dtype)
        changes = jnp.zeros((width, *state[of].shape), state[of].dtype)
        changes = changes.at[:, 0, place].set(units)
        _, moved = jax.vmap(lambda change: jax.jvp(after, (state[of],), (change,)))(
            changes
        )  # d 1 l d
        return jnp.sqrt((moved**2).sum((0, 1, 3)) / width)[prefix:]

    places = jnp.arange(prefix, x.shape[1])
    return np.asarray(jax.jit(lambda: jax.lax.map(row, places))())


def relations(shape: tuple[int, int], box: tuple[int, int]) -> dict[str, np.ndarray]:
    """Which pairs of different cells of a Sudoku share a unit: boolean `m m` by name.

    A pair may share two units. "no unit" has the pairs that share none.
    """
    place = np.indices(shape).reshape(2, -1)  # row and column of each cell, `2 m`
    of_box = place // np.array(box)[:, None]
    units = {"row": place[:1], "column": place[1:], "box": of_box}
    others = ~np.eye(place.shape[1], dtype=bool)
    found = {
        name: (key[:, :, None] == key[:, None]).all(0) & others
        for name, key in units.items()
    }
    none = others & ~np.any([*found.values()], axis=0)
    return found | {"no unit": none}


def by_relation(
    maps: np.ndarray, related: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The mean of maps `... m m` over the pairs of each relation, and of "itself"."""
    own = np.eye(maps.shape[-1], dtype=bool)
    every = itertools.chain([("itself", own)], related.items())
    return {name: maps[..., pairs].mean(-1) for name, pairs in every}
