# SPDX-License-Identifier: Apache-2.0
"""How every array of the state is sharded over the device mesh: a table of rules."""

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

# The first rule that matches the path in TrainState applies; the last one replicates.
RULES: tuple[tuple[str, P], ...] = (
    (r"^carry/", P(BATCH_AXES)),
    (r"^puzzle_table$", P(BATCH_AXES)),  # replicated if it is small: see table_rows
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

    `data` = 0 uses as many devices as there are. `batch_sizes` maps config keys to
    numbers of rows. Raises ConfigError if devices are missing, if a run of several
    processes leaves devices idle, or if the devices do not divide a batch.
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
    """`fn` with the mesh in context, for operators that shard their own computation."""

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
    """The number of rows of the stored puzzle table.

    A table of fewer than TABLE_UNIT ids has one row per id, and every device holds all
    rows. A larger table is padded to a multiple of TABLE_UNIT rows, and each device
    holds an equal share. The shape does not depend on the mesh, so that a checkpoint
    can be restored on another mesh. No id refers to the added rows, which stay zero.
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
    """Shard a matrix over "fsdp" along the first axis it divides; replicate vectors."""
    axes = [i for i, n in enumerate(shape) if n % ways == 0]
    if len(shape) < 2 or not axes:
        return P()
    return P(*(None,) * axes[0], "fsdp")


def on_own_rows(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn(params, *rows) -> (sums, rows)`, where each device computes its own rows.

    Parameters are gathered once before `fn`, and sums are added up once after it: the
    loops of `fn` need no communication. Without a mesh in context this is `fn` itself.
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
    """Rows of the puzzle table, `b e`; devices that share it exchange only these rows.

    An id outside the table is not clamped: it gives NaN, which stops a run.
    """
    rows = table.at[ids]
    return rows.get(mode="fill", fill_value=np.nan, wrap_negative_indices=False)


def gathered(x: Array) -> Array:
    """`x`, whole on every device, if a mesh is in context."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return lax.with_sharding_constraint(x, P())


def on_every_device(x: Array) -> Array:
    """`x` with all of its rows on every device, if a mesh is in context."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    # `x` is sharded first: otherwise XLA gathers the larger array that contains it.
    shared = lax.with_sharding_constraint(x, P(BATCH_AXES))
    return lax.with_sharding_constraint(shared, P())


def own_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Indices of the rows of a batch that this process's devices hold, ascending."""
    sharding = NamedSharding(mesh, P(BATCH_AXES))
    slices = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique([np.arange(batch_size)[rows] for rows in slices])


def put_batch(rows: Mapping[str, np.ndarray], mesh: Mesh) -> Batch:
    """Shard a batch over the mesh; `rows` holds the `own_rows` of each field."""
    return Batch(**{name: put_rows(values, mesh) for name, values in rows.items()})


def put_rows(values: np.ndarray, mesh: Mesh) -> Array:
    """Shard an array over the mesh; `values` holds one value per row of `own_rows`."""
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
