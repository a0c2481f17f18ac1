# SPDX-License-Identifier: Apache-2.0
"""SSD as Pallas kernels for Hopper GPUs (Mosaic GPU), forward and backward.

One kernel, the walk, computes the outputs, the states or the last state: a warpgroup
per row and head goes through the chunks and carries the state in registers. Two heads
of a group share a block, which loads B and C once for both.

The backward pass is that of kernels.py: the walk computes the states at the chunk
starts, and from right to left their cotangents at the chunk ends. The kernel in
mosaic_backward.py then treats every chunk separately.

The letters are those of ops.ssd; q and s are positions in a chunk.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from trm_jax.ops.ssd.mosaic_backward import chunk_gradients
from trm_jax.ops.ssd.mosaic_tiles import (
    DT,
    FROM_START,
    SIZE,
    STAGES,
    WEIGHT,
    across,
    column_tile,
    decay_matrix,
    down,
    in_tiles,
    matrix,
    product,
    read,
    run_kernel,
    tiled,
    vectors,
    zeros,
)


def forward(
    x: Float[Array, "b l h p"],
    dt: Float[Array, "b l h"],
    A: Float[Array, " h"],
    B: Float[Array, "b l g n"],
    C: Float[Array, "b l g n"],
    initial_state: Float[Array, "b h p n"] | None,
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "b l h p"], Float[Array, "b h p n"]]:
    """The outputs y and the last state; arguments as in `ops.ssd.ssd`.

    The last state has its own kernel, which the compiler removes if it is not used.
    """
    of_rows, X, B, C = vectors(dt, A), in_tiles(x), in_tiles(B), in_tiles(C)
    walk = partial(_walk, X, of_rows, B, first=initial_state, interpret=interpret)
    (y,) = walk(C, results=("y",))
    return y[:, : x.shape[1]], walk(results=("last",))[0]


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
    interpret: bool = False,
) -> tuple[Any, ...]:
    """Cotangents of x, dt (without its part in dt A), dt A, B, C and initial_state."""
    of_rows, of_tokens = vectors(dt, A), tuple(map(in_tiles, (x, B, C, dy)))
    X, keys, queries, dY = of_tokens
    walk = partial(_walk, interpret=interpret)
    (starts,) = walk(X, of_rows, keys, first=initial_state, results=("states",))
    results = ("states",) if initial_state is None else ("states", "last")
    ends, *dfirst = walk(
        dY, of_rows, queries, first=dlast, results=results, reverse=True
    )
    grads = chunk_gradients(*of_tokens, of_rows, starts, ends, interpret=interpret)
    dx, dB, dC, ddt, da = (v[:, : x.shape[1]] for v in grads)
    return dx, ddt, da, dB, dC, dfirst[0] if dfirst else None


def _walk(
    x: Array,
    of_rows: Array,
    B: Array,
    C: Array | None = None,
    *,
    first: Array | None,
    results: tuple[str, ...],
    interpret: bool,
    reverse: bool = False,
) -> tuple[Array, ...]:
    """Carry the state through the chunks, from `first`, or from zero if it is None.

    The result "y" is the output, which needs C. "states" is the state before each chunk
    in the order of the walk, shape `b c h p n`, in x's dtype. "last" is the state after
    all chunks, shape `b h p n`, in float32. With (dy, C) as (x, B) and `reverse`, they
    are cotangents of the states.
    """
    (b, _, h, p), (g, n), c = x.shape, B.shape[2:], of_rows.shape[2]
    heads = 2 if h // g % 2 == 0 else 1  # of a block
    inputs = {"x": x, "vectors": of_rows, "B": B, "C": C, "first": first}
    inputs = {name: v for name, v in inputs.items() if v is not None}
    like = {
        "y": x,
        "states": jax.ShapeDtypeStruct((b, c, h, p, n), x.dtype),
        "last": jax.ShapeDtypeStruct((b, h, p, n), jnp.float32),
    }
    per_group = [name for name in ("B", "C") if name in inputs]
    matrices = partial(tiled, dtype=x.dtype)
    scratch = {
        "X": matrices(heads, STAGES, SIZE, p),
        "V": plgpu.SMEM((heads, STAGES, *of_rows.shape[3:]), jnp.float32),
        **{f"{name}s": matrices(STAGES, SIZE, n) for name in per_group},
        "weighted": matrices(heads, SIZE, p),
        "state": matrices(heads, p, n),
        "own": plgpu.Barrier(num_arrivals=2, num_barriers=(heads, STAGES)),
        "shared": plgpu.Barrier(num_arrivals=len(per_group), num_barriers=STAGES),
        "done": plgpu.Barrier(num_arrivals=heads),
    }
    if results == ("last",):
        del scratch["state"]

    def body(*refs: Any) -> None:
        names = (*inputs, *results, *scratch)
        of = dict(zip(names, refs, strict=True))
        i, w = lax.axis_index("row"), lax.axis_index("head")
        head = lax.axis_index("heads") * heads + w
        mine = {k: of[k].at[w] for k in ("X", "V", "weighted")}
        stored = of["state"].at[w] if "state" in of else None

        def rows_of(step: Any) -> tuple[Any, Any]:
            k = c - 1 - step if reverse else step
            return k, pl.ds(k * SIZE, SIZE)

        def load(step: Any) -> None:
            (k, rows), slot = rows_of(step), lax.rem(step, STAGES)
            barrier = of["own"].at[w, slot]
            plgpu.copy_gmem_to_smem(of["x"].at[i, rows, head], mine["X"].at[slot], barrier)
            plgpu.copy_gmem_to_smem(of["vectors"].at[i, head, k], mine["V"].at[slot], barrier)

        def load_shared(step: Any) -> None:
            (_, rows), slot = rows_of(step), lax.rem(step, STAGES)
            group = lax.div(head, h // g)
            for name in per_group:
                plgpu.copy_gmem_to_smem(
                    of[name].at[i, rows, group], of[f"{name}s"].at[slot], of["shared"].at[slot]
                )

        def chunk(step: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
            (k, rows), slot = rows_of(step), lax.rem(step, STAGES)
            X, V, keys = mine["X"].at[slot], mine["V"].at[slot], of["Bs"].at[slot]
            weighted = mine["weighted"]
            plgpu.barrier_wait(of["own"].at[w, slot])
            plgpu.barrier_wait(of["shared"].at[slot])
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)
            if stored is not None:
                for j, tile in enumerate(state):
                    stored[:, j * SIZE : (j + 1) * SIZE] = tile.astype(x.dtype)
            if "y" in of:
                queries = of["Cs"].at[slot]
                scores = product(queries, keys.transpose((1, 0)))
                scores *= decay_matrix(V) * across(V.at[DT])
                weighted[...] = scores.astype(x.dtype)
                plgpu.commit_smem()
                out = product(queries, stored.transpose((1, 0))) * down(V.at[FROM_START])
                out += product(weighted, X)
                X_values = read(X)
                weighted[...] = out.astype(x.dtype)
                plgpu.commit_smem()
                plgpu.copy_smem_to_gmem(weighted, of["y"].at[i, rows, head])
            if "states" in of:
                plgpu.commit_smem()
                plgpu.copy_smem_to_gmem(stored, of["states"].at[i, k, head])
            weight = FROM_START if reverse else WEIGHT
            X[...] = (read(X) * down(V.at[weight])).astype(x.dtype)
            plgpu.commit_smem()
            through = V[FROM_START, SIZE - 1]
            state = tuple(
                tile * through + product(X.transpose((1, 0)), column_tile(keys, j))
                for j, tile in enumerate(state)
            )
            if c > STAGES:
                _reload(step)
            return state

        def _reload(step: Any) -> None:
            """Load what comes STAGES later, once both heads have used B and C."""
            more = step + STAGES < c
            plgpu.barrier_arrive(of["done"])
            pl.when(more)(lambda: load(step + STAGES))

            @pl.when(w == 0)
            def _() -> None:
                plgpu.barrier_wait(of["done"])
                pl.when(more)(lambda: load_shared(step + STAGES))

        @pl.loop(0, min(STAGES, c))
        def _(step: Any) -> None:
            load(step)
            pl.when(w == 0)(lambda: load_shared(step))

        tiles = range(n // SIZE)
        if "first" in of:
            start = tuple(
                plgpu.load(
                    column_tile(of["first"].at[i, head], j),
                    layout=plgpu.Layout.WGMMA,
                    optimized=False,
                )
                for j in tiles
            )
        else:
            start = tuple(zeros() for _ in tiles)
        state = lax.fori_loop(0, c, chunk, start)
        if "last" in of:
            for j, tile in enumerate(state):
                of["last"][i, head, :, j * SIZE : (j + 1) * SIZE] = tile
        plgpu.wait_smem_to_gmem(0)

    return run_kernel(
        body,
        tuple(inputs.values()),
        out_like=tuple(like[name] for name in results),
        scratch_types=list(scratch.values()),
        grid=(b, h // heads),
        grid_names=("row", "heads"),
        num_threads=heads,
        thread_name="head",
        interpret=interpret,
    )
