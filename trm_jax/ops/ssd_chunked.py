# SPDX-License-Identifier: Apache-2.0
"""SSD by matrix products within chunks and an associative scan over their states.

Listing 1 of arXiv 2405.21060, one head after the other: the `q s` matrices and the
states of one head stay in a CPU's cache, and of no more than one in any memory.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


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
    """Arguments as in `ops.ssd.ssd`, with dt and A in the dtype of the state.

    Products take operands of x's dtype and accumulate in the state's.
    """
    (b, l, h, p), (g, n) = x.shape, B.shape[2:]
    wide, q = initial_state.dtype, min(chunk_size, l)

    def chunks(v: Array) -> Array:
        """`b l i ...` -> `i b c q ...`; padding has dt = 0 and leaves the state."""
        pad = [(0, 0), (0, -l % q)] + [(0, 0)] * (v.ndim - 2)
        return jnp.moveaxis(jnp.pad(v, pad).reshape(b, -1, q, *v.shape[2:]), 3, 0)

    def by_group(v: Array) -> Array:
        return v.reshape(g, h // g, *v.shape[1:])

    def product(spec: str, *operands: Array) -> Array:
        operands = tuple(v.astype(x.dtype) for v in operands)
        return jnp.einsum(spec, *operands, preferred_element_type=wide)

    causal = jnp.tril(jnp.ones((q, q), bool))
    ones = causal.astype(wide)

    def group(_: None, heads: tuple[Array, ...]) -> tuple[None, tuple[Array, Array]]:
        *per_head, B, C = heads
        scores = product("bcqn,bcsn->bcqs", C, B)
        B = B.swapaxes(2, 3)  # once here, not in every product below

        def head(_: None, of: tuple[Array, ...]) -> tuple[None, tuple[Array, Array]]:
            X, dt, A, first = of
            # A running sum by a product: XLA would fold the pieces of jnp.cumsum into
            # the passes over decay, which then are not vectorised.
            s = jnp.einsum("bcs,qs->bcq", dt * A, ones, precision="highest")
            total = s[..., -1:]

            # 1. Within chunks. The mask comes before exp: above the diagonal
            # exp(s_q - s_s) overflows, and a mask after it has NaN gradients.
            gaps = s[..., :, None] - s[..., None, :]
            decay = jnp.exp(jnp.where(causal, gaps, -jnp.inf))
            y = product("bcqs,bcsp->bcqp", scores * decay, X)

            # 2. What each chunk adds to the state by its end.
            updates = product("bcns,bcsp->bcnp", B, X * jnp.exp(total - s)[..., None])

            # 3. The state at the start of each chunk, and at the end of the last.
            states = scan_states(jnp.exp(total), first, updates)

            # 4. What the starting state adds to the outputs.
            carried = product("bcqn,bcnp->bcqp", C, states[:, :-1])
            y = y + jnp.exp(s)[..., None] * carried
            return None, (y.astype(x.dtype), states[:, -1])

        # The backward pass computes a head again: it keeps nothing but the inputs.
        return None, lax.scan(
            jax.checkpoint(head, prevent_cse=False), None, tuple(per_head)
        )[1]

    of_heads = (
        by_group(chunks((x * dt[..., None]).astype(x.dtype))),
        by_group(chunks(dt)),
        A.reshape(g, h // g),
        by_group(initial_state.transpose(1, 0, 3, 2)),
    )
    _, (y, last) = lax.scan(group, None, (*of_heads, chunks(B), chunks(C)))
    y = jnp.moveaxis(y.reshape(h, *y.shape[2:]), 0, 3).reshape(b, -1, h, p)[:, :l]
    return y, last.reshape(h, b, n, p).transpose(1, 0, 3, 2)


def scan_states(
    decay: Float[Array, "b c 1"],
    first: Float[Array, "b n p"],
    updates: Float[Array, "b c n p"],
) -> Float[Array, "b c1 n p"]:
    """h_0 = first, h_{c+1} = decay_c h_c + updates_c: all of them, by doubling."""

    def join(
        left: tuple[Array, Array], right: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        return left[0] * right[0], right[0] * left[1] + right[1]

    decay = jnp.pad(decay, ((0, 0), (1, 0), (0, 0)))[..., None]
    states = jnp.concatenate([first[:, None], updates], axis=1)
    return lax.associative_scan(join, (decay, states), axis=1)[1]
