# SPDX-License-Identifier: Apache-2.0
"""The gradients of every chunk, from the states at its start and their cotangents.

A block per row, group and chunk goes through the heads of the group. Its three
warpgroups share what is loaded for a head: the first computes the gradients of x and
of the decays, the second sums the gradient of B over the heads, and the third that of
C. The sums stay in registers, which needs no per-head copies and no atomics, and gives
the same bits every time.
"""

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
    TO_END,
    WEIGHT,
    column_tile,
    copy_in,
    decay_matrix,
    down,
    positions,
    product,
    read,
    run_kernel,
    zeros,
)

PER_HEAD = ("x", "dy", "vectors", "starts", "ends")
# What the kernel sums over one axis of a chunk's matrices, for every head.
SUMS = WITHIN, LATER, EARLIER, ADDED, READ, KEPT = range(6)
OF_TOKENS, OF_B, OF_C = range(3)  # the three warpgroups, with 504 registers in all


def chunk_gradients(
    x: Float[Array, "b l h p"],
    B: Float[Array, "b l g n"],
    C: Float[Array, "b l g n"],
    dy: Float[Array, "b l h p"],
    vectors: Float[Array, "b h c v q"],
    starts: Float[Array, "b c h p n"],
    ends: Float[Array, "b c h p n"],
) -> tuple[Array, ...]:
    """Cotangents of x, B and C, and the SUMS, `b h c sums q`. l is a multiple of 8."""
    (b, _, h, _), (g, n), chunks = x.shape, B.shape[2:], vectors.shape[2]
    sums = jax.ShapeDtypeStruct((b, h, chunks, len(SUMS), SIZE), jnp.float32)
    matrices = {
        **dict.fromkeys(("x", "dy"), (STAGES, SIZE, SIZE)),
        **dict.fromkeys(("starts", "ends"), (STAGES, SIZE, n)),
        **dict.fromkeys(("B", "C"), (SIZE, n)),
        **dict.fromkeys(("moves", "added", "read", "dscores"), (SIZE, SIZE)),
    }
    scratch = {k: tiled(*shape, dtype=x.dtype) for k, shape in matrices.items()} | {
        "vectors": plgpu.SMEM((STAGES, *vectors.shape[3:]), jnp.float32),
        "sums": plgpu.SMEM(sums.shape[3:], jnp.float32),
        "loaded": plgpu.Barrier(num_arrivals=len(PER_HEAD), num_barriers=STAGES),
        "done": plgpu.Barrier(num_arrivals=3, num_barriers=STAGES),
        "once": plgpu.Barrier(num_arrivals=2),
        "all_heads": plgpu.Barrier(num_arrivals=3),
    }
    inputs = {"x": x, "B": B, "C": C, "dy": dy, "vectors": vectors}
    inputs |= {"starts": starts, "ends": ends}
    outputs = {"dx": x, "dB": B, "dC": C, "sums": sums}

    def body(*refs: Any) -> None:
        count = len(inputs) + len(outputs)
        of = dict(zip((*inputs, *outputs), refs[:count], strict=True))
        here = dict(zip(scratch, refs[count:], strict=True))
        _Block(of, here, h // g).run()

    return run_kernel(
        body,
        tuple(inputs.values()),
        out_like=tuple(outputs.values()),
        scratch_types=list(scratch.values()),
        grid=(b, g, chunks),
        grid_names=("row", "group", "chunk"),
        num_threads=3,
        thread_name="role",
    )


class _Block:
    """One block: `of` has the arrays of the kernel, `here` what is in shared memory."""

    def __init__(self, of: dict[str, Any], here: dict[str, Any], heads: int) -> None:
        self.of, self.here, self.heads = of, here, heads
        self.row, self.group, self.chunk = map(
            lax.axis_index, ("row", "group", "chunk")
        )
        self.role, self.rows = lax.axis_index("role"), pl.ds(self.chunk * SIZE, SIZE)
        self.tiles = range(here["B"].shape[1] // SIZE)

    def run(self) -> None:
        """Do the work of all three warpgroups."""
        here = self.here

        @pl.when(self.role == OF_C)
        def _() -> None:
            for name in ("B", "C"):
                source = self.of[name].at[self.row, self.rows, self.group]
                copy_in(source, here[name], here["once"])
            pl.loop(0, min(STAGES, self.heads))(self._load)

        plgpu.barrier_wait(here["once"])
        pl.when(self.role == OF_TOKENS)(self._tokens)
        pl.when(self.role == OF_B)(self._sums_of_B)
        pl.when(self.role == OF_C)(self._sums_of_C)
        plgpu.wait_smem_to_gmem(0)

    def _load(self, j: Any) -> None:
        head, slot = self.group * self.heads + j, lax.rem(j, STAGES)
        index = {"x": (self.rows, head), "dy": (self.rows, head)}
        index |= {"vectors": (head, self.chunk)}
        for name in PER_HEAD:
            place = (self.row, *index.get(name, (self.chunk, head)))
            here = self.here[name].at[slot]
            copy_in(self.of[name].at[place], here, self.here["loaded"].at[slot])

    def _each_head(self, step: Any, start: Any) -> Any:
        """Fold step(head, at, carry) over the heads; `at` has what is loaded."""

        def fold(j: Any, carry: Any) -> Any:
            slot, later = lax.rem(j, STAGES), j + STAGES
            plgpu.barrier_wait(self.here["loaded"].at[slot])
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)
            at = {name: self.here[name].at[slot] for name in PER_HEAD}
            carry = step(self.group * self.heads + j, at, carry)
            if self.heads > STAGES:
                done = self.here["done"].at[slot]

                @pl.when(later < self.heads)
                def _() -> None:
                    plgpu.barrier_arrive(done)

                    @pl.when(self.role == OF_C)
                    def _() -> None:
                        plgpu.barrier_wait(done)
                        self._load(later)

            return carry

        return lax.fori_loop(0, self.heads, fold, start)

    def _save(self, head: Any, sums: dict[int, Any]) -> None:
        here, of = self.here["sums"], self.of["sums"].at[self.row, head, self.chunk]
        for index, value in sums.items():
            here[index] = value
        plgpu.commit_smem()
        for index in sums:
            plgpu.copy_smem_to_gmem(here.at[index], of.at[index])

    def _tokens(self) -> None:
        """Gradients of x and the decays. Row s of a matrix is about token s."""
        B, C, moves = (self.here[name] for name in ("B", "C", "moves"))
        plgpu.set_max_registers(200, action="increase")
        scores = product(B, C.transpose((1, 0)))

        def step(head: Any, at: Any, dscores: Any) -> Any:
            X, dY, V = at["x"], at["dy"], at["vectors"]
            decay, dt = decay_matrix(V, transposed=True), down(V.at[DT])
            moves[...] = (scores * decay * dt).astype(moves.dtype)
            plgpu.commit_smem()
            decayed = product(X, dY.transpose((1, 0))) * decay
            dscores += decayed * dt
            moved = decayed * scores
            strictly = jnp.where(positions(1) > positions(0), moved, 0.0)
            sums = {WITHIN: moved.sum(1), LATER: strictly.sum(1)}
            self._save(head, sums | {EARLIER: (strictly * dt).sum(0)})
            at_end = product(B, at["ends"].transpose((1, 0))) * down(V.at[TO_END])
            self._save(head, {ADDED: (read(X) * at_end).sum(1)})
            dx = product(moves, dY) + at_end * dt
            moves[...] = dx.astype(moves.dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(moves, self.of["dx"].at[self.row, self.rows, head])
            return dscores

        dscores = self._each_head(step, zeros())
        self.here["dscores"][...] = dscores.astype(moves.dtype)
        plgpu.commit_smem()
        plgpu.barrier_arrive(self.here["all_heads"])

    def _sums_of_B(self) -> None:
        def kept(_: Any, at: Any, j: int) -> Any:
            return read(column_tile(at["starts"], j)) * read(column_tile(at["ends"], j))

        staged = self.here["added"]
        sums = self._summed(("x", WEIGHT, "ends"), staged, KEPT, kept)
        self._finish("dB", "ends", sums, self.here["dscores"], self.here["C"])

    def _sums_of_C(self) -> None:
        def was_read(own: Any, _: Any, j: int) -> Any:
            return own * read(column_tile(self.here["C"], j))

        staged = self.here["read"]
        sums = self._summed(("dy", FROM_START, "starts"), staged, READ, was_read)
        dscores = self.here["dscores"].transpose((1, 0))
        self._finish("dC", "starts", sums, dscores, self.here["B"])

    def _summed(
        self, names: tuple[str, int, str], staged: Any, line: int, pairs: Any
    ) -> Any:
        """Sums over the heads of (weight * values) @ states, by tile.

        For every head, the sums over the columns of `pairs` are saved too.
        """
        plgpu.set_max_registers(152, action="decrease")
        values, weight, states = names

        def step(head: Any, at: Any, sums: Any) -> Any:
            weights = down(at["vectors"].at[weight])
            staged[...] = (read(at[values]) * weights).astype(staged.dtype)
            plgpu.commit_smem()
            totals, of_rows = [], []
            for j, total in enumerate(sums):
                own = product(staged, column_tile(at[states], j))
                of_rows.append(pairs(own, at, j).sum(1))
                totals.append(total + own)
            self._save(head, {line: sum(of_rows[1:], of_rows[0])})
            return tuple(totals)

        return self._each_head(step, tuple(zeros() for _ in self.tiles))

    def _finish(self, name: str, free: str, sums: Any, dscores: Any, by: Any) -> None:
        """Add what came through the scores; store the sums by the `free` place."""
        plgpu.barrier_arrive(self.here["all_heads"])
        plgpu.barrier_wait(self.here["all_heads"])
        out = self.here[free].at[0]
        for j, tile in enumerate(sums):
            total = tile + product(dscores, column_tile(by, j))
            out[:, j * SIZE : (j + 1) * SIZE] = total.astype(out.dtype)
        plgpu.commit_smem()
        place = self.of[name].at[self.row, self.rows, self.group]
        plgpu.copy_smem_to_gmem(out, place)
