# SPDX-License-Identifier: Apache-2.0
"""The gradients of every chunk, from the states at its start and their cotangents.

A block per row, group and chunk goes through the heads of the group. Its three
warpgroups share what is loaded for a head: the first computes the gradients of x and
the decays, the second sums the gradient of B over the heads, and the third that of C.
The sums stay in registers, which needs no per-head copies and no atomics, and gives the
same bits every time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from trm_jax.ops.ssd.mosaic_tiles import (
    DT,
    FROM_START,
    SIZE,
    STAGES,
    TO_END,
    WEIGHT,
    across,
    column_tile,
    decay_matrix,
    down,
    product,
    read,
    run_kernel,
    tiled,
    zeros,
)

PER_HEAD = ("x", "dy", "starts", "ends", "vectors")
# Sums over one axis of a chunk's matrices, which the kernel returns for every head.
WITHIN, ADDED, MOVED, READ, KEPT = range(5)


def chunk_gradients(
    x: Float[Array, "b l h p"],
    B: Float[Array, "b l g n"],
    C: Float[Array, "b l g n"],
    dy: Float[Array, "b l h p"],
    vectors: Float[Array, "b h c v q"],
    starts: Float[Array, "b c h p n"],
    ends: Float[Array, "b c h p n"],
    *,
    interpret: bool,
) -> tuple[Array, ...]:
    """Cotangents of x, B, C, dt (without its part in dt A) and dt A.

    l is a multiple of 8. The last two have whole chunks, `b c*q h`.
    """
    (b, _, h, _), (g, n) = x.shape, B.shape[2:]
    chunks = vectors.shape[2]
    sums = jax.ShapeDtypeStruct((b, h, chunks, 5, SIZE), jnp.float32)
    matrices = {
        **{name: (STAGES, SIZE, SIZE) for name in ("x", "dy")},
        **{name: (STAGES, SIZE, n) for name in ("starts", "ends")},
        **{name: (SIZE, n) for name in ("B", "C")},
        **{name: (SIZE, SIZE) for name in ("moves", "added", "read", "dscores")},
    }
    scratch = {k: tiled(*shape, dtype=x.dtype) for k, shape in matrices.items()} | {
        "vectors": plgpu.SMEM((STAGES, *vectors.shape[3:]), jnp.float32),
        "sums": plgpu.SMEM(sums.shape[3:], jnp.float32),
        "loaded": plgpu.Barrier(num_arrivals=len(PER_HEAD), num_barriers=STAGES),
        "once": plgpu.Barrier(num_arrivals=2),
        "done": plgpu.Barrier(num_arrivals=3),
        "summed": plgpu.Barrier(num_arrivals=3),
    }
    inputs = {"x": x, "B": B, "C": C, "dy": dy, "vectors": vectors}
    inputs |= {"starts": starts, "ends": ends}
    outputs = {"dx": x, "dB": B, "dC": C, "sums": sums}

    def body(*refs: Any) -> None:
        count = len(inputs) + len(outputs)
        of = dict(zip((*inputs, *outputs), refs[:count], strict=True))
        here = dict(zip(scratch, refs[count:], strict=True))
        _block(of, here, h // g)

    dx, dB, dC, of_heads = run_kernel(
        body,
        tuple(inputs.values()),
        out_like=tuple(outputs.values()),
        scratch_types=list(scratch.values()),
        grid=(b, g, chunks),
        grid_names=("row", "group", "chunk"),
        num_threads=3,
        thread_name="role",
        interpret=interpret,
    )
    return dx, dB, dC, *_of_decays(of_heads, vectors)


class _Sums(NamedTuple):
    """What a warpgroup sums: (weight * values) @ states, and the pairs of each row."""

    values: str
    weight: int
    states: str
    staged: str
    line: int
    pairs: Callable[..., Any]


def _of_decays(sums: Array, vectors: Array) -> tuple[Array, Array]:
    """Cotangents of dt (without its part in dt A) and of dt A, `b c*q h`."""
    within, added, moved, was_read, kept = (sums[..., i, :] for i in range(5))
    dt, through = vectors[..., DT, :], vectors[..., FROM_START, -1]
    ddt = within + added
    ds = moved + was_read - ddt * dt
    ds = ds.at[..., -1].add((added * dt).sum(-1) + through * kept.sum(-1))
    da = lax.cumsum(ds, axis=ds.ndim - 1, reverse=True)
    b, h = ds.shape[:2]
    return tuple(v.transpose(0, 2, 3, 1).reshape(b, -1, h) for v in (ddt, da))


def _block(of: dict[str, Any], here: dict[str, Any], heads: int) -> None:
    i, group, k = (lax.axis_index(axis) for axis in ("row", "group", "chunk"))
    role, rows = lax.axis_index("role"), pl.ds(k * SIZE, SIZE)
    tiles = range(here["B"].shape[1] // SIZE)

    def load(j: Any) -> None:
        head, slot = group * heads + j, lax.rem(j, STAGES)
        for name in PER_HEAD:
            source = of[name].at[
                (i, rows, head)
                if name in ("x", "dy")
                else (i, head, k)
                if name == "vectors"
                else (i, k, head)
            ]
            plgpu.copy_gmem_to_smem(
                source, here[name].at[slot], here["loaded"].at[slot]
            )

    def each_head(step: Any, start: Any) -> Any:
        """Fold `step(at, save, carry)` over the heads.

        `at` has what is loaded for a head, and save(name, sum) stores one of its sums.
        """

        def fold(j: Any, carry: Any) -> Any:
            slot = lax.rem(j, STAGES)
            plgpu.barrier_wait(here["loaded"].at[slot])
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)

            def save(index: int, value: Any) -> None:
                here["sums"][index] = value
                plgpu.commit_smem()
                plgpu.copy_smem_to_gmem(
                    here["sums"].at[index],
                    of["sums"].at[i, group * heads + j, k, index],
                )

            at = {name: here[name].at[slot] for name in PER_HEAD}
            carry = step(group * heads + j, at, save, carry)
            if heads > STAGES:
                plgpu.barrier_arrive(here["done"])

                @pl.when(role == 2)
                def _() -> None:
                    plgpu.barrier_wait(here["done"])
                    pl.when(j + STAGES < heads)(lambda: load(j + STAGES))

            return carry

        return lax.fori_loop(0, heads, fold, start)

    @pl.when(role == 2)
    def _() -> None:
        for name in ("B", "C"):
            plgpu.copy_gmem_to_smem(of[name].at[i, rows, group], here[name], here["once"])
        pl.loop(0, min(STAGES, heads))(load)

    plgpu.barrier_wait(here["once"])

    @pl.when(role == 0)
    def _() -> None:
        """Everything is transposed: row s of a matrix is what token s does later."""
        B, C, moves = here["B"], here["C"], here["moves"]
        scores = product(B, C.transpose((1, 0)))

        def head(index: Any, at: Any, save: Any, dscores: Any) -> Any:
            X, dY, V = at["x"], at["dy"], at["vectors"]
            decay = decay_matrix(V, transposed=True)
            dwithin = product(X, dY.transpose((1, 0)))
            moves[...] = (scores * decay * down(V.at[DT])).astype(moves.dtype)
            plgpu.commit_smem()
            decayed = dwithin * decay
            dscores += decayed * down(V.at[DT])
            moved = decayed * scores
            save(WITHIN, moved.sum(1))
            save(MOVED, (moved * down(V.at[DT])).sum(0))
            dx = product(moves, dY)
            dadded = product(B, at["ends"].transpose((1, 0))) * down(V.at[TO_END])
            save(ADDED, (read(X) * dadded).sum(1))
            dx += dadded * down(V.at[DT])
            moves[...] = dx.astype(moves.dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(moves, of["dx"].at[i, rows, index])
            return dscores

        dscores = each_head(head, zeros())
        here["dscores"][...] = dscores.astype(here["dscores"].dtype)
        plgpu.commit_smem()
        plgpu.barrier_arrive(here["summed"])

    def summed(role_of: _Sums) -> Any:
        """Sums over the heads of (weight * values) @ states, by tile."""
        staged = here[role_of.staged]

        def head(_: Any, at: Any, save: Any, sums: Any) -> Any:
            weight = down(at["vectors"].at[role_of.weight])
            staged[...] = (read(at[role_of.values]) * weight).astype(staged.dtype)
            plgpu.commit_smem()
            totals, line = [], None
            for j, total in enumerate(sums):
                own = product(staged, column_tile(at[role_of.states], j))
                pairs = role_of.pairs(own, at, j).sum(1)
                line = pairs if line is None else line + pairs
                totals.append(total + own)
            save(role_of.line, line)
            return tuple(totals)

        return each_head(head, tuple(zeros() for _ in tiles))

    def finish(out: Any, staged: Any, sums: Any, dscores: Any, others: Any) -> None:
        """Add what came through the scores, and store the sums."""
        plgpu.barrier_arrive(here["summed"])
        plgpu.barrier_wait(here["summed"])
        for j, tile in enumerate(sums):
            tile += product(dscores, column_tile(others, j))
            staged[:, j * SIZE : (j + 1) * SIZE] = tile.astype(staged.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(staged, out.at[i, rows, group])

    @pl.when(role == 1)
    def _() -> None:
        def kept(_: Any, at: Any, j: int) -> Any:
            return read(column_tile(at["starts"], j)) * read(column_tile(at["ends"], j))

        sums = summed(_Sums("x", WEIGHT, "ends", "added", KEPT, kept))
        finish(of["dB"], here["ends"].at[0], sums, here["dscores"], here["C"])

    @pl.when(role == 2)
    def _() -> None:
        def was_read(own: Any, _: Any, j: int) -> Any:
            return own * read(column_tile(here["C"], j))

        sums = summed(_Sums("dy", FROM_START, "starts", "read", READ, was_read))
        dscores = here["dscores"].transpose((1, 0))
        finish(of["dC"], here["starts"].at[0], sums, dscores, here["B"])

    plgpu.wait_smem_to_gmem(0)
