# SPDX-License-Identifier: Apache-2.0
"""A GPU kernel on several devices."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from trm_jax.types import BATCH_AXES


def on_each_device(
    fn: Callable[..., Any],
    args: Sequence[Any],
    *,
    batch_axes: Sequence[int | None],
    out_axis: int = 0,
) -> Any:
    """`fn(*args)`, where each device computes its own part of the batch.

    XLA cannot partition a kernel: without this, every device would gather all of it.
    `batch_axes` has the axis of each argument that the mesh in context divides over
    "data" and "fsdp", None for those that every device needs; `out_axis` is that of all
    results. If the first one cannot be divided, every device computes everything.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(a for a in BATCH_AXES if a not in mesh.manual_axes and a in mesh.shape)
    ways = math.prod(mesh.shape[axis] for axis in axes)
    first = batch_axes[0]
    if ways == 1 or first is None or args[0].shape[first] % ways:
        return fn(*args)

    def divided(at: int | None) -> PartitionSpec:
        return PartitionSpec() if at is None else PartitionSpec(*[None] * at, axes)

    specs = tuple(map(divided, batch_axes))
    out = divided(out_axis)
    return jax.shard_map(fn, in_specs=specs, out_specs=out, check_vma=False)(*args)
