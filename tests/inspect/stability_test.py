# SPDX-License-Identifier: Apache-2.0
"""Lyapunov exponents and spectra: known maps, and dense Jacobians of small models."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.untrained import model_of
from trm_jax.errors import ConfigError
from trm_jax.inspect.stability import (
    cycle_map,
    growth,
    joint_states,
    leading_eigenvalues,
    lyapunov,
    pushed,
    spectrum,
)

PUZZLE, OTHER = "1.....3..4.....2", "..4..1....2.3..."
ROTATION = 0.9 * np.exp(0.7j)


def matrix(eigenvalues, seed=0):
    """A real matrix that is not normal, with these eigenvalues; (a, b) is a + bi."""
    n, rng = (
        sum(1 + (abs(e.imag) > 0) for e in eigenvalues),
        np.random.default_rng(seed),
    )
    blocks, i = np.zeros((n, n)), 0
    for e in map(complex, eigenvalues):
        if e.imag:
            blocks[i : i + 2, i : i + 2] = [[e.real, e.imag], [-e.imag, e.real]]
        else:
            blocks[i, i] = e.real
        i += 2 if e.imag else 1
    basis = rng.normal(size=(n, n)) + 3 * np.eye(n)
    return basis @ blocks @ np.linalg.inv(basis)


def linear(eigenvalues):
    of_map = jnp.float32(matrix(eigenvalues))
    return pushed(lambda v: of_map @ v)


def test_a_complex_pair_that_leads_is_found():
    small = list(0.6 * np.cos(np.arange(40)))
    found = leading_eigenvalues(linear([ROTATION, -0.8, *small]), np.zeros(43))
    assert found.converged
    assert found.products < 30
    assert found.radius == pytest.approx(0.9, rel=2e-3)
    pair = sorted(found.values[:2], key=lambda value: value.imag)
    np.testing.assert_allclose(pair, [ROTATION.conj(), ROTATION], rtol=3e-3)
    assert found.residual <= 1e-3
    assert found.change <= 1e-3


def test_few_products_are_reported_as_not_converged():
    close = [ROTATION, *(0.89 * np.cos(np.arange(40) / 40))]
    found = leading_eigenvalues(linear(close), np.zeros(42), products=4)
    assert found.products == 4
    assert not found.converged
    assert found.residual > 1e-3
    with pytest.raises(ConfigError, match="products = 0"):
        leading_eigenvalues(linear(close), np.zeros(42), products=0)


def test_small_maps_are_exact_and_so_is_a_map_without_growth():
    found = leading_eigenvalues(linear([0.5, -2.0]), np.zeros(2))
    assert found.converged
    np.testing.assert_allclose(found.values.real, [-2.0, 0.5], rtol=1e-5)
    nothing = leading_eigenvalues(pushed(lambda v: 0 * v), np.ones(5))
    assert (nothing.radius, nothing.converged, nothing.products) == (0, True, 1)
    flat = growth(pushed(lambda v: 0 * v), np.ones((3, 5)))
    assert (flat.per_cycle == -np.inf).all()


@pytest.mark.parametrize("eigenvalues", [[1.25, 0.5, -0.3], [ROTATION, 0.4]])
def test_the_exponent_of_a_linear_map_is_the_log_of_its_radius(eigenvalues):
    n = 3
    found = growth(linear(eigenvalues), np.zeros((300, n)))
    radius = max(abs(e) for e in eigenvalues)
    assert found.per_cycle.shape == (300,)
    assert found.exponent == pytest.approx(np.log(radius), abs=0.01)
    again, other = (
        growth(linear(eigenvalues), np.zeros((2, n)), seed=s) for s in (0, 1)
    )
    assert list(again.per_cycle) == list(found.per_cycle[:2])
    assert list(again.per_cycle) != list(other.per_cycle)


def test_the_exponent_of_the_henon_map_is_the_published_one():
    def henon(v):
        return jnp.stack([1 - 1.4 * v[0] ** 2 + v[1], 0.3 * v[0]])

    points = [np.array([0.1, 0.1])]
    for _ in range(4000):
        x, y = points[-1]
        points.append(np.array([1 - 1.4 * x * x + y, 0.3 * x]))
    found = growth(pushed(henon), np.stack(points[:-1]), after=np.stack(points[1:]))
    assert found.exponent == pytest.approx(0.419, abs=0.015)  # Sprott 2003: 0.41922
    assert found.mismatch < 1e-5


def narrow(config):
    config.model.d_model = 8


@pytest.fixture(scope="module")
def case():
    """A small model, its traces, their questions, and the dense Jacobian of a cycle."""
    model = model_of(h_cycles=2, l_cycles=1, edit=narrow)
    traces = model.trace([PUZZLE, OTHER], steps=3, every="cycle")
    x = np.concatenate([model.embed(puzzle) for puzzle in (PUZZLE, OTHER)])
    return model, traces, x, jax.jit(jax.jacfwd(cycle_map(model)))


def test_the_spectrum_of_a_cycle_is_that_of_its_dense_jacobian(case):
    model, traces, x, jacobian = case
    y, z = (np.stack([trace.states[name][3] for trace in traces]) for name in "yz")
    found = spectrum(model, y, z, x, products=150, tolerance=1e-4)
    for trace, question, one in zip(traces, x, found, strict=True):
        dense = np.linalg.eigvals(
            np.float64(jacobian(joint_states(trace)[4], question))
        )
        assert len(dense) == 2 * 17 * 8
        assert one.converged
        assert one.radius == pytest.approx(abs(dense).max(), rel=2e-3)
    assert found[0].radius != pytest.approx(found[1].radius, rel=0.01)


def test_growth_along_a_trace_is_that_of_the_product_of_dense_jacobians(case):
    model, traces, x, jacobian = case
    found = lyapunov(model, traces, x, seed=3)
    for trace, question, one in zip(traces, x, found, strict=True):
        assert one.per_cycle.shape == (6,)
        assert one.mismatch < 1e-3
        states = joint_states(trace)
        tangent = np.random.default_rng(3).normal(size=states.shape[1])
        start = np.linalg.norm(tangent)
        for state in states[:-1]:
            tangent = np.float64(jacobian(np.float32(state), question)) @ tangent
        total = np.log(np.linalg.norm(tangent) / start)
        assert one.per_cycle.sum() == pytest.approx(total, rel=1e-3)
        assert one.exponent == pytest.approx(total / 6, rel=1e-3)


def test_a_finite_step_grows_as_the_exponent_says(case):
    model, traces, x, jacobian = case
    cycle, state = cycle_map(model), np.float32(joint_states(traces[0])[2])
    move = np.random.default_rng(0).normal(size=len(state))
    move /= np.linalg.norm(move)
    ends = [
        np.float64(cycle(np.float32(state + s * move), x[0])) for s in (0.02, -0.02)
    ]
    size = np.linalg.norm(ends[0] - ends[1]) / 0.04
    tangent = np.float64(jacobian(state, x[0])) @ move
    assert np.linalg.norm(tangent) == pytest.approx(size, rel=0.02)


def test_other_traces_and_other_questions_are_refused(case):
    model, traces, x, _ = case
    one, every = traces[0], dataclasses.replace(traces[0], every="step")
    with pytest.raises(ConfigError, match="every 'step'; expected every = 'cycle'"):
        lyapunov(model, every, x[:1])
    with pytest.raises(ConfigError, match="1 traces, but x has 2 rows"):
        lyapunov(model, one, x)
    with pytest.raises(ConfigError, match="miss the records by"):
        lyapunov(model, one, x[1:])
    only_z = dataclasses.replace(one, states={"z": one.z})
    with pytest.raises(ConfigError, match="no latent 'y'"):
        lyapunov(model, only_z, x[:1])


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["attention", "mamba2_attn", "mamba1"])
@pytest.mark.parametrize("rule", ["trm", "hrm"])
def test_bfloat16_models_of_all_operators_are_measured_in_float32(variant, rule):
    def edit(config):
        config.model.dtype = "bfloat16"

    model = model_of(variant, rule=rule, edit=edit)
    trace = model.trace(PUZZLE, steps=2, every="cycle")
    found = lyapunov(model, trace, model.embed(PUZZLE))
    assert 1e-4 < found.mismatch < 0.1
    assert np.isfinite(found.per_cycle).all()
