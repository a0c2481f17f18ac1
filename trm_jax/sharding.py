# SPDX-License-Identifier: Apache-2.0
"""Where every array of the state lives on the device mesh: one rule table."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from trm_jax.errors import ConfigError
from trm_jax.types import Batch

# First match on the path in TrainState wins; the last rule replicates the rest.
RULES: tuple[tuple[str, P], ...] = (
    (r"^carry/", P("data")),
    (r"^puzzle_table$", P("data")),  # a small one is replicated: see table_rows
    (r"", P()),
)
TABLE_UNIT = 3072  # 3 * 2**10: divisible by any usual number of devices


def make_mesh(num_devices: int, batch_size: int) -> Mesh:
    """A one-axis mesh ("data") over the first `num_devices` devices; 0 takes all.

    Raises ConfigError where devices are missing or do not divide the batch.
    """
    devices = jax.devices()
    count = num_devices or len(devices)
    if count > len(devices):
        raise ConfigError(
            f"mesh.data = {count}, but {len(devices)} device(s) are visible"
        )
    if batch_size % count:
        raise ConfigError(
            f"train.batch_size = {batch_size} is not divisible by mesh.data = {count}"
        )
    return Mesh(np.array(devices[:count]), ("data",), axis_types=(AxisType.Auto,))


def in_mesh(fn: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """`fn` with the mesh in context, where operators that shard themselves look."""

    @functools.wraps(fn)
    def within(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return fn(*args)

    return within


def path_string(path: tuple[Any, ...]) -> str:
    """A tree path as `params/network/0_attention/qkv/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """The NamedSharding of every leaf of a TrainState (arrays or shapes)."""

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = path_string(path)
        spec = next(spec for rule, spec in RULES if re.search(rule, name))
        if name == "puzzle_table":
            spec = _table_spec(spec, leaf.shape[0], mesh)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, state)


def table_rows(num_puzzles: int) -> int:
    """Rows that the puzzle table is stored with.

    Fewer than TABLE_UNIT ids: as many, and every device holds them all. Else rounded up
    to a multiple of TABLE_UNIT, and each device holds an equal share. So the shape does
    not depend on the mesh: a checkpoint of one restores on another. No id names the
    rows added; they stay zero.
    """
    if num_puzzles < TABLE_UNIT:
        return num_puzzles
    return -(-num_puzzles // TABLE_UNIT) * TABLE_UNIT


def _table_spec(spec: P, rows: int, mesh: Mesh) -> P:
    if rows % TABLE_UNIT:
        return P()
    if rows % mesh.size:
        raise ConfigError(
            f"mesh.data = {mesh.size} does not divide the {rows:,} rows of the puzzle "
            f"table; expected a divisor of {TABLE_UNIT:,}"
        )
    return spec


def puzzle_vectors(table: Float[Array, "ids e"], ids: Int[Array, " b"]) -> Array:
    """Rows of the puzzle table, `b e`; of a sharded one, only these travel.

    An id outside the table gives NaN, which stops a run; it is not clamped.
    """
    rows = table.at[ids]
    return rows.get(mode="fill", fill_value=np.nan, wrap_negative_indices=False)


def on_every_device(x: Array) -> Array:
    """`x`, gathered from the devices that share its rows if a mesh is in context."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    # Spread first: left to itself, XLA gathers the larger array that `x` is a part of.
    return lax.with_sharding_constraint(lax.with_sharding_constraint(x, P("data")), P())


def put_batch(rows: Mapping[str, np.ndarray], mesh: Mesh) -> Batch:
    """This process's rows, by field of Batch -> arrays sharded over the data axis."""
    sharding = NamedSharding(mesh, P("data"))
    arrays = {
        name: jax.make_array_from_process_local_data(sharding, values)
        for name, values in rows.items()
    }
    return Batch(**arrays)
