# SPDX-License-Identifier: Apache-2.0
"""State-space duality: the selective scan of Mamba-2 (arXiv 2405.21060).

Axes: b batch, l time, h heads of p channels, g groups of heads that share B and C of
n state dimensions. Head i belongs to group i // (h / g).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from trm_jax.ops.devices import on_each_device
from trm_jax.ops.ssd import kernels as pallas
from trm_jax.ops.ssd import mosaic
from trm_jax.ops.ssd.chunked import ssd_chunked
from trm_jax.ops.ssd.chunked_backward import ssd_chunked_backward
from trm_jax.ops.ssd.mosaic_tiles import mosaic_refuses
from trm_jax.ops.ssd.recurrent import ssd_recurrent
from trm_jax.ops.ssd.tiles import supports
from trm_jax.types import SCAN_SCOPE

IMPLEMENTATIONS = ("recurrent", "chunked", "batched", "pallas", "mosaic")

Forms = tuple[str, str]  # which form runs on CUDA, and which elsewhere
Results = tuple[Float[Array, "b l h p"], Float[Array, "b h p n"]]


def ssd(
    x: Float[Array, "b l h p"],
    dt: Float[Array, "b l h"],
    A: Float[Array, " h"],
    B: Float[Array, "b l g n"],
    C: Float[Array, "b l g n"],
    *,
    initial_state: Float[Array, "b h p n"] | None = None,
    chunk_size: int = 64,
    implementation: str | None = None,
) -> Results:
    """state_t = exp(dt_t A) state_{t-1} + dt_t x_t B_t^T and y_t = state_t C_t.

    Args:
      x: inputs; any length l >= 1.
      dt: step sizes, >= 0 (after softplus).
      A: decay rates, < 0.
      B: what enters the state.
      C: what is read from it.
      initial_state: zeros if None.
      chunk_size: tokens per chunk; it changes the results only by rounding.
      implementation: "recurrent" (token by token), "chunked" (matrix products, head by
        head), "batched" (the same products, of all heads at once), "pallas" or "mosaic"
        (GPU kernels). None chooses pallas on CUDA if it supports the sizes, else
        chunked. pallas needs p, n and chunk_size that are powers of two, p n of at most
        32 KiB, no float64, and a GPU with as much shared memory as an A100 or H100.
        Other devices interpret it, slowly. mosaic has not run on a GPU yet. It needs p
        and chunk_size of 64, n of 64 or 128, bfloat16 or float16, jax 0.11 or newer,
        and an H100 or H200.

    Returns:
      y in x's dtype; the last state in float32 (float64 for float64 x).

    The function is differentiable in all arrays. All implementations except recurrent
    keep only the inputs for the backward pass and have no forward-mode derivative.
    Inputs sharded over the mesh axes "data" and "fsdp", of type Auto, stay sharded. For
    pallas the mesh must be in context (`jax.set_mesh`).

    Raises:
      ValueError: unknown implementation, or shapes that do not fit together.
    """
    _check(x, dt, A, B, C, initial_state, chunk_size)
    with jax.named_scope(SCAN_SCOPE):
        return _chosen(x, dt, A, B, C, initial_state, chunk_size, implementation)


def _chosen(
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    initial_state: Array | None,
    chunk_size: int,
    implementation: str | None,
) -> Results:
    wide = jnp.promote_types(x.dtype, jnp.float32)
    args = (x, dt.astype(wide), A.astype(wide), B.astype(x.dtype), C.astype(x.dtype))
    state = None if initial_state is None else initial_state.astype(wide)
    sizes = (x.shape[-1], B.shape[-1], chunk_size, x.dtype)
    match implementation:
        case "recurrent":
            return ssd_recurrent(*args, _or_zeros(state, args))
        case "pallas" if not supports(*sizes):
            raise ValueError(
                f"pallas takes p, n and chunk_size that are powers of two, p n of at "
                f"most 32 KiB, and no float64; not {', '.join(map(str, sizes))}"
            )
        case "pallas":
            return _scan(chunk_size, ("pallas", "interpret"), *args, state)
        case "mosaic" if problem := mosaic_refuses(*sizes):
            raise ValueError(problem)
        case "mosaic":
            return _scan(chunk_size, ("mosaic", "mosaic"), *args, state)
        case None if supports(*sizes):
            return _scan(chunk_size, ("pallas", "chunked"), *args, state)
        case None | "chunked":
            return _scan(chunk_size, ("chunked", "chunked"), *args, state)
        case "batched":
            return _scan(chunk_size, ("batched", "batched"), *args, state)
        case _:
            raise ValueError(
                f"unknown SSD implementation {implementation!r}; "
                f"expected None or one of {', '.join(IMPLEMENTATIONS)}"
            )


def _check(
    x: Array, dt: Array, A: Array, B: Array, C: Array, state: Array | None, chunk: int
) -> None:
    (b, l, h, p), (g, n) = x.shape, B.shape[2:]
    expected = {"dt": (b, l, h), "A": (h,), "B": (b, l, g, n), "C": (b, l, g, n)}
    found = {"dt": dt.shape, "A": A.shape, "B": B.shape, "C": C.shape}
    if state is not None:
        expected["initial_state"], found["initial_state"] = (b, h, p, n), state.shape
    for name, shape in expected.items():
        if found[name] != shape:
            raise ValueError(f"{name} has shape {found[name]}; expected {shape}")
    if not l or h % g or chunk < 1:
        raise ValueError(
            f"length {l}, {h} heads in {g} groups, chunk_size {chunk}; expected a "
            "length and a chunk_size >= 1 and groups that divide the heads"
        )


# One VJP rule serves all forms and keeps only the inputs. It encloses the choice of the
# platform: with a rule per branch, each branch would keep the other's residuals too.
@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(chunk_size: int, forms: Forms, *inputs: Array | None) -> Results:
    def kernels(of: Any, *args: Any, **settings: bool) -> Results:
        fn = partial(of.forward, chunk_size=chunk_size, **settings)
        return _over_batch(fn, args)

    def chunked(*args: Any, at_once: bool) -> Results:
        args = (*args[:5], _or_zeros(args[5], args))
        return ssd_chunked(*args, chunk_size=chunk_size, at_once=at_once)

    return _by_platform(forms, kernels, chunked, inputs)


def _forward(chunk_size: int, forms: Forms, *inputs: Any) -> tuple[Results, Any]:
    values = jax.tree.map(lambda primal: primal.value, inputs)
    return _scan(chunk_size, forms, *values), values


def _backward(
    chunk_size: int, forms: Forms, inputs: tuple[Any, ...], cotangents: Any
) -> tuple[Any, ...]:
    def kernels(of: Any, *args: Any, **settings: bool) -> tuple[Any, ...]:
        fn = partial(of.backward, chunk_size=chunk_size, **settings)
        dx, ddt, da, *rest = _over_batch(fn, args)  # a = dt A
        _, dt, A, *_ = args
        return dx, ddt + da * A[None, None], (da * dt).sum((0, 1)), *rest

    def chunked(*args: Any, at_once: bool) -> tuple[Any, ...]:
        *inputs, state, dy, dlast = args
        full = (*inputs, _or_zeros(state, args), dy, _or_zeros(dlast, args))
        sizes: Any = {"chunk_size": chunk_size, "at_once": at_once}
        grads = ssd_chunked_backward(*full, **sizes)
        return *grads[:5], None if state is None else grads[5]

    with jax.named_scope(SCAN_SCOPE):
        return _backward_by_platform(forms, kernels, chunked, inputs, cotangents)


def _backward_by_platform(
    forms: Forms,
    kernels: Callable[..., Any],
    chunked: Callable[..., Any],
    inputs: tuple[Any, ...],
    cotangents: Any,
) -> tuple[Any, ...]:
    dy, dlast = cotangents
    if isinstance(dy, SymbolicZero):
        dy = jnp.zeros(dy.shape, dy.dtype)
    unused = isinstance(dlast, SymbolicZero)
    args = (*inputs, dy, None if unused else dlast)
    return _by_platform(forms, kernels, chunked, args)


_scan.defvjp(_forward, _backward, symbolic_zeros=True)


def _or_zeros(state: Array | None, args: tuple[Any, ...]) -> Array:
    """The state, or zeros of its shape, which follows from the arguments of `ssd`."""
    if state is not None:
        return state
    x, dt, _, B, *_ = args
    return jnp.zeros((x.shape[0], *x.shape[2:], B.shape[-1]), dt.dtype)


def _by_platform(
    forms: Forms,
    kernels: Callable[..., Any],
    chunked: Callable[..., Any],
    args: tuple[Any, ...],
) -> Any:
    choices: dict[str, Callable[..., Any]] = {
        "pallas": partial(kernels, pallas, interpret=False),
        "interpret": partial(kernels, pallas, interpret=True),
        "mosaic": partial(kernels, mosaic),
        "chunked": partial(chunked, at_once=False),
        "batched": partial(chunked, at_once=True),
    }
    on_cuda, elsewhere = (choices[form] for form in forms)
    if on_cuda is elsewhere:
        return on_cuda(*args)
    return lax.platform_dependent(*args, cuda=on_cuda, default=elsewhere)


def _over_batch(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """All results have a batch axis, and so have all arguments except A."""
    axes = [None if i == 2 else 0 for i in range(len(args))]
    return on_each_device(fn, args, batch_axes=axes)
