# SPDX-License-Identifier: Apache-2.0
"""SSD by matrix products within chunks and an associative scan over their states.

This is Listing 1 of arXiv 2405.21060, computed head by head: the `q s` matrices and the
states of one head stay in a CPU's cache, and no memory holds those of all heads at
once. A TPU gets all heads at once: it takes few large products rather than a chain of
small ones. The gradient is in chunked_backward.py.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, DTypeLike, Float

from trm_jax.ops.ssd.segments import decays

UNROLL = 2  # heads per loop iteration: a CPU computes their products in parallel


def ssd_chunked(
    x: Float[Array, "b l h p"],
    dt: Float[Array, "b l h"],
    A: Float[Array, " h"],
    B: Float[Array, "b l g n"],
    C: Float[Array, "b l g n"],
    initial_state: Float[Array, "b h p n"],
    *,
    chunk_size: int,
    at_once: bool = False,
) -> tuple[Float[Array, "b l h p"], Float[Array, "b h p n"]]:
    """SSD with the arguments of `ops.ssd.ssd`; dt and A have the dtype of the state.

    With `at_once`, no loop goes through the groups and heads. Products have operands in
    x's dtype and accumulate in the dtype of the state.
    """
    (b, l, h, p), (g, n) = x.shape, B.shape[2:]
    wide, q = initial_state.dtype, min(chunk_size, l)
    product = partial(narrow_product, x.dtype, wide)

    each = all_of if at_once else one_by_one

    def group(*of: Array) -> tuple[Array, Array]:
        *per_head, B, C = of
        scores = product("bcqn,bcsn->bcqs", C, B)
        BT = B.swapaxes(2, 3)  # once here, not for every head

        def head(X: Array, dt: Array, A: Array, first: Array) -> tuple[Array, Array]:
            decay = decays(dt * A, running_sums)

            # 1. What each chunk adds to the state by its end.
            updates = product("bcns,bcsp->bcnp", BT, X * decay.to_end[..., None])

            # 2. The state at the start of each chunk, and at the end of the last.
            states = scan_states(
                jnp.pad(decay.through, ((0, 0), (1, 0))),
                jnp.concatenate([first[:, None], updates], axis=1),
            )

            # 3. Outputs: one product for what the chunk and its starting state add.
            sources = jnp.concatenate([X, states[:, :-1].astype(X.dtype)], axis=2)
            weights = jnp.concatenate(
                [scores * decay.between(), C * decay.from_start[..., None]], axis=3
            )
            y = product("bcqk,bckp->bcqp", weights, sources)
            return y.astype(x.dtype), states[:, -1]

        found: tuple[Array, Array] = each(head, per_head, unroll=UNROLL)
        return found

    of_heads = (
        split((x * dt[..., None]).astype(x.dtype), q),
        split(dt, q),
        A,
        initial_state.transpose(1, 0, 3, 2),
    )
    by_group = (v.reshape(g, h // g, *v.shape[1:]) for v in of_heads)
    y, last = each(group, (*by_group, split(B, q), split(C, q)))
    y = joined(y.reshape(h, *y.shape[2:]), l)
    return y, last.reshape(h, b, n, p).transpose(1, 0, 3, 2)


def one_by_one(fn: Callable[..., Any], of: Iterable[Array], *, unroll: int = 1) -> Any:
    """The results of `fn` for every row of its arguments, in a loop."""
    return lax.scan(lambda _, row: (None, fn(*row)), None, tuple(of), unroll=unroll)[1]


def all_of(fn: Callable[..., Any], of: Iterable[Array], *, unroll: int = 1) -> Any:
    """The results of `fn` for every row of its arguments, all at once."""
    return jax.vmap(fn)(*of)


def split(v: Float[Array, "b l i *rest"], q: int) -> Float[Array, "i b c q *rest"]:
    """Heads or groups first, time in chunks; padding has dt = 0 and keeps the state."""
    pad = [(0, 0), (0, -v.shape[1] % q)] + [(0, 0)] * (v.ndim - 2)
    return jnp.moveaxis(jnp.pad(v, pad).reshape(len(v), -1, q, *v.shape[2:]), 3, 0)


def joined(v: Float[Array, "i b c q *rest"], l: int) -> Float[Array, "b l i *rest"]:
    """The inverse of `split`, without the padding."""
    v = jnp.moveaxis(v, 0, 3)
    return v.reshape(len(v), -1, *v.shape[3:])[:, :l]


def narrow_product(
    narrow: DTypeLike, wide: DTypeLike, spec: str, *operands: Array
) -> Array:
    """An einsum of operands cast to `narrow`, accumulated in `wide`."""
    operands = tuple(v.astype(narrow) for v in operands)
    return jnp.einsum(spec, *operands, preferred_element_type=wide)


def running_sums(*terms: Float[Array, "*b q"]) -> tuple[tuple[Array, Array], ...]:
    """Of each array the running sum along the last axis, and the last of its values."""
    sums = chosen_sums(jnp.stack(terms), causal(terms[0].shape[-1]).T)
    return tuple((s, s[..., -1]) for s in sums)


def causal(q: int) -> Bool[Array, "q q"]:
    """Whether the first position is the second one or later."""
    return jnp.tril(jnp.ones((q, q), bool))


def chosen_sums(v: Float[Array, "*b s"], chosen: Bool[Array, "s t"]) -> Array:
    """For each t, the sum of the v_s with `chosen[s, t]`.

    It is a matrix product: XLA would fuse the parts of jnp.cumsum into the loops over
    the decays, which would then not be vectorised.
    """
    ones = chosen.astype(v.dtype)
    return jnp.einsum("...s,st->...t", v, ones, precision="highest")


def scan_states(
    decay: Float[Array, "b c"],
    updates: Float[Array, "b c n p"],
    *,
    reverse: bool = False,
) -> Float[Array, "b c n p"]:
    """h_c = decay_c h_{c-1} + updates_c for all c; `reverse` starts at the last c."""

    def join(
        left: tuple[Array, Array], right: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        return left[0] * right[0], right[0] * left[1] + right[1]

    pairs = decay[..., None, None], updates
    return lax.associative_scan(join, pairs, axis=1, reverse=reverse)[1]
