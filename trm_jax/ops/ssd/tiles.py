# SPDX-License-Identifier: Apache-2.0
"""The block of each array that an SSD kernel sees, and its steps for one chunk."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array

SMALLEST, LARGEST = 16, 64  # chunk sizes: tensor cores need 16, registers hold 64
LARGEST_STATE = 32 * 2**10  # bytes of p x n; 64 x 128 in float32


def supports(p: int, n: int, chunk_size: int, dtype: jnp.dtype) -> bool:
    """Whether the kernels support heads of `p n` in this dtype.

    Triton needs powers of two. Larger states exceed the shared memory of a block.
    """
    powers = all(size & (size - 1) == 0 for size in (p, n, chunk_size))
    small = p * n * dtype.itemsize <= LARGEST_STATE
    return dtype != jnp.float64 and powers and small


def rows_per_chunk(chunk_size: int, length: int) -> int:
    """The chunk size, or the nearest power of two that suits kernels and length."""
    enough = 1 << (length - 1).bit_length()
    return max(SMALLEST, min(chunk_size, LARGEST, enough))


def num_warps_for(x: Array) -> int:
    """4 for bfloat16, 8 for float32: a state of 64 x 128 then stays in registers."""
    return 2 * x.dtype.itemsize


def per_head(x: Array, B: Array, c: int = 1) -> dict[str, pl.BlockSpec]:
    """The block of each array that program (row, head) sees: whole sequences."""
    (_, l, h, p), (g, n) = x.shape, B.shape[2:]
    return {
        "x": pl.BlockSpec((None, l, None, p), lambda i, j: (i, 0, j, 0)),
        "dt": pl.BlockSpec((None, l, None), lambda i, j: (i, 0, j)),
        "A": pl.BlockSpec((None,), lambda i, j: (j,)),
        "B": pl.BlockSpec((None, l, None, n), lambda i, j: (i, 0, j // (h // g), 0)),
        "state": pl.BlockSpec((None, None, p, n), lambda i, j: (i, j, 0, 0)),
        "states": pl.BlockSpec((None, c, None, p, n), lambda i, j: (i, 0, j, 0, 0)),
    }


def per_group(x: Array, B: Array) -> dict[str, pl.BlockSpec]:
    """The block of each array that program (row, group, chunk) sees."""
    (_, l, h, p), (g, n) = x.shape, B.shape[2:]
    r = h // g
    return {
        "x": pl.BlockSpec((None, l, r, p), lambda i, j, k: (i, 0, j, 0)),
        "dt": pl.BlockSpec((None, l, r), lambda i, j, k: (i, 0, j)),
        "A": pl.BlockSpec((r,), lambda i, j, k: (j,)),
        "B": pl.BlockSpec((None, l, None, n), lambda i, j, k: (i, 0, j, 0)),
        "states": pl.BlockSpec((None, None, r, p, n), lambda i, j, k: (i, k, j, 0, 0)),
        "kept": pl.BlockSpec((None, None, r), lambda i, j, k: (i, k, j)),
    }


class Rows:
    """The rows of chunk k; rows at or beyond `length` read as 0 and are not stored."""

    def __init__(self, k: Any, size: int, length: int) -> None:
        self.index = lax.iota(jnp.int32, size)
        self._slice = pl.ds(k * size, size)
        self._exist = k * size + self.index < length

    def _mask(self, ndim: int) -> Array:
        return self._exist if ndim == 1 else self._exist[:, None]

    def load(self, ref: Any, *head: Any) -> Array:
        """The rows of `ref`; of one head, if `ref` holds several."""
        part = ref.at[self._slice, *head]
        return plt.load(part, mask=self._mask(len(part.shape)), other=0.0)

    def store(self, ref: Any, value: Array, *head: Any) -> None:
        """Write `value` to the rows of `ref`, rounded to its dtype."""
        part = ref.at[self._slice, *head]
        mask = jnp.broadcast_to(self._mask(value.ndim), value.shape)
        plt.store(part, value.astype(ref.dtype), mask=mask)


def dot(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
    """Contract an axis of `a` with an axis of `b`, accumulated in float32."""
    dims = (((a_axis,), (b_axis,)), ((), ()))
    return lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def running_sums(*terms: Array) -> list[tuple[Array, Array]]:
    """Of each array the running sum and its last value, which kernels cannot slice."""
    sums = [jnp.cumsum(v) for v in terms]
    last = lax.iota(jnp.int32, terms[0].size) == terms[0].size - 1
    return [(s, jnp.where(last, s, 0.0).sum()) for s in sums]


def next_state(
    state: Array, X: Array, weight: Array, b: Array, through: Array
) -> Array:
    """Through * state + sum_q weight_q x_q b_q^T, `p n`."""
    weighted = (X * weight[:, None]).astype(X.dtype)
    return through * state + dot(weighted, b, 0, 0)


def read_or_zero(first: Sequence[Any], p: int, n: int) -> Array:
    """The state in the one ref of `first`, or zeros where there is none."""
    return first[0][...] if first else jnp.zeros((p, n), jnp.float32)


def run_kernel(
    kernel: Callable[..., None],
    args: tuple[Array, ...],
    *,
    out_like: tuple[Any, ...],
    num_warps: int,
    **settings: Any,
) -> Any:
    """Call a Triton kernel; results have the shapes and dtypes of `out_like`."""
    # Without these parameters some versions of JAX use another compiler.
    params = plt.CompilerParams(num_warps=num_warps, num_stages=2)
    shapes = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in out_like)
    call = pl.pallas_call(kernel, out_shape=shapes, compiler_params=params, **settings)
    return call(*args)
