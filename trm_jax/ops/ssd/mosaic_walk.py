# SPDX-License-Identifier: Apache-2.0
"""The walk of a state through the chunks, as a Mosaic GPU kernel.

A warpgroup per row and head carries the state `p n` in registers. Two heads of a group
share a block, which loads B and C once for both. While a chunk is computed, the next
one is loaded.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from trm_jax.ops.mosaic import plgpu, tiled
from trm_jax.ops.ssd.mosaic_tiles import (
    DT,
    FROM_START,
    SIZE,
    STAGES,
    WEIGHT,
    across,
    column_tile,
    copy_in,
    decay_matrix,
    down,
    product,
    read,
    run_kernel,
    zeros,
)


def walk(
    x: Float[Array, "b l h p"],
    vectors: Float[Array, "b h c v q"],
    B: Float[Array, "b l g n"],
    C: Float[Array, "b l g n"] | None = None,
    *,
    first: Float[Array, "b h p n"] | None,
    results: tuple[str, ...],
    reverse: bool = False,
) -> tuple[Array, ...]:
    """Carry the state through the chunks, from `first`, or from zero if it is None.

    The result "y" is the output, which needs C. "states" is the state before each chunk
    in the order of the walk, shape `b c h p n`, in x's dtype. "last" is the state after
    all chunks, shape `b h p n`, in float32. With (dy, C) as (x, B) and `reverse`, they
    are cotangents of the states. l is a multiple of 8.
    """
    (b, _, h, p), (g, n), c = x.shape, B.shape[2:], vectors.shape[2]
    together = 2 if h // g % 2 == 0 else 1  # heads of a block
    inputs = {"x": x, "vectors": vectors, "B": B}
    inputs |= {} if C is None else {"C": C}
    shared = tuple(name for name in ("B", "C") if name in inputs)
    inputs |= {} if first is None else {"first": first}
    like = {
        "y": x,
        "states": jax.ShapeDtypeStruct((b, c, h, p, n), x.dtype),
        "last": jax.ShapeDtypeStruct((b, h, p, n), jnp.float32),
    }
    matrices = partial(tiled, dtype=x.dtype)
    scratch = {
        "x_here": matrices(together, STAGES, SIZE, p),
        "vectors_here": plgpu.SMEM((together, STAGES, *vectors.shape[3:]), jnp.float32),
        **{f"{name}_here": matrices(STAGES, SIZE, n) for name in shared},
        "of_head": plgpu.Barrier(num_arrivals=2, num_barriers=(together, STAGES)),
        "of_group": plgpu.Barrier(num_arrivals=len(shared), num_barriers=STAGES),
        "done": plgpu.Barrier(num_arrivals=together, num_barriers=STAGES),
    }
    if "y" in results:
        scratch["scores"] = matrices(together, SIZE, p)
    if results != ("last",):
        scratch["state"] = matrices(together, p, n)

    def body(*refs: Any) -> None:
        of = dict(zip((*inputs, *results, *scratch), refs, strict=True))
        _Head(of, c, together, h // g, reverse=reverse).run(n // SIZE)

    return run_kernel(
        body,
        tuple(inputs.values()),
        out_like=tuple(like[name] for name in results),
        scratch_types=list(scratch.values()),
        grid=(b, h // together),
        grid_names=("row", "heads"),
        num_threads=together,
        thread_name="head",
    )


class _Head:
    """One warpgroup: what it does for its row and head. `of` has all references."""

    def __init__(
        self,
        of: dict[str, Any],
        c: int,
        together: int,
        per_group: int,
        *,
        reverse: bool,
    ) -> None:
        self.of, self.c, self.reverse = of, c, reverse
        self.row, self.thread = lax.axis_index("row"), lax.axis_index("head")
        self.head = lax.axis_index("heads") * together + self.thread
        self.group = lax.div(self.head, per_group)

    def run(self, tiles: int) -> None:
        """Go through all chunks; the state has this many tiles of 64 columns."""
        of = self.of

        @pl.loop(0, min(STAGES, self.c))
        def _(step: Any) -> None:
            self._load(step)
            pl.when(self.thread == 0)(lambda: self._load_shared(step))

        if "first" in of:
            first = of["first"].at[self.row, self.head]
            start = tuple(
                plgpu.load(
                    column_tile(first, j), layout=plgpu.Layout.WGMMA, optimized=False
                )
                for j in range(tiles)
            )
        else:
            start = tuple(zeros() for _ in range(tiles))
        state = lax.fori_loop(0, self.c, self._chunk, start)
        if "last" in of:
            for j, tile in enumerate(state):
                columns = slice(j * SIZE, (j + 1) * SIZE)
                of["last"][self.row, self.head, :, columns] = tile
        plgpu.wait_smem_to_gmem(0)

    def _place(self, step: Any) -> tuple[Any, Any, Any]:
        """The chunk of this step, its rows, and where it is in shared memory."""
        k = self.c - 1 - step if self.reverse else step
        return k, pl.ds(k * SIZE, SIZE), lax.rem(step, STAGES)

    def _load(self, step: Any) -> None:
        of, (k, rows, slot) = self.of, self._place(step)
        for name, index in (("x", (rows, self.head)), ("vectors", (self.head, k))):
            here = of[f"{name}_here"].at[self.thread, slot]
            copy_in(
                of[name].at[self.row, *index], here, of["of_head"].at[self.thread, slot]
            )

    def _load_shared(self, step: Any) -> None:
        of, (_, rows, slot) = self.of, self._place(step)
        for name in ("B", "C"):
            if name in of:
                here = of[f"{name}_here"].at[slot]
                copy_in(
                    of[name].at[self.row, rows, self.group],
                    here,
                    of["of_group"].at[slot],
                )

    def _chunk(self, step: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
        of, (k, rows, slot) = self.of, self._place(step)
        X, V = (of[f"{name}_here"].at[self.thread, slot] for name in ("x", "vectors"))
        B = of["B_here"].at[slot]
        plgpu.barrier_wait(of["of_head"].at[self.thread, slot])
        plgpu.barrier_wait(of["of_group"].at[slot])
        plgpu.wait_smem_to_gmem(0, wait_read_only=True)
        if "state" in of:
            stored = of["state"].at[self.thread]
            for j, tile in enumerate(state):
                stored[:, j * SIZE : (j + 1) * SIZE] = tile.astype(stored.dtype)
            plgpu.commit_smem()
        if "states" in of:
            plgpu.copy_smem_to_gmem(stored, of["states"].at[self.row, k, self.head])
        if "y" in of:
            self._output(X, V, B, of["C_here"].at[slot], stored, rows)

        # The products are done with x, so its weighted values replace it.
        weight = down(V.at[FROM_START if self.reverse else WEIGHT])
        through = V[FROM_START, SIZE - 1]
        X[...] = (read(X) * weight).astype(X.dtype)
        plgpu.commit_smem()
        state = tuple(
            tile * through + product(X.transpose((1, 0)), column_tile(B, j))
            for j, tile in enumerate(state)
        )
        if self.c > STAGES:
            self._load_later(step)
        return state

    def _output(self, X: Any, V: Any, B: Any, C: Any, state: Any, rows: Any) -> None:
        """Y = (scores * decays * dt) x + C state, where the state has decayed too."""
        scores = self.of["scores"].at[self.thread]
        weights = product(C, B.transpose((1, 0))) * decay_matrix(V) * across(V.at[DT])
        scores[...] = weights.astype(scores.dtype)
        plgpu.commit_smem()
        y = product(C, state.transpose((1, 0))) * down(V.at[FROM_START])
        y += product(scores, X)
        scores[...] = y.astype(scores.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(scores, self.of["y"].at[self.row, rows, self.head])

    def _load_later(self, step: Any) -> None:
        """Load the chunk STAGES later; B and C once all heads are done with theirs."""
        later, done = step + STAGES, self.of["done"].at[lax.rem(step, STAGES)]

        @pl.when(later < self.c)
        def _() -> None:
            plgpu.barrier_arrive(done)
            self._load(later)

            @pl.when(self.thread == 0)
            def _() -> None:
                plgpu.barrier_wait(done)
                self._load_shared(later)
