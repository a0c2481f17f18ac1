# SPDX-License-Identifier: Apache-2.0
"""The logit lens: what the heads say of any state."""

import numpy as np
import pytest

from tests.helpers.untrained import model_of
from trm_jax.errors import ConfigError
from trm_jax.inspect.lens import layer_lens, lens, ranks, read
from trm_jax.inspect.loop_measures import entropy
from trm_jax.inspect.operators import network_calls

PUZZLE = "1.....3..4.....2"


def pre_norm(config):
    config.model.norm = "pre"


@pytest.fixture(scope="module")
def case():
    model = model_of()
    return model, model.trace(PUZZLE, steps=3)


@pytest.mark.slow
def test_the_lens_of_y_has_the_norm_of_the_heads():
    model = model_of(edit=pre_norm)
    test_the_lens_of_y_says_what_the_model_answers((model, model.trace(PUZZLE, 3)))


def test_the_lens_of_y_says_what_the_model_answers(case):
    model, trace = case
    solution = trace.tokens[-1]
    found = lens(model, trace, "y", solution=solution)
    np.testing.assert_allclose(found.logits, trace.logits, atol=1e-4)
    np.testing.assert_allclose(found.q_halt, trace.q_halt, atol=1e-4)
    np.testing.assert_allclose(found.entropy, trace.entropy, atol=1e-4)
    assert found.agreement[-1] == 1
    same = (found.tokens == trace.tokens[-1]).mean(-1)
    np.testing.assert_array_equal(found.agreement, same)
    is_first = (found.tokens == solution) & (solution > 0)
    np.testing.assert_array_equal(found.rank == 0, is_first)
    np.testing.assert_array_equal(found.rank[-1], np.where(solution > 0, 0, -1))


def test_the_lens_of_z_is_another_reading(case):
    model, trace = case
    found = lens(model, trace)
    assert found.rank is None
    assert not np.allclose(found.logits, trace.logits, atol=0.1)
    again = read(model, trace.z, answer=trace.tokens[0], loss="softmax")
    np.testing.assert_array_equal(again.logits, found.logits)
    np.testing.assert_array_equal(again.entropy, entropy(found.logits, loss="softmax"))
    first = (found.tokens == trace.tokens[0]).mean(-1)
    np.testing.assert_array_equal(again.agreement, first)
    with pytest.raises(ConfigError, match="no latent 'x'"):
        lens(model, trace, "x")


def test_the_last_layer_of_the_last_call_says_what_the_answer_is(case):
    model, trace = case
    x, y, z = model.embed(PUZZLE), trace.y[-1:], trace.z[-1:]
    calls = network_calls(model, y, z, x)
    name, hidden = calls[-1]
    after, _ = model.cycle(y, z, x)
    answer, loss = trace.tokens[-1], trace.loss
    expected = read(model, after, answer=answer, loss=loss)
    found = layer_lens(model, hidden, name, answer=answer, loss=loss, solution=answer)
    assert list(found) == ["0_token_mlp", "1_swiglu"]
    np.testing.assert_allclose(found["1_swiglu"].logits, expected.logits, atol=1e-4)
    assert not np.allclose(found["0_token_mlp"].logits, expected.logits, atol=0.1)
    assert found["0_token_mlp"].rank.shape == (1, 16)


def test_ranks_count_the_tokens_above_the_true_one():
    logits = np.array([[[0.1, 3, 2, 1], [5, 4, 3, 2], [0, 0, 0, 9.0], [1, 2, 3, 4]]])
    assert ranks(logits, np.array([1, 3, 3, 0])).tolist() == [[0, 3, 0, -1]]
    with pytest.raises(ConfigError, match=r"a solution of \(3,\); expected 4 tokens"):
        ranks(logits, np.array([1, 3, 3]))
