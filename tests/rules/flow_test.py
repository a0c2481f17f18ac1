# SPDX-License-Identifier: Apache-2.0
"""Tests of the rule "flow": golden numbers, draws, and its two kinds of step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.golden_trm import GOLDEN
from tests.rules import judge
from tests.rules.judge import ROWS, make_rows, on_device, tiny
from trm_jax import api
from trm_jax.rules import denoising, flow
from trm_jax.rules.base import Clock
from trm_jax.rules.losses import log_stablemax
from trm_jax.training.supervision import row_keys

FILE = np.load(GOLDEN / "flow.npz")


def world_of(**settings):
    """Rule and bound model; cells with the token 1 are unknown."""
    recipe = judge.recipe_of(tiny("flow", rule={"flow": settings}))
    return recipe.rule, judge.first_model(recipe)


def clock(step, most=3, update=0):
    return Clock(jnp.full(ROWS, step, jnp.int32), most, jnp.int32(update))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_times_and_interpolants_agree_with_the_golden_numbers():
    close(denoising.sorted_times(jnp.asarray(FILE["uniform_draws"])), FILE["t_sorted"])
    draws = jnp.asarray(FILE["uniform_draws_random_start"])
    close(denoising.random_start_times(draws), FILE["t_random_start"])
    x0, x1 = (jnp.asarray(FILE[name], jnp.float32) for name in ("x0", "x1"))
    times = jnp.asarray(FILE["t_sorted"], jnp.float32)
    given = FILE["given"][..., None]
    for i, expected in enumerate(FILE["interpolant"]):
        found = denoising.interpolant(x0, x1, times[:, i])
        close(found, expected)
        clean = FILE["interpolant_given_clean"][i]
        close(np.where(given, FILE["x1"], found), clean)
    for name, of in (("softmax", jax.nn.log_softmax), ("stablemax", log_stablemax)):
        guess = jnp.exp(of(jnp.asarray(FILE["logits"])))
        close(guess, FILE[f"probabilities_{name}"])
        found = denoising.interpolant(x0, guess, times[:, 5])
        close(found, FILE[f"pseudo_interpolant_{name}"])
    steps = FILE["pseudo_probability/step"]
    found = [denoising.pseudo_probability(jnp.int32(step), 20_000) for step in steps]
    close(np.array(found), FILE["pseudo_probability/value"])


def test_the_encoded_input_agrees_with_the_golden_numbers():
    weights = {k.split("/")[1]: v for k, v in FILE.items() if k.startswith("weights/")}
    params = jax.tree.map(
        jnp.asarray,
        {
            "noisy": {"kernel": weights["noisy_input.weight"].T},
            "rise": weights["time_mlp.0.weight"].T,
            "rise_bias": weights["time_mlp.0.bias"],
            "mix": {"kernel": weights["time_mlp.2.weight"].T},
            "mix_bias": weights["time_mlp.2.bias"],
        },
    )
    module = flow.NoisyAnswer(32, 7, False, jnp.float32)
    embedded = np.sqrt(32) * weights["embed_tokens.embedding_weight"][FILE["inputs"]]
    noisy = jnp.asarray(FILE["interpolant"][5], jnp.float32)
    t = jnp.asarray(FILE["t_sorted"][:, 5], jnp.float32)

    args = jnp.asarray(embedded), noisy, t
    found = module.apply({"params": params}, *args, method=flow.NoisyAnswer.add)
    expected = FILE["encoded_unscaled_projection"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gamma", [0, 1, 5, 20])
def test_the_sampler_agrees_with_the_golden_numbers(gamma):
    of = f"sampler/gamma{gamma}"
    x = jnp.asarray(FILE["sampler/x_init"], jnp.float32)
    num = int(FILE["sampler/num_steps"])
    for i in range(num):
        fresh = jnp.asarray(FILE["sampler/noise"][i], jnp.float32)
        guess = jnp.asarray(FILE["sampler/predictions"][i], jnp.float32)
        step = jnp.full(len(x), i, jnp.float32)
        noisy, s = denoising.renoised(x, fresh, step, num, float(gamma))
        close(noisy, FILE[f"{of}/x_bar"][i])
        close(s, np.full(len(x), FILE[f"{of}/s"][i]))
        x = denoising.moved(noisy, guess, step, s, num)
        close(x, FILE[f"{of}/x"][i + 1])
    np.testing.assert_array_equal(x.argmax(-1), FILE[f"{of}/answer"])


@pytest.fixture
def watched(monkeypatch):
    """Compiles a function; it also returns the noisy answers and times of its steps."""
    seen, add = [], flow.NoisyAnswer.add

    def record(self, x, noisy, t):
        seen.append((noisy, t))
        return add(self, x, noisy, t)

    def with_seen(function, *args):
        seen.clear()
        return function(*args), seen.copy()

    monkeypatch.setattr(flow.NoisyAnswer, "add", record)
    return lambda function: jax.jit(partial(with_seen, function))


def keys_of(seed):
    return row_keys(jax.random.key(seed), jnp.arange(ROWS))


@pytest.mark.parametrize("order", denoising.TIMES)
def test_a_rollout_has_one_noise_and_ascending_times(order, watched):
    rule, model = world_of(order=order)
    rows = on_device(make_rows(0))

    @watched
    def rollout():
        state = rule.start(model, rows, keys_of(3), training=True)
        for step in range(3):
            state, _ = rule.step(model, rows, state, keys_of(step), clock(step))
        return state

    state, seen = rollout()
    noisy, times = (np.stack(each) for each in zip(*seen, strict=True))
    assert (np.diff(times, axis=0) > 0).all()
    assert len(np.unique(times)) == 3 * ROWS
    answer, t = np.eye(6)[rows.labels], times[..., None, None]
    unknown = np.asarray((rows.inputs == 1) & rows.label_mask)
    for found in (noisy - t * answer) / (1 - t):
        np.testing.assert_allclose(found[unknown], state.x[unknown], atol=1e-3)
    assert np.std(state.x) == pytest.approx(6**-0.5, rel=0.1)
    free = np.asarray((rows.inputs == 1) & ~rows.label_mask)
    followed = (noisy - (1 - t) * np.asarray(state.x)) / t
    np.testing.assert_allclose(followed[0][free], 0, atol=1e-3)
    np.testing.assert_allclose(followed[1:][:, free].sum(-1), 1, atol=1e-3)
    assert (np.abs(followed - answer)[1:][:, free].max(-1) > 0.1).all()


def test_the_guess_takes_the_place_of_the_label_with_a_rising_probability(watched):
    rule, model = world_of(pseudo_steps=10)
    rows = on_device(make_rows(0))
    state = rule.start(model, rows, keys_of(3), training=True)
    state = state._replace(guess=state.guess + 7)
    unknown = np.asarray((rows.inputs == 1) & rows.label_mask)

    @watched
    def take_step(step, update):
        rule.step(model, rows, state, keys_of(3), clock(step, update=update))

    def pseudo(step, update):
        _, ((noisy, t),) = take_step(step, update)
        t = t[:, None, None]
        is_seven = np.isclose((noisy - (1 - t) * state.x) / t, 7, atol=1e-2).all(-1)
        return (is_seven | ~unknown).all(-1)[:-1]  # the last row has no label

    assert not pseudo(0, 10).any()
    assert not pseudo(1, 0).any()
    assert pseudo(1, 10).all()
    assert 0 < pseudo(1, 5).sum() < ROWS - 1


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_an_evaluation_ends_at_its_last_guess_and_keeps_clues_clean(gamma, watched):
    rule, model = world_of(gamma=gamma)
    rows = on_device(make_rows(0))

    @watched
    def evaluate():
        state = rule.start(model, rows, keys_of(3), training=False)
        samples = [state.x]
        for step in range(3):
            state, _ = rule.infer(model, rows, state, keys_of(step), clock(step))
            samples.append(state.x)
        return state, samples

    (state, samples), seen = jax.device_get(evaluate())
    assert not np.array_equal(samples[0][0], samples[0][1])
    np.testing.assert_allclose(state.x, state.guess, atol=1e-5)
    unknown = np.asarray(rows.inputs == 1)
    for x, (noisy, t) in zip(samples, seen, strict=False):
        is_moved = np.abs(noisy - x)[unknown].max() > 0.1
        assert is_moved == (gamma > 0)
        assert (t < 1).all()
    given, clean = np.asarray(rows.inputs != 1), np.eye(6)[rows.inputs]
    for noisy, _ in seen:
        np.testing.assert_array_equal(noisy[given], clean[given])
        assert not np.isin(noisy[~given], (0, 1)).any()


@pytest.mark.parametrize("vocab", [11, 6, 12])
def test_the_published_number_of_parameters_is_added(vocab):
    module = flow.NoisyAnswer(512, vocab, False, jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 512 * vocab + 263_680


@pytest.mark.parametrize("variant", ["flow", "flow+wta", "wta+flow"])
def test_arc_agi_2_has_its_own_settings_of_a_flow_inside_chains_too(variant):
    config = api.get_config(f"arc_agi_2:{variant}")
    found = config.rule.flow
    assert (found.gamma, found.pseudo_steps, found.order) == (1, 20_000, "random_start")
    assert config.eval.supervision_steps == 32
    plain = api.get_config("arc_agi_2")
    assert (plain.rule.flow.gamma, plain.eval.supervision_steps) == (0, 0)


def test_the_question_is_projected_with_its_prefix():
    module = flow.NoisyAnswer(4, 7, True, jnp.float32)
    params = module.init(jax.random.key(0))["params"]
    double = {"kernel": 2 * jnp.eye(4)}
    params = jax.tree.map(jnp.zeros_like, params) | {"question": double}
    x, noisy = jnp.arange(12.0).reshape(1, 3, 4), jnp.ones((1, 2, 7))
    args = x, noisy, jnp.ones(1)
    found = module.apply({"params": params}, *args, method=flow.NoisyAnswer.add)
    np.testing.assert_array_equal(found, 2 * x)


def test_rows_and_steps_toss_their_own_coins(watched):
    rule, model = world_of(pseudo_steps=10)
    rows = on_device(make_rows(0))
    state = rule.start(model, rows, keys_of(3), training=True)
    state = state._replace(guess=state.guess + 1e3)

    @watched
    def take_step(step, keys):
        rule.step(model, rows, state, keys, clock(step, 6, update=5))

    seen = [take_step(step, keys_of(step))[1][0] for step in range(1, 5)]
    tossed = np.stack([noisy.max((1, 2)) > 10 for noisy, _ in seen])
    assert len(np.unique(tossed, axis=0)) > 1
    assert len(np.unique(tossed, axis=1).T) > 1
