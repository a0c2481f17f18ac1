# SPDX-License-Identifier: Apache-2.0
"""SSD as Pallas kernels for CUDA (Triton), forward and backward.

The forward pass computes y with one kernel: a program per row and head goes through
the chunks and carries the state. A second kernel computes the last state.

The backward pass launches two kernels three times. The first launch computes the
states at the chunk starts. The second computes their cotangents at the chunk ends, by
the same recurrence from right to left. The third uses both and treats every chunk
separately: a program per row, group and chunk goes through the heads of the group. It
sums the gradients of B and C over these heads in registers, which needs no per-head
copies and no atomics, and gives the same bits every time.

The letters are those of ops.ssd; q and s are positions in a chunk.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from trm_jax.ops.ssd.segments import decays
from trm_jax.ops.ssd.tiles import (
    Rows,
    dot,
    next_state,
    num_warps_for,
    per_group,
    per_head,
    read_or_zero,
    rows_per_chunk,
    run_kernel,
    running_sums,
)


def forward(
    x: Float[Array, "b l h p"],
    dt: Float[Array, "b l h"],
    A: Float[Array, " h"],
    B: Float[Array, "b l g n"],
    C: Float[Array, "b l g n"],
    initial_state: Float[Array, "b h p n"] | None,
    *,
    chunk_size: int,
    interpret: bool = False,
) -> tuple[Float[Array, "b l h p"], Float[Array, "b h p n"]]:
    """The outputs y and the last state; arguments as in `ops.ssd.ssd`.

    The last state has its own kernel, which the compiler removes if the state is not
    used: at short lengths it is as large as x and y together.
    """
    size, of = rows_per_chunk(chunk_size, x.shape[1]), per_head(x, B)
    last = pl.cdiv(x.shape[1], size) - 1

    def kernel(x, dt, A, B, C, *first_and_y):
        *first, y = first_and_y

        def chunk(k: Any, state: Array) -> Array:
            rows = Rows(k, size, x.shape[0])
            X, step, b, c = (rows.load(ref) for ref in (x, dt, B, C))
            decay = decays(step * A[...], running_sums)
            scores = dot(c, b, 1, 1) * decay.between() * step[None, :]
            carried = decay.from_start[:, None] * dot(c, state.astype(c.dtype), 1, 1)
            rows.store(y, dot(scores.astype(X.dtype), X, 1, 0) + carried)
            return next_state(state, X, decay.to_end * step, b, decay.through)

        state = read_or_zero(first, x.shape[-1], B.shape[-1])
        # Outside the loop, the compiler drops the unused state after the last chunk.
        state = lax.fori_loop(0, last, chunk, state)
        chunk(lax.full((), last, int), state)

    args = (x, dt, A, B, C, *([] if initial_state is None else [initial_state]))
    (y,) = run_kernel(
        kernel,
        args,
        in_specs=[of[k] for k in ("x", "dt", "A", "B", "B", "state")[: len(args)]],
        out_like=(x,),
        out_specs=(of["x"],),
        grid=(x.shape[0], x.shape[2]),
        num_warps=num_warps_for(x),
        interpret=interpret,
    )
    walk = partial(_walk, dt, A, x, B, initial_state, reverse=False, size=size)
    return y, walk(results=("last",), interpret=interpret)[0]


def backward(
    x: Float[Array, "b l h p"],
    dt: Float[Array, "b l h"],
    A: Float[Array, " h"],
    B: Float[Array, "b l g n"],
    C: Float[Array, "b l g n"],
    initial_state: Float[Array, "b h p n"] | None,
    dy: Float[Array, "b l h p"],
    dlast: Float[Array, "b h p n"] | None,
    *,
    chunk_size: int,
    interpret: bool = False,
) -> tuple[Any, ...]:
    """Cotangents of x, dt (without its part in dt A), dt A, B, C and initial_state."""
    size = rows_per_chunk(chunk_size, x.shape[1])
    walk = partial(_walk, dt, A, size=size, interpret=interpret)
    (starts,) = walk(x, B, initial_state, reverse=False, results=("states",))
    results = ("states",) if initial_state is None else ("states", "last")
    ends, *dfirst = walk(dy, C, dlast, reverse=True, results=results)
    of = per_group(x, B)
    ins = (of["x"], of["dt"], of["A"], of["B"], of["B"], of["x"])
    dx, ddt, da, dB, dC, kept = run_kernel(
        partial(_chunk_backward, size=size),
        (x, dt, A, B, C, dy, starts, ends),
        in_specs=(*ins, of["states"], of["states"]),
        out_like=(x, dt, dt, B, C, jax.ShapeDtypeStruct(starts.shape[:3], dt.dtype)),
        out_specs=(of["x"], of["dt"], of["dt"], of["B"], of["B"], of["kept"]),
        grid=(x.shape[0], B.shape[2], starts.shape[1]),
        num_warps=8,
        interpret=interpret,
    )
    # A chunk decays its starting state by the product of the decays of its tokens.
    da += jnp.repeat(kept, size, axis=1)[:, : x.shape[1]]
    return dx, ddt, da, dB, dC, dfirst[0] if dfirst else None


def _walk(
    dt: Array,
    A: Array,
    x: Array,
    B: Array,
    first: Array | None,
    *,
    reverse: bool,
    results: tuple[str, ...],
    size: int,
    interpret: bool,
) -> tuple[Array, ...]:
    """Carry the state through the chunks, from `first`, or from zero if it is None.

    The result "states" is the state before each chunk in the order of the walk, shape
    `b c h p n`, in x's dtype. "last" is the state after all chunks, shape `b h p n`, in
    dt's dtype. With (dy, C) as (x, B) and `reverse`, they are cotangents of the states.
    """
    (b, l, h, p), n = x.shape, B.shape[-1]
    num_chunks = pl.cdiv(l, size)
    num_walked = num_chunks if "last" in results else num_chunks - 1
    of = per_head(x, B, num_chunks) | {"last": per_head(x, B)["state"]}

    def kernel(dt, A, x, B, *rest):
        first, out = rest[: -len(results)], rest[-len(results) :]
        out = dict(zip(results, out, strict=True))

        def store(i: Any, state: Array) -> Any:
            k = num_chunks - 1 - i if reverse else i
            if "states" in out:
                out["states"][k] = state.astype(x.dtype)
            return k

        def chunk(i: Any, state: Array) -> Array:
            k = store(i, state)
            rows = Rows(k, size, l)
            step = rows.load(dt)
            decay = decays(step * A[...], running_sums)
            weight = decay.from_start if reverse else decay.to_end * step
            return next_state(state, rows.load(x), weight, rows.load(B), decay.through)

        last = lax.fori_loop(0, num_walked, chunk, read_or_zero(first, p, n))
        if "last" in out:
            out["last"][...] = last
        else:
            store(num_walked, last)

    args = (dt, A, x, B, *([] if first is None else [first]))
    like = {
        "states": jax.ShapeDtypeStruct((b, num_chunks, h, p, n), x.dtype),
        "last": jax.ShapeDtypeStruct((b, h, p, n), dt.dtype),
    }
    return run_kernel(
        kernel,
        args,
        in_specs=[of[k] for k in ("dt", "A", "x", "B", "state")[: len(args)]],
        out_like=tuple(like[name] for name in results),
        out_specs=tuple(of[name] for name in results),
        grid=(b, h),
        num_warps=num_warps_for(x),
        interpret=interpret,
    )


def _chunk_backward(
    x, dt, A, B, C, dy, starts, ends, dx, ddt, da, dB, dC, kept, *, size
):
    """Compute all gradients of one chunk of one row and group, head by head.

    There are two loops over the heads: one loop that also held the sums for dB and dC
    would need too many registers.
    """
    # Cast to the loop's integer type: with 64-bit types on, index types must agree.
    rows = Rows(pl.program_id(2).astype(int), size, x.shape[0])
    b, c = rows.load(B), rows.load(C)
    scores, dtype = dot(c, b, 1, 1), b.dtype
    row, column = rows.index[:, None], rows.index[None, :]

    def head(i: Array, dscores: Array) -> Array:
        X, dY, step = rows.load(x, i), rows.load(dy, i), rows.load(dt, i)
        decay = decays(step * A[i], running_sums)

        # Within the chunk: y = (scores * between * step) x.
        between = decay.between()
        within = scores * between
        dwithin = dot(dY, X, 1, 1)
        by_token = dot((within * step[None, :]).astype(dtype), dY, 0, 0)
        moved = dwithin * within
        dscores += dwithin * between * step[None, :]

        # Through the states: what the tokens read from them, and add to them.
        read = (dY * decay.from_start[:, None] * dot(c, starts[i], 1, 1)).sum(1)
        dadded = dot(b, ends[i], 1, 1) * decay.to_end[:, None]
        added = (X * dadded).sum(1)

        rows.store(dx, by_token + step[:, None] * dadded, i)
        rows.store(ddt, moved.sum(0) + added, i)

        # The decay of token t lies between all that enters before it and all that reads
        # from it on. Sums of just these pairs do not cancel.
        up_to = jnp.cumsum(moved * step[None, :], axis=1)
        across = jnp.where(row > column, up_to, 0.0).sum(0)  # for token column + 1
        dlog = jnp.where(row == column + 1, across[None, :], 0.0)
        dlog += jnp.where(row > column, (added * step)[None, :], read[None, :])
        rows.store(da, dlog.sum(1), i)
        return dscores

    def head_sums(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        X, dY, step = rows.load(x, i), rows.load(dy, i), rows.load(dt, i)
        decay = decays(step * A[i], running_sums)
        added = (X * (decay.to_end * step)[:, None]).astype(dtype)
        read = (dY * decay.from_start[:, None]).astype(dtype)
        start, end = starts[i], ends[i]
        kept[i] = decay.through * (start.astype(step.dtype) * end).sum()
        db, dc = sums
        return db + dot(added, end, 1, 0), dc + dot(read, start, 1, 0)

    heads = x.shape[1]
    dscores = lax.fori_loop(0, heads, head, jnp.zeros_like(scores)).astype(dtype)
    sums = dot(dscores, c, 0, 0), dot(dscores, b, 1, 0)
    db, dc = lax.fori_loop(0, heads, head_sums, sums)
    rows.store(dB, db)
    rows.store(dC, dc)
