# SPDX-License-Identifier: Apache-2.0
"""Where every array of the state lives on the device mesh: one rule table."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from trm_jax.errors import ConfigError
from trm_jax.types import BATCH_AXES, Batch, Params

# First match on the path in TrainState wins; the last rule replicates the rest.
RULES: tuple[tuple[str, P], ...] = (
    (r"^carry/", P(BATCH_AXES)),
    (r"^puzzle_table$", P(BATCH_AXES)),  # a small one is replicated: see table_rows
    (r"^(params|ema_params|opt_state)/", P("fsdp")),  # matrices: see _matrix_spec
    (r"", P()),
)
TABLE_UNIT = 3072  # 3 * 2**10: divisible by any usual number of devices


def make_mesh(
    data: int,
    fsdp: int = 1,
    *,
    batch_sizes: Mapping[str, int] | None = None,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """A mesh with the axes "data" and "fsdp" over the first devices, or over `devices`.

    `data` = 0 takes as many as there are; `batch_sizes` are rows by config key. Raises
    ConfigError where devices are missing, left idle in a run of several processes, or
    do not divide a batch.
    """
    found = list(jax.devices() if devices is None else devices)
    data = data or max(1, len(found) // fsdp)
    size, asked = data * fsdp, f"mesh.data = {data} times mesh.fsdp = {fsdp}"
    if size > len(found):
        raise ConfigError(f"{asked} is {size}, but {len(found)} device(s) are visible")
    if size < len(found) and len({d.process_index for d in found}) > 1:
        raise ConfigError(
            f"{asked} leaves {len(found) - size} of {len(found)} devices idle; with "
            "several processes expected all of them (mesh.data = 0)"
        )
    for key, rows in (batch_sizes or {}).items():
        if rows % size:
            raise ConfigError(f"{key} = {rows} is not divisible by {asked}")
    axis_types = (AxisType.Auto,) * len(BATCH_AXES)
    return jax.make_mesh(
        (data, fsdp), BATCH_AXES, axis_types=axis_types, devices=found[:size]
    )


def in_mesh(fn: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """`fn` with the mesh in context, where operators that shard themselves look."""

    @functools.wraps(fn)
    def within(*args: Any) -> Any:
        with (
            jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
            jax.threefry_partitionable(True),  # whatever JAX's settings are
        ):
            return fn(*args)

    return within


def path_string(path: tuple[Any, ...]) -> str:
    """A tree path as `params/net/0_attention/qkv/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """The NamedSharding of every leaf of a TrainState (arrays or shapes)."""

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = path_string(path)
        spec = next(spec for rule, spec in RULES if re.search(rule, name))
        if name == "puzzle_table":
            spec = _table_spec(spec, leaf.shape[0], mesh)
        elif spec == P("fsdp"):
            spec = _matrix_spec(leaf.shape, mesh.shape["fsdp"])
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
            f"a mesh of {mesh.size} devices does not divide the {rows:,} rows of the "
            f"puzzle table; expected a divisor of {TABLE_UNIT:,}"
        )
    return spec


def _matrix_spec(shape: tuple[int, ...], ways: int) -> P:
    """Shared out over "fsdp" along the first axis that allows it; vectors are not."""
    axes = [i for i, n in enumerate(shape) if n % ways == 0]
    if len(shape) < 2 or not axes:
        return P()
    return P(*(None,) * axes[0], "fsdp")


def on_own_rows(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn(params, *rows) -> (sums, rows)`, each device with only its own rows.

    Parameters are gathered before and sums added up after it, once: inside of the
    loops of `fn` nothing travels. Without a mesh in context it is `fn` itself.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return fn
    rows = P(BATCH_AXES)

    def local(params: Params, *args: Any) -> Any:
        sums, by_row = fn(params, *args)
        return lax.psum(sums, BATCH_AXES), by_row

    def over_mesh(params: Params, *args: Any) -> Any:
        specs = (P(), *(rows for _ in args))
        return jax.shard_map(
            local, in_specs=specs, out_specs=(P(), rows), check_vma=False
        )(params, *args)

    return over_mesh


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
    shared = lax.with_sharding_constraint(x, P(BATCH_AXES))
    return lax.with_sharding_constraint(shared, P())


def own_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The rows of a batch that lie on devices of this process, ascending."""
    sharding = NamedSharding(mesh, P(BATCH_AXES))
    slices = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique([np.arange(batch_size)[rows] for rows in slices])


def put_batch(rows: Mapping[str, np.ndarray], mesh: Mesh) -> Batch:
    """`own_rows` of a batch, by field of Batch -> arrays sharded over the mesh."""
    return Batch(**{name: put_rows(values, mesh) for name, values in rows.items()})


def put_rows(values: np.ndarray, mesh: Mesh) -> Array:
    """One value per row of `own_rows` -> an array sharded over the mesh."""
    sharding = NamedSharding(mesh, P(BATCH_AXES))
    batch_size = len(values) * mesh.size // mesh.local_mesh.size
    shape = (batch_size, *values.shape[1:])
    part = functools.partial(_part, values, own_rows(mesh, batch_size), batch_size)
    return jax.make_array_from_callback(shape, sharding, part)


def _part(
    values: np.ndarray, own: np.ndarray, batch_size: int, index: Any
) -> np.ndarray:
    first, last, _ = index[0].indices(batch_size)
    return values[slice(*np.searchsorted(own, (first, last)))]
