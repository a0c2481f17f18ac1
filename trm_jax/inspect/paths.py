# SPDX-License-Identifier: Apache-2.0
"""The paths that latents take: measures of traces, record by record, and projections.

`loop_measures.py` defines the measures that traces share with whole test sets.
Everything is computed in float64.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from trm_jax.errors import ConfigError
from trm_jax.inspect.loop_measures import (
    effective_rank,
    motion_measures,
    state_measures,
    unit,
)
from trm_jax.inspect.trace import Trace


def states_of(trace: Trace, name: str, *, start: bool = False) -> np.ndarray:
    """The state called `name` after each record, `k l d`, or from the start, `k+1 l d`.

    Raises ConfigError if the trace has no latent of this name.
    """
    latents = {key: state for key, state in trace.states.items() if state.ndim == 3}
    if name not in latents:
        raise ConfigError(f"the trace has no latent {name!r}; it has {[*latents]}")
    states = latents[name].astype(np.float64)
    return np.concatenate([trace.start[name][None], states]) if start else states


def path_measures(trace: Trace, name: str = "z") -> dict[str, np.ndarray]:
    """Measures of one latent of a trace after each record, `k` each.

    `from_start` and `to_last` are distances to the start and to the last record, and
    `norm` is that of the state, all divided by sqrt(l d). `motion` is the distance to
    the record before, divided by the norm there, and `cosine` is the cosine with it;
    the start is before the first record. `effective_rank` is that of the matrix `l d`.
    `entropy` is that of the answer, in nats, the mean over cells.
    """
    path = states_of(trace, name, start=True)
    start, states = path[0], path[1:]

    def size(states: np.ndarray) -> np.ndarray:
        return np.sqrt((states**2).mean((1, 2)))

    pairs = zip(path[:-1, None], states[:, None], strict=True)
    moves = [motion_measures(before, after) for before, after in pairs]
    return {
        "from_start": size(states - start),
        "to_last": size(states - states[-1]),
        "norm": size(states),
        "motion": np.array([move["motion"] for move in moves]),
        "cosine": np.array([move["cosine"] for move in moves]),
        "effective_rank": np.array([effective_rank(state) for state in states]),
        "entropy": trace.entropy.mean(-1),
    }


def step_cosines(trace: Trace, name: str = "z") -> np.ndarray:
    """The cosine between the states, `l d` as one vector, of any two records: `k k`."""
    flat = unit(states_of(trace, name).reshape(len(trace), -1))
    return flat @ flat.T


def input_measures(traces: Sequence[Trace], name: str = "z") -> dict[str, np.ndarray]:
    """`state_measures` over the puzzles of several traces, after each record: `k` each.

    Raises ConfigError for fewer than two traces, or traces of different lengths.
    """
    if len(traces) < 2:
        raise ConfigError(f"{len(traces)} trace(s); a cosine between inputs needs two")
    if len({len(trace) for trace in traces}) > 1:
        lengths = ", ".join(str(len(trace)) for trace in traces)
        raise ConfigError(f"traces of {lengths} records; expected equal numbers")
    by_record = np.stack([states_of(trace, name) for trace in traces], axis=1)
    found = [state_measures(states) for states in by_record]
    return {name: np.array([one[name] for one in found]) for name in found[0]}


@dataclasses.dataclass(frozen=True)
class Projection:
    """The principal components of the states of some traces, each `l d` one vector."""

    name: str  # of the latent
    start: bool  # whether the starts are among the states
    mean: np.ndarray  # `l d`
    axes: np.ndarray  # `c l d`, orthonormal
    explained: np.ndarray  # `c`, the share of the variance along each axis

    def path(self, trace: Trace) -> np.ndarray:
        """The coordinates of a trace, `k c`, or `k+1 c` if the starts are included."""
        states = states_of(trace, self.name, start=self.start)
        return np.tensordot(states - self.mean, self.axes, axes=([1, 2], [1, 2]))


def principal_components(
    traces: Trace | Sequence[Trace],
    name: str = "z",
    *,
    components: int = 2,
    start: bool = False,
) -> Projection:
    """Fit a Projection to the states of one or several traces.

    With `start`, the states before the first step count, too. The sign of an axis has
    no meaning: it is chosen so that the entry of largest size is positive. Raises
    ConfigError if the states have too few dimensions.
    """
    several = [traces] if isinstance(traces, Trace) else list(traces)
    if not several:
        raise ConfigError("no traces; principal components need one or more")
    states = np.concatenate([states_of(one, name, start=start) for one in several])
    mean = states.mean(0)
    flat = (states - mean).reshape(len(states), -1)
    _, sizes, axes = np.linalg.svd(flat, full_matrices=False)
    rank = int((sizes > sizes[0] * 1e-9).sum()) if sizes[0] > 0 else 0
    if not 1 <= components <= rank:
        raise ConfigError(
            f"components = {components}; expected 1 to {rank}, the dimensions in which "
            f"the {len(states)} states differ"
        )
    axes = axes[:components]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], axis=1)
    axes = (axes * np.sign(largest)).reshape(components, *mean.shape)
    explained = sizes[:components] ** 2 / (sizes**2).sum()
    return Projection(name, start, mean, axes, explained)
