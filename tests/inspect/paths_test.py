# SPDX-License-Identifier: Apache-2.0
"""Paths of latents: measures against plain formulas, and principal components."""

import dataclasses
import math

import numpy as np
import pytest

from tests.helpers.untrained import model_of
from trm_jax.errors import ConfigError
from trm_jax.inspect.loop_measures import effective_rank, state_measures
from trm_jax.inspect.paths import (
    input_measures,
    path_measures,
    principal_components,
    step_cosines,
)

PUZZLE, OTHER = "1.....3..4.....2", "..4..1....2.3..."
L, D = 3, 4


@pytest.fixture(scope="module")
def traces():
    return model_of(h_cycles=2, l_cycles=2).trace([PUZZLE, OTHER], steps=3)


def on_path(trace, states, start=None):
    """The trace with these states `k l d` in the place of its own z."""
    k = len(states)
    start = np.zeros(states.shape[1:]) if start is None else start
    return dataclasses.replace(
        trace,
        steps=np.arange(1, k + 1),
        states={"z": states},
        start={"z": start},
        logits=np.zeros((k, 16, 7)),
    )


def plane(seed=0):
    """Two orthonormal directions `l d`."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(L * D, 2)))
    return q.T.reshape(2, L, D)


def test_distances_motion_and_cosines_are_those_of_the_plain_formulas(traces):
    rng = np.random.default_rng(1)
    start, *states = rng.normal(size=(5, L, D))
    found = path_measures(on_path(traces[0], np.stack(states), start))
    root = math.sqrt(L * D)
    before = [start, *states[:-1]]
    for k, state in enumerate(states):

        def size(v):
            return math.sqrt(sum(x * x for x in v.ravel().tolist()))

        expected = {
            "from_start": size(state - start) / root,
            "to_last": size(state - states[-1]) / root,
            "norm": size(state) / root,
            "motion": size(state - before[k]) / size(before[k]),
            "cosine": (state * before[k]).sum() / size(state) / size(before[k]),
            "effective_rank": effective_rank(state),
            "entropy": math.log(7),
        }
        assert expected == pytest.approx({n: v[k] for n, v in found.items()})
    assert found["to_last"][-1] == 0
    assert all(values.dtype == np.float64 for values in found.values())


def test_states_on_a_circle_have_the_cosines_of_their_angles(traces):
    u, v = plane()
    angles = np.array([0.1, 0.7, 2.0, 3.0])
    states = np.cos(angles)[:, None, None] * u + np.sin(angles)[:, None, None] * v
    cosines = step_cosines(on_path(traces[0], 5 * states))
    expected = np.cos(angles[:, None] - angles)
    np.testing.assert_allclose(cosines, expected, atol=1e-12)


def test_measures_between_inputs_are_those_of_the_loop_monitor(traces):
    found = input_measures(traces, "y")
    for k in range(3):
        expected = state_measures(np.stack([trace.y[k] for trace in traces]))
        assert {name: values[k] for name, values in found.items()} == expected
    with pytest.raises(ConfigError, match="needs two"):
        input_measures(traces[:1])
    short = on_path(traces[1], np.ones((2, L, D)))
    with pytest.raises(ConfigError, match="traces of 3, 2 records"):
        input_measures([traces[0], short])


def test_principal_components_find_the_plane_of_a_path(traces):
    u, v = plane()
    a, b = np.array([3.0, -1, -1, -1]), np.array([0.0, 1, -2, 1])  # not correlated
    states = 7 + a[:, None, None] * u + b[:, None, None] * v
    trace = on_path(traces[0], states)
    found = principal_components(trace)
    assert found.explained == pytest.approx(np.array([12, 6]) / 18)
    signs = np.sign([(found.axes[0] * u).sum(), (found.axes[1] * v).sum()])
    np.testing.assert_allclose(
        found.path(trace), signs * np.stack([a, b], 1), atol=1e-9
    )
    # The entry of largest size is positive, whatever the order of the states.
    for axes in (found.axes, principal_components(on_path(trace, states[::-1])).axes):
        flat = axes.reshape(2, -1)
        assert (flat[[0, 1], np.abs(flat).argmax(1)] > 0).all()
        np.testing.assert_allclose(axes, found.axes, atol=1e-9)


def test_several_traces_share_their_components_and_the_start_may_count(traces):
    u, v = plane()
    one = on_path(traces[0], np.stack([u, -u]), start=3 * v)
    two = on_path(traces[1], np.stack([2 * v, -2 * v]), start=3 * v)
    shared = principal_components([one, two])
    assert shared.explained == pytest.approx([0.8, 0.2])
    assert np.abs(shared.path(one)) == pytest.approx(np.array([[0, 1], [0, 1]]))
    with_start = principal_components([one, two], components=2, start=True)
    assert with_start.path(one).shape == (3, 2)
    assert not np.allclose(with_start.mean, shared.mean)
    with pytest.raises(ConfigError, match=r"components = 2; expected 1 to 1, .* 2 sta"):
        principal_components(one)
    with pytest.raises(ConfigError, match="components = 0"):
        principal_components(two, components=0)
    with pytest.raises(ConfigError, match="no traces"):
        principal_components([])


def test_the_latents_of_a_real_trace_have_paths(traces):
    trace = traces[0]
    measures = path_measures(trace, "y")
    np.testing.assert_allclose(measures["entropy"], trace.entropy.mean(-1))
    assert measures["norm"] == pytest.approx(np.ones(3), abs=1e-3)  # post-norm
    whole = principal_components(traces, components=3)
    assert (np.diff(whole.explained) <= 0).all()
    assert whole.explained.sum() <= 1 + 1e-9
    with pytest.raises(ConfigError, match=r"no latent 'x'; it has \['y', 'z'\]"):
        path_measures(trace, "x")
