# SPDX-License-Identifier: Apache-2.0
"""SSD token by token: the slow reference that the other forms are tested against."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def ssd_recurrent(
    x: Float[Array, "b l h p"],
    dt: Float[Array, "b l h"],
    A: Float[Array, " h"],
    B: Float[Array, "b l g n"],
    C: Float[Array, "b l g n"],
    initial_state: Float[Array, "b h p n"],
) -> tuple[Float[Array, "b l h p"], Float[Array, "b h p n"]]:
    """state_t = exp(dt_t A) state_{t-1} + dt_t x_t B_t^T; y_t = state_t C_t.

    The arguments are those of `ops.ssd.ssd`. The scan uses the dtype of the state.
    """
    wide = initial_state.dtype
    heads_per_group = A.shape[0] // B.shape[2]

    def token(state: Array, now: tuple[Array, ...]) -> tuple[Array, Array]:
        x, dt, B, C = now
        B, C = (jnp.repeat(v, heads_per_group, axis=1) for v in (B, C))  # b h n
        decay = jnp.exp(dt * A[None])
        update = jnp.einsum("bh,bhp,bhn->bhpn", dt, x, B)
        state = decay[..., None, None] * state + update
        return state, jnp.einsum("bhpn,bhn->bhp", state, C)

    by_time = tuple(v.astype(wide).swapaxes(0, 1) for v in (x, dt, B, C))
    state, y = lax.scan(token, initial_state, by_time)
    return y.swapaxes(0, 1).astype(x.dtype), state
