# SPDX-License-Identifier: Apache-2.0
"""Where every array of the state lives on the device mesh: one rule table."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from trm_jax.errors import ConfigError
from trm_jax.types import Batch

# First match on the path in TrainState wins; the last rule replicates the rest.
RULES: tuple[tuple[str, P], ...] = (
    (r"^carry/", P("data")),
    (r"", P()),
)


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

    def sharding(path: tuple[Any, ...], _: Any) -> NamedSharding:
        name = path_string(path)
        spec = next(spec for rule, spec in RULES if re.search(rule, name))
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, state)


def put_batch(rows: Mapping[str, np.ndarray], mesh: Mesh) -> Batch:
    """This process's rows, by field of Batch -> arrays sharded over the data axis."""
    sharding = NamedSharding(mesh, P("data"))
    arrays = {
        name: jax.make_array_from_process_local_data(sharding, values)
        for name, values in rows.items()
    }
    return Batch(**arrays)
