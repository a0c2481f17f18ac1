# SPDX-License-Identifier: Apache-2.0
"""silu(gate) * up in the kernel of its matrix product, for Hopper GPUs (Mosaic GPU).

A block computes 128 x 128 results. One warpgroup loads, and two compute 64 rows each:
their products with the gate's and the up's weights stay in registers until both are
complete. So the two products need not be written, unless a backward pass needs them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, DTypeLike, Float

from trm_jax.ops.mosaic import TILE, order, plgpu, tiled, too_old

NAME = "gated_product"  # of the kernel, in programs
SIZE = 128  # rows and columns of a block
ROWS = 64  # rows of a warpgroup
DEPTH = 64  # terms of the sums that are loaded at once
STAGES = 3  # how many of them are in shared memory at the same time


def kernel_refuses(width: int, dtype: DTypeLike) -> str | None:
    """Why the kernel does not run, or None if it does."""
    if reason := too_old():
        return reason
    if dtype in (jnp.bfloat16, jnp.float16) and width % SIZE == 0:
        return None
    return (
        f"mosaic takes inner widths that are multiples of {SIZE} and two-byte floats; "
        f"not {width}, {dtype}"
    )


def gated(
    x: Float[Array, "i j"],
    gate_up: Float[Array, "k twice_n"],
    *,
    over_rows: bool,
    keep: bool,
) -> tuple[Array, ...]:
    """silu(gate) * up; with `keep` also the product, of the dtype of `x`.

    The product is x gate_up, or gate_up^T x with `over_rows`. Its halves, of columns or
    of rows, are gate and up. They are rounded before the silu, as without the kernel.
    """
    n = gate_up.shape[1] // 2
    length = x.shape[1] if over_rows else x.shape[0]
    x, gate_up = map(_in_tiles, (x, gate_up))
    shape, twice = (x.shape[0], n), (x.shape[0], 2 * n)
    if over_rows:
        shape, twice = (n, x.shape[1]), (2 * n, x.shape[1])
    results = [jax.ShapeDtypeStruct(s, x.dtype) for s in (shape, twice)[: 1 + keep]]

    def body(x: Any, gate_up: Any, *rest: Any) -> None:
        _block(x, gate_up, list(rest[:-1]), rest[-1], over_rows=over_rows)

    kernel = plgpu.kernel(
        body,
        out_type=results,
        grid=tuple(-(-size // SIZE) for size in shape),
        grid_names=("row", "column"),
        num_threads=3,
        thread_name="warpgroup",
        scratch_types=[tiled(2, ROWS, SIZE, dtype=x.dtype)],
        compiler_params=plgpu.CompilerParams(approx_math=True),
        kernel_name=NAME,
    )
    found = kernel(x, gate_up)
    return tuple(v[:, :length] if over_rows else v[:length] for v in found)


def _in_tiles(v: Array) -> Array:
    """`v` with zeros at the ends of both axes, up to whole tiles."""
    pads = [(0, -size % tile) for size, tile in zip(v.shape, TILE, strict=True)]
    return jnp.pad(v, pads)


def _block(
    x: Any, gate_up: Any, out: list[Any], staged: Any, *, over_rows: bool
) -> None:
    """Compute one block. Beyond the ends, copies read zeros and write nothing."""
    row, column, mine = map(lax.axis_index, ("row", "column", "warpgroup"))
    rows = pl.ds(mine * ROWS, ROWS)
    halves = gate_up.shape[1] // 2 // SIZE  # from a block of gate to that of up
    at = row if over_rows else column
    of_x = _blocks(DEPTH, SIZE, lambda k: (k, column))
    if not over_rows:
        of_x = _blocks(SIZE, DEPTH, lambda k: (row, k))
    sums: list[Any] = []

    def add(_: Any, x_here: Any, *rest: Any) -> tuple[()]:
        for total, weights in zip(sums, rest[:2], strict=True):
            if over_rows:
                own = weights.at[:, rows].transpose((1, 0))
                plgpu.wgmma(total, own, x_here)
            else:
                plgpu.wgmma(total, x_here.at[rows], weights)
        plgpu.wgmma_wait(0)
        return ()

    def compute(add_all: Any) -> None:
        def in_registers(*totals: Any) -> None:
            sums.extend(totals)
            add_all(())
            gate, up = (total[...].astype(x.dtype) for total in totals)
            wide = gate.astype(jnp.float32)
            inner = wide / (1 + jnp.exp(-wide)) * up.astype(jnp.float32)
            store(out[0], inner.astype(x.dtype), 0)
            if len(out) > 1:
                store(out[1], gate, 0)
                store(out[1], up, halves)

        pl.run_scoped(in_registers, *[plgpu.ACC((ROWS, SIZE), jnp.float32)] * 2)
        plgpu.wait_smem_to_gmem(0)

    def store(where: Any, values: Any, after: int) -> None:
        down, across = (row + after, column) if over_rows else (row, column + after)
        plgpu.wait_smem_to_gmem(0, wait_read_only=True)
        staged[mine] = values
        plgpu.commit_smem()
        place = pl.ds(down * SIZE + mine * ROWS, ROWS), pl.ds(across * SIZE, SIZE)
        plgpu.copy_smem_to_gmem(staged.at[mine], where.at[place])

    plgpu.emit_pipeline_warp_specialized(
        add,
        grid=(-(-gate_up.shape[0] // DEPTH),),
        memory_registers=40,
        in_specs=[
            of_x,
            _blocks(DEPTH, SIZE, lambda k: (k, at)),
            _blocks(DEPTH, SIZE, lambda k: (k, at + halves)),
        ],
        max_concurrent_steps=STAGES,
        wg_axis="warpgroup",
        num_compute_wgs=2,
        compute_context=compute,
    )(x, gate_up, gate_up)


def _blocks(rows: int, columns: int, place: Callable[[Any], tuple[Any, Any]]) -> Any:
    """How the pipeline loads matrices of this size."""
    return plgpu.BlockSpec((rows, columns), place, transforms=order())
