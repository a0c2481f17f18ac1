# SPDX-License-Identifier: Apache-2.0
"""The selective scan of Mamba-1, S6 (arXiv 2312.00752, algorithm 2).

Axes: b batch, l time, d channels of n state dimensions each. Every channel and state
dimension decays at its own rate, so that no form by matrix products exists. The chunked
forms keep the state at the start of each chunk of q tokens, and the backward pass
computes the states inside a chunk again. No form divides by a product of decays, which
may underflow.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from trm_jax.types import SCAN_SCOPE

IMPLEMENTATIONS = ("recurrent", "loop", "associative")

UNROLL = 2  # tokens per loop iteration: a CPU is faster than with one

Tokens = tuple[Array, Array, Array, Array]  # u, delta, B, C with time first
Results = tuple[Float[Array, "b l d"], Float[Array, "b d n"]]


def selective_scan(
    u: Float[Array, "b l d"],
    delta: Float[Array, "b l d"],
    A: Float[Array, "d n"],
    B: Float[Array, "b l n"],
    C: Float[Array, "b l n"],
    *,
    initial_state: Float[Array, "b d n"] | None = None,
    chunk_size: int = 8,
    implementation: str | None = None,
) -> Results:
    """state_t = exp(delta_t A) state_{t-1} + delta_t u_t B_t^T and y_t = state_t C_t.

    Args:
      u: inputs; any length l >= 1.
      delta: step sizes, >= 0 (after softplus).
      A: decay rates, < 0.
      B: what enters the state.
      C: what is read from it.
      initial_state: zeros if None.
      chunk_size: tokens per chunk; it changes the results only by rounding, and memory
        in proportion.
      implementation: "recurrent" (token by token, the reference), "loop" (token by
        token in chunks) or "associative" (an associative scan in chunks). None chooses
        loop on a CPU and associative elsewhere.

    Returns:
      y in u's dtype; the last state in float32 (float64 for float64 u), in which
      everything is computed.

    The function is differentiable in all arrays. Only recurrent has a forward-mode
    derivative.

    Raises:
      ValueError: unknown implementation, or shapes that do not fit together.
    """
    (b, l, d), n = u.shape, A.shape[-1]
    shapes = {"delta": (b, l, d), "A": (d, n), "B": (b, l, n), "C": (b, l, n)}
    arrays = {"delta": delta, "A": A, "B": B, "C": C}
    if initial_state is not None:
        shapes["initial_state"], arrays["initial_state"] = (b, d, n), initial_state
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            text = f"{name} has shape {arrays[name].shape}; expected {shape}"
            raise ValueError(text)
    if not l or chunk_size < 1:
        raise ValueError(f"length {l}, chunk_size {chunk_size}; expected 1 or more")
    if implementation not in (None, *IMPLEMENTATIONS):
        names = ", ".join(IMPLEMENTATIONS)
        text = f"unknown implementation {implementation!r}; expected None or {names}"
        raise ValueError(text)
    wide = jnp.promote_types(u.dtype, jnp.float32)
    state = jnp.zeros((b, d, n), wide) if initial_state is None else initial_state
    tokens: Any = tuple(v.astype(wide).swapaxes(0, 1) for v in (u, delta, B, C))
    args = A.astype(wide), state.astype(wide)
    with jax.named_scope(SCAN_SCOPE):
        if implementation == "recurrent":
            last, y = _loop(*args, tokens)
        else:
            last, y = _chunked(implementation, *args, _split(tokens, chunk_size))
            y = y.reshape(-1, b, d)[:l]
    return y.swapaxes(0, 1).astype(u.dtype), last


def _loop(A: Array, state: Array, tokens: Tokens) -> tuple[Array, Array]:
    """The last state, and y of every token, one after the other."""

    def token(state: Array, now: Tokens) -> tuple[Array, Array]:
        u, delta, B, C = now
        decay = jnp.exp(delta[..., None] * A[None])
        state = decay * state + (delta * u)[..., None] * B[:, None]
        return state, (state * C[:, None]).sum(-1)

    return lax.scan(token, state, tokens, unroll=min(UNROLL, len(tokens[0])))


def _associative(A: Array, state: Array, tokens: Tokens) -> tuple[Array, Array]:
    """The same by an associative scan over all tokens, whose states it holds."""
    u, delta, B, C = tokens

    def join(
        left: tuple[Array, Array], right: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        return left[0] * right[0], right[0] * left[1] + right[1]

    decays = jnp.exp(delta[..., None] * A[None, None])
    updates = (delta * u)[..., None] * B[:, :, None]
    decays, states = lax.associative_scan(join, (decays, updates))
    states = states + decays * state[None]
    return states[-1], (states * C[:, :, None]).sum(-1)


FORMS: dict[str, Callable[..., tuple[Array, Array]]] = {
    "loop": _loop,
    "associative": _associative,
}


def _split(tokens: Tokens, q: int) -> Any:
    """`l b i -> c q b i`; padding has delta = 0 and keeps the state."""
    length = len(tokens[0])
    q = min(q, length)

    def split(v: Array) -> Array:
        padded = jnp.pad(v, [(0, -length % q)] + [(0, 0)] * (v.ndim - 1))
        return padded.reshape(-1, q, *v.shape[1:])

    return tuple(map(split, tokens))


def _by_platform(form: str | None, act: Callable[..., Any], *args: Any) -> Any:
    """`act(FORMS[form], *args)`; None is the form that suits the platform."""
    if form:
        return act(FORMS[form], *args)
    return lax.platform_dependent(
        *args, cpu=partial(act, _loop), default=partial(act, _associative)
    )


# The rule encloses the choice of the platform: with a rule per branch, each branch
# would keep the other's residuals too.
@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(
    form: str | None, A: Array, state: Array, chunks: Tokens
) -> tuple[Array, Array]:
    """The last state, and y `c q b d`."""
    return _forward(form, A, state, chunks)[0]


def _forward(form: str | None, A: Array, state: Array, chunks: Tokens) -> Any:
    def act(scan: Any, A: Array, state: Array, chunks: Tokens) -> Any:
        def chunk(state: Array, tokens: Tokens) -> Any:
            last, y = scan(A, state, tokens)
            return last, (y, state)

        return lax.scan(chunk, state, chunks)

    last, (y, starts) = _by_platform(form, act, A, state, chunks)
    return (last, y), (A, starts, chunks)


def _backward(form: str | None, residuals: Any, cotangents: Any) -> Any:
    def act(scan: Any, A: Array, starts: Array, chunks: Tokens, *d: Array) -> Any:
        def chunk(carry: tuple[Array, Array], of: Any) -> Any:
            dlast, dA = carry
            start, tokens, dy = of
            _, vjp = jax.vjp(scan, A, start, tokens)
            more, dstart, dtokens = vjp((dlast, dy))
            return (dstart, dA + more), dtokens

        dlast, dy = d
        of_chunks = starts, chunks, dy
        return lax.scan(chunk, (dlast, jnp.zeros_like(A)), of_chunks, reverse=True)

    with jax.named_scope(SCAN_SCOPE):
        (dstate, dA), dchunks = _by_platform(form, act, *residuals, *cotangents)
    return dA, dstate, dchunks


_chunked.defvjp(_forward, _backward)
