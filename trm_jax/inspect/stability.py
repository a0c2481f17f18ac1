# SPDX-License-Identifier: Apache-2.0
"""How a cycle stretches small changes of its state: Lyapunov exponent, spectral radius.

The state is one vector: y and z, `b l d` each, flattened one after the other. The
question x is held fixed. The Jacobian J of the cycle is never formed: one forward-mode
product J v (`jax.jvp`) costs about two cycles.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from trm_jax.errors import ConfigError
from trm_jax.inspect.cycle import Loaded, States
from trm_jax.inspect.paths import states_of
from trm_jax.inspect.trace import Trace

Vector = Any  # `n`, of JAX or NumPy
Push = Callable[..., tuple[Vector, Vector]]  # see `pushed`
EXACT = 1e-7  # relative length of what leaves the basis: rounding of float32
ALIKE = 0.1  # relative difference between a recorded state and the cycle's output


@dataclasses.dataclass(frozen=True)
class Lyapunov:
    """The growth of one small change along a path, which it follows in every cycle."""

    per_cycle: np.ndarray  # `k`, nats per cycle: log of |J v| / |v| at each state
    mismatch: float  # largest relative difference of a cycle's output from the record

    @property
    def exponent(self) -> float:
        """The largest Lyapunov exponent over the path, in nats per cycle: the mean.

        It still contains the first cycles, in which the random start turns into the
        direction that grows most. Below 0, nearby states come together.
        """
        return float(self.per_cycle.mean())


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of largest size of a Jacobian, estimated by Arnoldi iteration."""

    values: np.ndarray  # complex `m`, by decreasing size: eigenvalues of J in the basis
    residual: float  # |J v - value v| of the first one and its unit vector, / its size
    change: float  # of the radius by the last product, relative to it
    products: int  # J v that were computed
    converged: bool  # residual and change are at most the tolerance

    @property
    def radius(self) -> float:
        """The spectral radius: the size of the first eigenvalue."""
        return float(abs(self.values[0]))


def lyapunov(
    model: Loaded, traces: Trace | Sequence[Trace], x: States, *, seed: int = 0
) -> Any:
    """The Lyapunov of one trace, or a list of them for a list of traces.

    The traces are of every "cycle", and x has their questions, one row for each:
    `model.embed(puzzle)`. The tangent starts as a normal draw from `seed` and has
    length 1 before each cycle. Raises ConfigError for other traces, and if the cycles
    of the model do not lead from record to record, as with another x.
    """
    several = [traces] if isinstance(traces, Trace) else list(traces)
    if len(several) != len(x):
        raise ConfigError(f"{len(several)} traces, but x has {len(x)} rows")
    push = pushed(cycle_map(model))
    found = []
    for trace, question in zip(several, x, strict=True):
        if trace.every != "cycle":
            expected = f"{trace.every!r}; expected every = 'cycle'"
            raise ConfigError(f"a trace of every {expected}")
        path = joint_states(trace)
        one = growth(push, path[:-1], question, after=path[1:], seed=seed)
        if not one.mismatch <= ALIKE:
            raise ConfigError(
                f"the model's cycles miss the records by {one.mismatch:.2g} of their "
                "norm; expected the model of the trace, and the x of its question"
            )
        found.append(one)
    return found[0] if isinstance(traces, Trace) else found


def spectrum(
    model: Loaded, y: States, z: States, x: States, *, seed: int = 0, **limits: Any
) -> list[Spectrum]:
    """The spectrum of the Jacobian of one cycle at each row of y and z.

    `limits` are those of `leading_eigenvalues`. At a state that a cycle leaves where it
    is, a radius below 1 means that nearby states return to it; elsewhere the radius
    describes one cycle only.
    """
    push = pushed(cycle_map(model))
    found = []
    for row in zip(y, z, x, strict=True):
        state = np.concatenate([np.ravel(latent) for latent in row[:2]])
        found.append(leading_eigenvalues(push, state, row[2], seed=seed, **limits))
    return found


def joint_states(trace: Trace) -> np.ndarray:
    """The states y, z of a trace as vectors, from the start on: `k+1 n`."""
    parts = [states_of(trace, name, start=True) for name in ("y", "z")]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def cycle_map(model: Loaded) -> Callable[[Vector, States], Array]:
    """One cycle of one puzzle: (state `n`, question `l d`) -> the next state `n`."""

    def cycle(state: Vector, x: Any) -> Array:
        y, z = jnp.asarray(state).reshape(2, 1, *x.shape)
        after = model.cycle(y, z, x[None])
        return jnp.concatenate([part.ravel() for part in after])

    return cycle


def pushed(fn: Callable[..., Array]) -> Push:
    """The compiled (v, tangent, *rest) -> (fn(v, *rest), J tangent), as float64 arrays.

    It computes in float64 only if JAX does.
    """

    @jax.jit
    def push(v: Array, tangent: Array, *rest: Array) -> tuple[Array, Array]:
        return jax.jvp(lambda v: fn(v, *rest), (v,), (tangent,))

    def on_host(v: Vector, tangent: Vector, *rest: Any) -> tuple[Vector, Vector]:
        v, tangent = (jnp.asarray(each, float) for each in (v, tangent))
        out, moved = push(v, tangent, *map(jnp.asarray, rest))
        return np.asarray(out, np.float64), np.asarray(moved, np.float64)

    return on_host


def growth(
    push: Push,
    points: np.ndarray,
    *rest: Any,
    after: np.ndarray | None = None,
    seed: int = 0,
) -> Lyapunov:
    """The growth of a tangent at each of the points `k n`, in order.

    `push` is `pushed(fn)`, and `rest` are the other arguments of fn. `after`, `k n`,
    are the states that should follow; without them the mismatch is 0.
    """
    tangent = _unit_draw(points.shape[1], seed)
    logs, mismatch = [], 0.0
    for i, point in enumerate(points):
        out, tangent = push(point, tangent, *rest)
        size = np.linalg.norm(tangent)
        logs.append(np.log(size) if size > 0 else -np.inf)
        tangent = tangent / size if size > 0 else tangent
        if after is not None:
            missed = np.linalg.norm(out - after[i]) / np.linalg.norm(after[i])
            mismatch = max(mismatch, float(missed))
    return Lyapunov(np.array(logs), mismatch)


def leading_eigenvalues(
    push: Push,
    point: Vector,
    *rest: Any,
    seed: int = 0,
    products: int = 80,
    tolerance: float = 1e-3,
) -> Spectrum:
    """The eigenvalues of largest size of a Jacobian at a point `n`.

    `push` is `pushed(fn)`, and `rest` are the other arguments of fn. Power iteration
    does not settle if a complex pair leads; Arnoldi iteration does. It makes an
    orthonormal basis of v, J v, J^2 v, ..., from a normal draw v, and takes the
    eigenvalues of J within it. It stops when the residual and the relative change of
    the radius are at most `tolerance`, or after `products` products. Raises ConfigError
    if `products` is less than 1.
    """
    if products < 1:
        raise ConfigError(f"products = {products}; expected 1 or more")
    basis = [_unit_draw(np.size(point), seed)]
    most = min(products, len(basis[0]))
    inner = np.zeros((most + 1, most))  # J in the basis: a Hessenberg matrix
    radius, done = np.inf, False
    for k in range(most):
        _, w = push(point, basis[k], *rest)
        for _ in range(2):  # the second pass removes what rounding has left
            along = np.array([v @ w for v in basis])
            w = w - along @ np.array(basis)
            inner[: k + 1, k] += along
        left = inner[k + 1, k] = np.linalg.norm(w)
        values, vectors = np.linalg.eig(inner[: k + 1, : k + 1])
        order = np.argsort(-np.abs(values), kind="stable")
        before, radius = radius, float(abs(values[order[0]]))
        scale = max(radius, np.finfo(np.float64).tiny)
        residual = float(left * abs(vectors[-1, order[0]]) / scale)
        change = abs(radius - before) / scale
        # A basis of all directions, or one that J maps into itself, is exact.
        if k + 1 == len(basis[0]) or left <= EXACT * np.abs(inner).max():
            residual, change = 0.0, 0.0
        done = residual <= tolerance and change <= tolerance
        if done:
            break
        basis.append(w / left)
    return Spectrum(values[order].astype(complex), residual, change, k + 1, done)


def _unit_draw(n: int, seed: int) -> np.ndarray:
    v = np.random.default_rng(seed).normal(size=n)
    return v / np.linalg.norm(v)
