# SPDX-License-Identifier: Apache-2.0
"""What the Mosaic GPU kernels of SSD share: sizes, decays, products, copies."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, DTypeLike, Float

from trm_jax.ops.mosaic import plgpu, too_old
from trm_jax.ops.ssd.segments import decays

SIZE = 64  # rows of a chunk, channels of a head, and columns of a tile of the state
STAGES = 2  # chunks, or heads, whose data is in shared memory at the same time
LARGEST_N = 128  # a float32 state of 64 x 128 takes 64 registers of each thread

# Rows of `vectors`. Those that a kernel needs along both axes of a matrix come twice,
# because the layout inference of Mosaic gives each row of an array one layout only.
HIGH, LOW, DT, FROM_START, WEIGHT, TO_END, HIGH_2, LOW_2 = range(8)


def mosaic_refuses(p: int, n: int, chunk_size: int, dtype: DTypeLike) -> str | None:
    """Why the kernels do not run, or None if they do."""
    if reason := too_old():
        return reason
    narrow = dtype in (jnp.bfloat16, jnp.float16)
    fits = p == SIZE and n in range(SIZE, LARGEST_N + 1, SIZE) and chunk_size == SIZE
    if narrow and fits:
        return None
    return (
        f"mosaic takes p of {SIZE}, n of {SIZE} or {LARGEST_N}, chunk_size {SIZE} and "
        f"two-byte floats; not {p}, {n}, {chunk_size}, {dtype}"
    )


def vectors(
    dt: Float[Array, "b l h"], A: Float[Array, " h"], chunk_size: int
) -> Float[Array, "b h c v q"]:
    """What multiplies the rows of each chunk; dt is 0 beyond the length."""
    b, l, h = dt.shape
    dt = jnp.pad(dt, ((0, 0), (0, -l % chunk_size), (0, 0)))
    dt = dt.reshape(b, -1, chunk_size, h).transpose(0, 3, 1, 2)
    of = decays(dt * A[None, :, None, None], _running_sums)
    rows = of.high, of.low, dt, of.from_start, of.to_end * dt, of.to_end
    return jnp.stack((*rows, of.high, of.low), axis=3)


def _running_sums(*terms: Array) -> list[tuple[Array, Array]]:
    sums = (jnp.cumsum(term, axis=-1) for term in terms)
    return [(s, s[..., -1]) for s in sums]


def in_tiles(v: Array) -> Array:
    """`b l ...` with l padded to a multiple of 8: Mosaic copies 8 rows at a time."""
    pads = [(0, 0)] * v.ndim
    pads[1] = (0, -v.shape[1] % 8)
    return jnp.pad(v, pads)


def matrix(value: Any) -> Any:
    """The value in the layout of a product's result."""
    return plgpu.layout_cast(value, plgpu.Layout.WGMMA)


def zeros() -> Any:
    """A matrix of zeros, one tile large."""
    return matrix(jnp.zeros((SIZE, SIZE), jnp.float32))


def copy_in(source: Any, here: Any, barrier: Any) -> None:
    """Start a copy to shared memory. Rows beyond the end of the source become 0."""
    plgpu.copy_gmem_to_smem(source, here, barrier)


def product(a: Any, b: Any) -> Any:
    """A @ b of two matrices in shared memory, accumulated in float32 registers."""

    def multiply(acc: Any) -> Any:
        plgpu.wgmma(acc, a, b)
        return acc[...]

    acc = plgpu.ACC((a.shape[0], b.shape[1]), jnp.float32)
    return matrix(pl.run_scoped(multiply, acc))


def read(ref: Any) -> Any:
    """A matrix in shared memory as float32."""
    return plgpu.load(ref, layout=plgpu.Layout.WGMMA).astype(jnp.float32)


def down(ref: Any) -> Any:
    """The vector in `ref` as a matrix whose row i holds its value i."""
    vector = plgpu.load(ref, layout=plgpu.Layout.WGMMA.reduce(1))
    return matrix(lax.broadcast_in_dim(vector, (SIZE, SIZE), (0,)))


def across(ref: Any) -> Any:
    """The vector in `ref` as a matrix whose column i holds its value i."""
    vector = plgpu.load(ref, layout=plgpu.Layout.WGMMA.reduce(0))
    return matrix(lax.broadcast_in_dim(vector, (SIZE, SIZE), (1,)))


def positions(axis: int) -> Any:
    """The row of each entry of a matrix, or its column."""
    shape, layout = (SIZE, SIZE), plgpu.Layout.WGMMA
    return plgpu.broadcasted_iota(jnp.int32, shape, axis, layout=layout)


def decay_matrix(vectors: Any, *, transposed: bool = False) -> Any:
    """The decay from token s to token q >= s, else 0, at [q, s] or [s, q]."""
    gaps = down(vectors.at[HIGH]) - across(vectors.at[HIGH_2])
    gaps += down(vectors.at[LOW]) - across(vectors.at[LOW_2])
    later = positions(0) >= positions(1)
    if transposed:
        gaps, later = -gaps, positions(1) >= positions(0)
    return jnp.exp(jnp.where(later, gaps, -jnp.inf))


def column_tile(ref: Any, j: int) -> Any:
    """Columns 64 j to 64 j + 63."""
    return ref.at[:, pl.ds(j * SIZE, SIZE)]


def run_kernel(
    body: Callable[..., None],
    args: tuple[Array, ...],
    *,
    out_like: tuple[Any, ...],
    **settings: Any,
) -> tuple[Array, ...]:
    """Call a Mosaic GPU kernel; results have the shapes and dtypes of `out_like`."""
    kernel = plgpu.kernel(
        body,
        out_type=tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in out_like),
        compiler_params=plgpu.CompilerParams(approx_math=True),
        **settings,
    )
    return tuple(kernel(*args))
