# SPDX-License-Identifier: Apache-2.0
"""SSD as Pallas kernels for CUDA (Triton), forward and backward.

The forward pass is one kernel: a program per row and head walks the chunks and carries
the state. The backward pass is three launches of two kernels: the states at the chunk
starts, their cotangents at the chunk ends (the same recurrence, right to left), and
with both at hand every chunk by itself, a program per row, chunk and group that goes
through the group's heads. So the gradients of B and C are summed over the heads in
registers: no per-head copies, no atomics, the same bits every time.

Letters as in ops.ssd; q and s positions in a chunk, s_q the running sum of dt A.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float

SMALLEST = 16  # rows and columns that a tensor-core product takes


def supports(x: Array, B: Array, chunk_size: int) -> bool:
    """Whether the kernels take these shapes: Triton wants powers of two."""
    sizes = (x.shape[-1], B.shape[-1], chunk_size)
    return x.dtype != jnp.float64 and all(s & (s - 1) == 0 for s in sizes)


def forward(
    x: Float[Array, "b l h p"],
    dt: Float[Array, "b l h"],
    A: Float[Array, " h"],
    B: Float[Array, "b l g n"],
    C: Float[Array, "b l g n"],
    initial_state: Float[Array, "b h p n"],
    *,
    chunk_size: int,
    interpret: bool = False,
) -> tuple[Float[Array, "b l h p"], Float[Array, "b h p n"]]:
    """Y and the last state; arguments as in `ops.ssd.ssd`."""
    size, of = _chunk_size(chunk_size, x), _per_head(x, B)

    def kernel(x, dt, A, B, C, first, y, last):
        def chunk(k: Array, state: Array) -> Array:
            rows = _Rows(k, size, x.shape[0])
            X, step, b, c = (rows.load(ref) for ref in (x, dt, B, C))
            s, total = _cumulative(step, A[...])
            scores = _dot(c, b, 1, 1) * _decay(s) * step[None, :]
            carried = _dot(c, state.astype(c.dtype), 1, 1)
            out = _dot(scores.astype(X.dtype), X, 1, 0) + jnp.exp(s)[:, None] * carried
            rows.store(y, out)
            return _next_state(state, X, jnp.exp(total - s) * step, b, total)

        last[...] = lax.fori_loop(0, pl.cdiv(x.shape[0], size), chunk, first[...])

    return _call(
        kernel,
        (x, dt, A, B, C, initial_state),
        in_specs=(of["x"], of["dt"], of["A"], of["B"], of["B"], of["state"]),
        out_like=(x, initial_state),
        out_specs=(of["x"], of["state"]),
        grid=(x.shape[0], x.shape[2]),
        num_warps=4,
        interpret=interpret,
    )


def backward(
    x: Float[Array, "b l h p"],
    dt: Float[Array, "b l h"],
    A: Float[Array, " h"],
    B: Float[Array, "b l g n"],
    C: Float[Array, "b l g n"],
    initial_state: Float[Array, "b h p n"],
    dy: Float[Array, "b l h p"],
    dlast: Float[Array, "b h p n"],
    *,
    chunk_size: int,
    interpret: bool = False,
) -> tuple[Array, ...]:
    """Cotangents of x, dt (but for its part in dt A), dt A, B, C and initial_state."""
    size = _chunk_size(chunk_size, x)
    walk = partial(_walk, dt, A, size=size, interpret=interpret)
    starts, _ = walk(x, B, initial_state, reverse=False)
    ends, dfirst = walk(dy, C, dlast, reverse=True)
    of = _per_group(x, B)
    ins = (of["x"], of["dt"], of["A"], of["B"], of["B"], of["x"])
    dx, ddt, da, dB, dC, kept = _call(
        partial(_chunk_backward, size=size),
        (x, dt, A, B, C, dy, starts, ends),
        in_specs=(*ins, of["states"], of["states"]),
        out_like=(x, dt, dt, B, C, jax.ShapeDtypeStruct(starts.shape[:3], dt.dtype)),
        out_specs=(of["x"], of["dt"], of["dt"], of["B"], of["B"], of["kept"]),
        grid=(x.shape[0], B.shape[2], starts.shape[1]),
        num_warps=8,
        interpret=interpret,
    )
    # A chunk's decay of its starting state is the product of all its tokens' decays.
    da += jnp.repeat(kept, size, axis=1)[:, : x.shape[1]]
    return dx, ddt, da, dB, dC, dfirst


def _walk(
    dt: Array,
    A: Array,
    x: Array,
    B: Array,
    first: Array,
    *,
    reverse: bool,
    size: int,
    interpret: bool,
) -> tuple[Float[Array, "b c h p n"], Float[Array, "b h p n"]]:
    """The state before each chunk in the order of the walk, and after the last.

    Left to right these are states; right to left, of (dy, C), their cotangents.
    """
    (b, l, h, p), n = x.shape, B.shape[-1]
    num_chunks = pl.cdiv(l, size)
    of = _per_head(x, B, num_chunks)

    def kernel(dt, A, x, B, first, states, last):
        def chunk(i: Array, state: Array) -> Array:
            k = num_chunks - 1 - i if reverse else i
            states[k] = state.astype(states.dtype)
            rows = _Rows(k, size, l)
            step = rows.load(dt)
            s, total = _cumulative(step, A[...])
            weight = jnp.exp(s) if reverse else jnp.exp(total - s) * step
            return _next_state(state, rows.load(x), weight, rows.load(B), total)

        last[...] = lax.fori_loop(0, num_chunks, chunk, first[...])

    return _call(
        kernel,
        (dt, A, x, B, first),
        in_specs=(of["dt"], of["A"], of["x"], of["B"], of["state"]),
        out_like=(jax.ShapeDtypeStruct((b, num_chunks, h, p, n), x.dtype), first),
        out_specs=(of["states"], of["state"]),
        grid=(b, h),
        num_warps=4,
        interpret=interpret,
    )


def _chunk_backward(
    x, dt, A, B, C, dy, starts, ends, dx, ddt, da, dB, dC, kept, *, size
):
    """One chunk of one row and group: all gradients, head by head.

    Two passes over the heads: with the sums for dB and dC in one with the rest, the
    registers would not do.
    """
    rows = _Rows(pl.program_id(2), size, x.shape[0])
    b, c = rows.load(B), rows.load(C)
    scores, dtype = _dot(c, b, 1, 1), b.dtype
    last_row, later = rows.index == size - 1, rows.index[:, None] <= rows.index[None, :]

    def head(i: Array, dscores: Array) -> Array:
        X, dY, step = rows.load(x, i), rows.load(dy, i), rows.load(dt, i)
        s, total = _cumulative(step, A[i])

        # Within the chunk: y = (scores * decay * step) x.
        decay = _decay(s)
        within = scores * decay
        dwithin = _dot(dY, X, 1, 1)
        by_token = _dot((within * step[None, :]).astype(dtype), dY, 0, 0)
        moved = dwithin * within
        dstep = moved.sum(0)
        ds = (moved * step[None, :]).sum(1) - dstep * step
        dscores += dwithin * decay * step[None, :]

        # Through the states: what the tokens read, and what they add.
        read = (dY * jnp.exp(s)[:, None] * _dot(c, starts[i], 1, 1)).sum(1)
        dadded = _dot(b, ends[i], 1, 1) * jnp.exp(total - s)[:, None]
        added = (X * dadded).sum(1)
        ds += read - added * step + jnp.where(last_row, (added * step).sum(), 0.0)

        rows.store(dx, by_token + step[:, None] * dadded, i)
        rows.store(ddt, dstep + added, i)
        rows.store(da, jnp.where(later, ds[None, :], 0.0).sum(1), i)  # reverse cumsum
        return dscores

    def head_sums(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        X, dY, step = rows.load(x, i), rows.load(dy, i), rows.load(dt, i)
        s, total = _cumulative(step, A[i])
        added = (X * (jnp.exp(total - s) * step)[:, None]).astype(dtype)
        read = (dY * jnp.exp(s)[:, None]).astype(dtype)
        start, end = starts[i], ends[i]
        kept[i] = jnp.exp(total) * (start.astype(total.dtype) * end).sum()
        db, dc = sums
        return db + _dot(added, end, 1, 0), dc + _dot(read, start, 1, 0)

    heads = x.shape[1]
    dscores = lax.fori_loop(0, heads, head, jnp.zeros_like(scores)).astype(dtype)
    sums = _dot(dscores, c, 0, 0), _dot(dscores, b, 1, 0)
    db, dc = lax.fori_loop(0, heads, head_sums, sums)
    rows.store(dB, db)
    rows.store(dC, dc)


class _Rows:
    """The rows of chunk k; those at or beyond `length` read as 0 and are not stored."""

    def __init__(self, k: Any, size: int, length: int) -> None:
        self.index = lax.iota(jnp.int32, size)
        self._slice = pl.ds(k * size, size)
        self._exist = k * size + self.index < length

    def _mask(self, ndim: int) -> Array:
        return self._exist if ndim == 1 else self._exist[:, None]

    def load(self, ref: Any, *head: Any) -> Array:
        part = ref.at[self._slice, *head]
        return plt.load(part, mask=self._mask(len(part.shape)), other=0.0)

    def store(self, ref: Any, value: Array, *head: Any) -> None:
        part = ref.at[self._slice, *head]
        mask = jnp.broadcast_to(self._mask(value.ndim), value.shape)
        plt.store(part, value.astype(ref.dtype), mask=mask)


def _dot(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
    """Sum over one axis of each, accumulated in float32."""
    dims = (((a_axis,), (b_axis,)), ((), ()))
    return lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def _cumulative(step: Array, A: Array) -> tuple[Array, Array]:
    """Running sum of the log decays step * A, and their total."""
    log_decay = step * A
    return jnp.cumsum(log_decay), log_decay.sum()


def _decay(s: Array) -> Array:
    """exp(s_q - s_s) for s <= q, else 0: masked before exp, which would overflow."""
    q = lax.broadcasted_iota(jnp.int32, (s.size, s.size), 0)
    causal = q >= lax.broadcasted_iota(jnp.int32, (s.size, s.size), 1)
    return jnp.exp(jnp.where(causal, s[:, None] - s[None, :], -jnp.inf))


def _next_state(state: Array, X: Array, weight: Array, b: Array, total: Array) -> Array:
    """exp(total) state + sum_q weight_q x_q b_q^T, `p n`."""
    weighted = (X * weight[:, None]).astype(X.dtype)
    return jnp.exp(total) * state + _dot(weighted, b, 0, 0)


def _chunk_size(chunk_size: int, x: Array) -> int:
    """The chunk size, or less for short sequences: a power of two all the same."""
    return max(SMALLEST, min(chunk_size, 1 << (x.shape[1] - 1).bit_length()))


def _per_head(x: Array, B: Array, c: int = 0) -> dict[str, pl.BlockSpec]:
    """What program (row, head) sees of each array: whole sequences."""
    (_, l, h, p), (g, n) = x.shape, B.shape[2:]
    return {
        "x": pl.BlockSpec((None, l, None, p), lambda i, j: (i, 0, j, 0)),
        "dt": pl.BlockSpec((None, l, None), lambda i, j: (i, 0, j)),
        "A": pl.BlockSpec((None,), lambda i, j: (j,)),
        "B": pl.BlockSpec((None, l, None, n), lambda i, j: (i, 0, j // (h // g), 0)),
        "state": pl.BlockSpec((None, None, p, n), lambda i, j: (i, j, 0, 0)),
        "states": pl.BlockSpec((None, c, None, p, n), lambda i, j: (i, 0, j, 0, 0)),
    }


def _per_group(x: Array, B: Array) -> dict[str, pl.BlockSpec]:
    """What program (row, group, chunk) sees of each array."""
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


def _call(
    kernel: Callable[..., None],
    args: tuple[Array, ...],
    *,
    out_like: tuple[Any, ...],
    num_warps: int,
    **settings: Any,
) -> Any:
    # Without these parameters some versions of JAX take another compiler.
    params = plt.CompilerParams(num_warps=num_warps, num_stages=2)
    shapes = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in out_like)
    call = pl.pallas_call(kernel, out_shape=shapes, compiler_params=params, **settings)
    return call(*args)
