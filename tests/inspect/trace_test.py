# SPDX-License-Identifier: Apache-2.0
"""Traces: what is recorded, at which moments, and that recording changes nothing."""

import copy
import math

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.errors import DataError
from tests.helpers.untrained import model_of
from trm_jax.errors import ConfigError
from trm_jax.inspect.trace import EVERY, Trace

PUZZLE, OTHER = "1.....3..4.....2", "..4..1....2.3..."
# Rule and its settings, and the records per step of an evaluation by `every`.
RULES = {
    "trm": ({"h_cycles": 3, "l_cycles": 2}, (1, 3, 9)),
    "one_latent": ({"h_cycles": 2, "l_cycles": 2}, (1, 2, 6)),
    "hrm": ({"h_cycles": 2, "l_cycles": 2}, (1, 2, 6)),
    "urm": ({"h_cycles": 2, "l_cycles": 2}, (1, 2, 4)),
    "loop": ({"lifeline": True, "loops": 3}, (1, 1, 1)),
}


SLOW = ("hrm", "one_latent", "urm")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in RULES
    ],
)
def case(request):
    settings, counts = RULES[request.param]
    model = model_of(rule=request.param, **settings)
    traces = {
        every: model.trace([PUZZLE, OTHER], steps=3, every=every) for every in EVERY
    }
    return model, traces, dict(zip(EVERY, counts, strict=True))


def test_records_are_counted_and_the_steps_are_the_same_bits_whatever_is_kept(case):
    model, traces, counts = case
    names = set(traces["step"][0].states)
    for row in range(2):
        plain = traces["step"][row]
        assert plain.tokens.shape == (3, 16)
        for every, found in traces.items():
            one = found[row]
            assert isinstance(one, Trace)
            assert len(one) == 3 * counts[every]
            assert list(one.steps) == list(np.repeat([1, 2, 3], counts[every]))
            for name in names:
                np.testing.assert_array_equal(
                    one.states[name][one.ends], plain.states[name]
                )
            np.testing.assert_array_equal(one.logits[one.ends], plain.logits)
            np.testing.assert_array_equal(one.q_halt[one.ends], plain.q_halt)
    assert not np.array_equal(traces["step"][0].logits, traces["step"][1].logits)


def test_the_last_record_is_what_solve_answers(case):
    model, traces, _ = case
    for puzzle, trace in zip((PUZZLE, OTHER), traces["cycle"], strict=True):
        solution = model.solve(puzzle, steps=3)
        np.testing.assert_array_equal(trace.tokens[-1], solution.tokens)
        assert trace.valid[-1] == solution.is_valid
        sure = trace.halt_probability[-1]
        assert sure == pytest.approx(solution.halt_probability, abs=1e-5)


def test_the_entropy_of_fresh_weights_is_nearly_that_of_chance(case):
    trace = case[1]["step"][0]
    assert trace.entropy.shape == trace.confidence.shape == (3, 16)
    most = math.log(trace.logits.shape[-1])
    assert (trace.entropy <= most).all()
    assert trace.entropy.mean() > 0.7 * most
    assert (trace.confidence >= 1 / trace.logits.shape[-1]).all()


@pytest.mark.parametrize("rule", ["trm", "hrm"])
def test_a_step_restarts_from_the_records_of_its_cycles(rule):
    model = model_of(rule=rule, h_cycles=3)
    trace = model.trace(PUZZLE, steps=2, every="cycle")
    x = model.embed(PUZZLE)
    y, z = trace.start["y"], trace.start["z"]
    for k in range(len(trace)):
        y, z = model.cycle(y[None], z[None], x)
        np.testing.assert_allclose(y[0], trace.y[k], atol=1e-3)
        np.testing.assert_allclose(z[0], trace.z[k], atol=1e-3)
        y, z = trace.y[k], trace.z[k]  # from the record, not from what was computed
    assert abs(trace.y[1] - trace.y[0]).max() > 0.01


def test_calls_update_one_latent_each_as_the_paper_says():
    model = model_of(h_cycles=2, l_cycles=2)
    trace = model.trace(PUZZLE, steps=1, every="call")
    x, net = model.embed(PUZZLE), model.bound().net
    y, z = (jnp.asarray(trace.start[name])[None] for name in "yz")
    for k in range(6):
        if k % 3 < 2:
            z = net(z + (y + x))
        else:
            y = net(y + z)
        np.testing.assert_allclose(z[0], trace.z[k], atol=1e-4)
        np.testing.assert_allclose(y[0], trace.y[k], atol=1e-4)
    assert len(trace) == 6


def test_bfloat16_states_are_recorded_as_float32():
    def edit(config):
        config.model.dtype = "bfloat16"

    trace = model_of(edit=edit).trace(PUZZLE, steps=1, every="call")
    assert trace.y.dtype == trace.logits.dtype == np.float32


def test_wrong_requests_are_refused():
    model = model_of()
    trace = model.trace(PUZZLE, steps=1)
    assert model.trace([]) == []
    assert len(copy.copy(trace)) == 1
    with pytest.raises(AttributeError, match="no 'x'; its states are: y, z"):
        _ = trace.x
    with pytest.raises(ConfigError, match="every = 'cell'; expected one of step"):
        model.trace(PUZZLE, every="cell")
    with pytest.raises(ConfigError, match="steps = 0"):
        model.trace(PUZZLE, steps=0)
    with pytest.raises(DataError, match="3 characters found"):
        model.trace("123")


@pytest.mark.slow
def test_chains_are_traced_as_their_rule():
    plain, chains = model_of(rule="trm", h_cycles=2, l_cycles=2), model_of(rule="wta")
    for every in EVERY:
        trace = chains.trace(PUZZLE, steps=2, every=every)
        assert trace.states.keys() == plain.trace(PUZZLE, steps=1).states.keys()
        assert trace.y.shape == (len(trace), *trace.start["y"].shape)
        answer = chains.solve(PUZZLE, steps=2).tokens
        np.testing.assert_array_equal(trace.tokens[-1], answer)


@pytest.mark.slow
def test_a_random_rule_is_traced_by_cycles_as_it_solves():
    model = model_of(rule="eqr", h_cycles=2, l_cycles=2)
    with pytest.raises(ConfigError, match="every = 'call': a call of the rule"):
        model.trace(PUZZLE, steps=2, every="call")
    trace = model.trace(PUZZLE, steps=2, every="cycle")
    assert len(trace) == 4
    np.testing.assert_array_equal(trace.tokens[-1], model.solve(PUZZLE, steps=2).tokens)
