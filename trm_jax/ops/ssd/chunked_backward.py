# SPDX-License-Identifier: Apache-2.0
"""The gradient of ssd_chunked, computed from the inputs without computing y again.

As in kernels.py, each head first computes the states S at the chunk starts and their
cotangents G at the chunk ends, and then treats each chunk separately. The gradient of
the scores is summed over the heads before its products with B and C are computed.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from trm_jax.ops.ssd.chunked import (
    UNROLL,
    all_of,
    causal,
    chosen_sums,
    joined,
    narrow_product,
    one_by_one,
    running_sums,
    scan_states,
    split,
)
from trm_jax.ops.ssd.segments import decays


def ssd_chunked_backward(
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
    at_once: bool = False,
) -> tuple[Array, ...]:
    """Cotangents of the first six arguments; all arguments as in `ssd_chunked`."""
    (_, l, h, _), g = x.shape, B.shape[2]
    wide, q = initial_state.dtype, min(chunk_size, l)
    product = partial(narrow_product, x.dtype, wide)

    def group(*of: Array) -> tuple[Array, ...]:
        *per_head, B, C = of
        scores = product("bcsn,bcqn->bcsq", B, C)
        shared = scores, B, B.swapaxes(2, 3), C, C.swapaxes(2, 3)  # once for all heads

        def head(
            sums: tuple[Array, ...], of: tuple[Array, ...]
        ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
            summed, own = _head(product, shared, of)
            return tuple(a + b for a, b in zip(sums, summed, strict=True)), own

        if at_once:
            sums, own = jax.vmap(lambda *of: _head(product, shared, of))(*per_head)
            sums = tuple(v.sum(0) for v in sums)
        else:
            zeros = tuple(jnp.zeros(v.shape, wide) for v in (scores, B, C))
            sums, own = lax.scan(head, zeros, tuple(per_head), unroll=UNROLL)
        dscores, dB, dC = sums
        dC = dC + product("bcsq,bcsn->bcqn", dscores, B)
        dB = dB + product("bcsq,bcqn->bcsn", dscores, C)
        return *own, dB, dC

    of_heads = (
        split((x * dt[..., None]).astype(x.dtype), q),
        split(dy, q),
        split(dt, q),
        A,
        initial_state.transpose(1, 0, 3, 2),
        dlast.transpose(1, 0, 3, 2),
    )
    by_group = (v.reshape(g, h // g, *v.shape[1:]) for v in of_heads)
    each = all_of if at_once else one_by_one
    *by_head, dB, dC = each(group, (*by_group, split(B, q), split(C, q)))
    dX, dfirst, within, read, added, kept = (
        v.reshape(h, *v.shape[2:]) for v in by_head
    )
    later = causal(q)  # as `chosen[q, t]` and, negated, as `chosen[s, t]`
    da = within + chosen_sums(read, later) + chosen_sums(added, ~later)
    da = da + kept[..., None]
    dX, da = joined(dX, l), joined(da, l)  # of x dt, of dt A
    return (
        (dX * dt[..., None]).astype(x.dtype),
        da * A[None, None] + (x * dX).sum(-1),
        (da * dt).sum((0, 1)),
        joined(dB, l).astype(B.dtype),
        joined(dC, l).astype(C.dtype),
        dfirst.transpose(1, 0, 3, 2),
    )


def _head(
    product: Callable[..., Array], shared: tuple[Array, ...], of: tuple[Array, ...]
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Cotangents of one head.

    The first three (of the scores, B and C) are summed over heads. The others belong to
    this head: those of x dt and the initial state, and four parts of that of dt A. The
    matrices of pairs of tokens are transposed, `s q`: products of their transposes
    would be slow.
    """
    scores, B, BT, C, CT = shared
    X, Y, dt, A, first, dlast = of
    decay = decays(dt * A, running_sums)
    between = decay.between(transposed=True)
    through = decay.through
    weighted = scores * between

    # The states at the chunk starts, and their cotangents at the chunk ends.
    X_end, Y_start = X * decay.to_end[..., None], Y * decay.from_start[..., None]
    updates = product("bcns,bcsp->bcnp", BT, X_end)[:, :-1]
    S = scan_states(
        jnp.pad(through[:, :-1], ((0, 0), (1, 0))),
        jnp.concatenate([first[:, None], updates], axis=1),
    )
    outputs = product("bcnq,bcqp->bcnp", CT, Y_start)
    G = scan_states(
        jnp.pad(through[:, 1:], ((0, 0), (0, 1))),
        jnp.concatenate([outputs[:, 1:], dlast[:, None]], axis=1),
        reverse=True,
    )
    dfirst = outputs[:, 0] + through[:, 0, None, None] * G[:, 0]

    # Each chunk separately.
    dweighted = product("bcsp,bcqp->bcsq", X, Y)
    dX_end = product("bcsn,bcnp->bcsp", B, G)
    dX = product("bcsq,bcqp->bcsp", weighted, Y) + dX_end * decay.to_end[..., None]
    dB = product("bcsp,bcnp->bcsn", X_end, G)
    dC = product("bcqp,bcnp->bcqn", Y_start, S)

    # The decay of token t lies between all that enters before it (s < t) and all that
    # reads from it on (q >= t). These pairs are within the chunk, from its start, to
    # its end, and through it. Sums of just these pairs do not cancel, where sums of all
    # that a token reads and adds would.
    later = causal(dt.shape[-1])
    within = chosen_sums(dweighted * weighted, later)
    within = jnp.where(later, 0.0, within).sum(-2)
    read = (dC * C).sum(-1)
    added = decay.to_end * (X * dX_end).sum(-1)
    kept = through * (S * G).sum((-1, -2))
    return (dweighted * between, dB, dC), (dX, dfirst, within, read, added, kept)
