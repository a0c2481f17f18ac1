# SPDX-License-Identifier: Apache-2.0
"""SSD by matrix products within chunks and an associative scan over their states.

This is Listing 1 of arXiv 2405.21060, computed head by head: the `q s` matrices and the
states of one head stay in a CPU's cache, and no memory holds those of all heads at
once. The gradient is in chunked_backward.py.
"""

from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, DTypeLike, Float

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
) -> tuple[Float[Array, "b l h p"], Float[Array, "b h p n"]]:
    """SSD with the arguments of `ops.ssd.ssd`; dt and A have the dtype of the state.

    Products have operands in x's dtype and accumulate in the dtype of the state.
    """
    (b, l, h, p), (g, n) = x.shape, B.shape[2:]
    wide, q = initial_state.dtype, min(chunk_size, l)
    product = partial(narrow_product, x.dtype, wide)

    def group(_: None, heads: tuple[Array, ...]) -> tuple[None, tuple[Array, Array]]:
        *per_head, B, C = heads
        scores = product("bcqn,bcsn->bcqs", C, B)
        BT = B.swapaxes(2, 3)  # once here, not for every head

        def head(_: None, of: tuple[Array, ...]) -> tuple[None, tuple[Array, Array]]:
            X, dt, A, first = of
            s, decay = decays(dt, A)
            total = s[..., -1:]

            # 1. What each chunk adds to the state by its end.
            updates = product("bcns,bcsp->bcnp", BT, X * jnp.exp(total - s)[..., None])

            # 2. The state at the start of each chunk, and at the end of the last.
            states = scan_states(
                jnp.pad(jnp.exp(total), ((0, 0), (1, 0), (0, 0))),
                jnp.concatenate([first[:, None], updates], axis=1),
            )

            # 3. Outputs: one product for what the chunk and its starting state add.
            sources = jnp.concatenate([X, states[:, :-1].astype(X.dtype)], axis=2)
            weights = jnp.concatenate(
                [scores * decay, C * jnp.exp(s)[..., None]], axis=3
            )
            y = product("bcqk,bckp->bcqp", weights, sources)
            return None, (y.astype(x.dtype), states[:, -1])

        return None, lax.scan(head, None, tuple(per_head), unroll=UNROLL)[1]

    of_heads = (
        split((x * dt[..., None]).astype(x.dtype), q),
        split(dt, q),
        A,
        initial_state.transpose(1, 0, 3, 2),
    )
    by_group = (v.reshape(g, h // g, *v.shape[1:]) for v in of_heads)
    _, (y, last) = lax.scan(group, None, (*by_group, split(B, q), split(C, q)))
    y = joined(y.reshape(h, *y.shape[2:]), l)
    return y, last.reshape(h, b, n, p).transpose(1, 0, 3, 2)


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


def decays(
    dt: Float[Array, "b c q"], A: Float[Array, ""]
) -> tuple[Float[Array, "b c q"], Float[Array, "b c q q"]]:
    """s, the running sum of dt A in each chunk, and exp(s_q - s_s) for s <= q, else 0.

    The mask is applied before exp, which would overflow above the diagonal.
    """
    causal = jnp.tril(jnp.ones((dt.shape[-1],) * 2, bool))
    # The running sum is a matrix product: XLA would fuse the parts of jnp.cumsum into
    # the loops over the decays, which would then not be vectorised.
    s = jnp.einsum("bcs,qs->bcq", dt * A, causal.astype(dt.dtype), precision="highest")
    gaps = s[..., :, None] - s[..., None, :]
    return s, jnp.exp(jnp.where(causal, gaps, -jnp.inf))


def scan_states(
    decay: Float[Array, "b c 1"],
    updates: Float[Array, "b c n p"],
    *,
    reverse: bool = False,
) -> Float[Array, "b c n p"]:
    """h_c = decay_c h_{c-1} + updates_c for all c; `reverse` starts at the last c."""

    def join(
        left: tuple[Array, Array], right: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        return left[0] * right[0], right[0] * left[1] + right[1]

    pairs = decay[..., None], updates
    return lax.associative_scan(join, pairs, axis=1, reverse=reverse)[1]
