"""Tests of the rule "loop", and of a network with the norm before its sublayers."""

import dataclasses
import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.compiled_once import share_compilations
from tests.rules import judge
from tests.rules.judge import ROWS, make_rows, on_device, tiny
from trm_jax import api
from trm_jax.errors import ConfigError
from trm_jax.model.layers import rms_norm
from trm_jax.rules.base import Clock
from trm_jax.rules.loop import Loop, LoopOutputs, rotated
from trm_jax.rules.losses import cross_entropy
from trm_jax.training.build import decayed
from trm_jax.training.digest import state_digest
from trm_jax.training.supervision import bind, row_keys

ALL_ON = {"lifeline": True, "loop_encoding": True, "supervise": "every"}
ARMS = {
    "feedback": ({}, "pre"),
    "post_norm": ({"supervise": "first_and_last"}, "post"),
    "lifeline": ({"lifeline": True}, "post"),
    "all": (ALL_ON, "pre"),
}


def world_of(settings, norm="post"):
    """Rule and bound model, with a head and a gate that are not at their starts."""
    config = tiny("loop", model={"norm": norm}, rule={"loop": settings})
    recipe = judge.recipe_of(config)
    model = judge.first_model(recipe)
    if "rule" in model.params:
        gate = jax.random.normal(jax.random.key(5), (16,))
        model.params["rule"]["lifeline"] = gate
    return recipe.rule, model


def clock(step=0):
    return Clock(jnp.full(ROWS, step, jnp.int32), 3, jnp.int32(0))


def by_hand(model, settings, rows, num):
    """The latents of each row after 0 .. num loops, one row after the other."""
    net, x = jax.jit(model.net), model.embed(rows.inputs)
    each = [x]
    for k in range(num):
        z = each[-1]
        if settings.get("lifeline"):
            gate = jax.nn.sigmoid(model.params["rule"]["lifeline"])
            z = z + gate[None, None] * x
        if settings.get("loop_encoding"):
            pairs = np.asarray(z)[..., 0::2] + 1j * np.asarray(z)[..., 1::2]
            turn = np.exp(1j * k * 1e4 ** -(np.arange(8) / 8))
            pairs = pairs * turn
            z = jnp.asarray(np.stack([pairs.real, pairs.imag], -1).reshape(z.shape))
        each.append(net(z.astype(jnp.float32)))
    return jnp.stack(each)


@pytest.mark.parametrize("arm", ARMS)
def test_a_step_is_the_drawn_number_of_loops_and_an_inference_one(arm):
    settings, norm = ARMS[arm]
    rule, model = world_of(settings, norm)
    rows, keys = on_device(make_rows(0)), row_keys(jax.random.key(3), jnp.arange(ROWS))
    first = rule.start(model, rows, keys, training=True)
    expected = by_hand(model, settings, rows, 8)
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    close(first.z, expected[0])

    state, outputs = jax.jit(rule.step)(model, rows, first, keys, clock())
    num = np.asarray(outputs.num)
    assert num.min() >= 2
    assert num.max() <= 8
    assert len(set(num)) > 2
    np.testing.assert_array_equal(state.loops, num)
    close(state.z, expected[num, np.arange(ROWS)])
    if outputs.each is not None:
        after = np.minimum(1 + np.arange(8)[:, None], num)
        logits = model.predict(expected[after, np.arange(ROWS)].reshape(-1, 17, 16))[0]
        close(outputs.each.reshape(logits.shape), logits, atol=1e-3)

    infer, state = jax.jit(rule.infer), first
    for k in range(1, 4):
        state, outputs = infer(model, rows, state, keys, clock(k - 1))
        close(state.z, expected[k])
        assert outputs.each is None
        close(outputs.logits, model.predict(expected[k])[0], atol=1e-3)
    # The number of loops does not begin anew with a supervision step.
    going_on, _ = jax.jit(rule.step)(model, rows, state, keys, clock(3))
    np.testing.assert_array_equal(going_on.loops, 3 + num)
    long = by_hand(model, settings, rows, 11)
    close(going_on.z, long[3 + num, np.arange(ROWS)], rtol=1e-2, atol=1e-3)


def test_the_number_of_loops_is_uniform_and_belongs_to_the_row():
    rule, model = world_of({})
    keys = row_keys(jax.random.key(0), jnp.arange(2_000))

    def drawn(keys):
        rows = on_device(make_rows(0, len(keys)))
        bound = dataclasses.replace(model, vectors=jnp.ones((len(keys), 16)))
        start = rule.start(bound, rows, keys, training=True)
        at = Clock(jnp.zeros(len(keys), int), 1, jnp.int32(0))
        return np.asarray(rule.step(bound, rows, start, keys, at)[0].loops)

    found = drawn(keys)
    share = np.bincount(found.astype(int), minlength=10) / len(found)
    np.testing.assert_array_equal(share[[0, 1, 9]], 0)
    np.testing.assert_allclose(share[2:9], 1 / 7, atol=0.03)
    np.testing.assert_array_equal(drawn(keys[::-3]), found[::-3])


@pytest.mark.parametrize("supervise", ["last", "first_and_last", "every"])
def test_the_loss_is_of_the_loops_that_are_supervised(supervise):
    rule = Loop(supervise=supervise, halt_weight=0.0, cell_loss="softmax")
    rng = np.random.default_rng(0)
    rows, num = make_rows(0), np.array([1, 2, 3, 4] * 2)
    each = rng.normal(size=(4, ROWS, 16, 6)).astype(np.float32)
    last = each[num - 1, np.arange(ROWS)]
    q = jnp.zeros((ROWS, 2))
    given = None if supervise == "last" else jnp.asarray(each)
    outputs = LoopOutputs(jnp.asarray(last), q, given, jnp.asarray(num), None)
    found = rule.loss(outputs, on_device(rows))

    def mean_loss(logits):
        labels = jnp.asarray(rows.labels)
        losses = cross_entropy(jnp.asarray(logits), labels, loss="softmax")
        num = np.maximum(rows.label_mask.sum(-1), 1)
        return np.where(rows.label_mask, losses, 0).sum(-1) / num

    losses = np.stack([mean_loss(one) for one in each])
    of_last = losses[num - 1, np.arange(ROWS)]
    means = [losses[: num[i], i].mean() for i in range(ROWS)]
    expected = {
        "last": of_last,
        "first_and_last": of_last + losses[0],
        "every": np.array(means),
    }[supervise]
    np.testing.assert_allclose(found.total, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.cell_loss, of_last, rtol=1e-5, atol=1e-6)
    assert tuple(found.extra) == rule.metrics


def test_every_parameter_of_the_fullest_arm_has_a_gradient_and_the_gate_no_decay():
    rule, model = world_of(ALL_ON)
    rows, keys = on_device(make_rows(0)), row_keys(jax.random.key(3), jnp.arange(ROWS))
    state = rule.start(model, rows, keys, training=True)

    def total(params):
        bound = bind(rule, model.module, params, {}, model.vectors)
        _, outputs = rule.step(bound, rows, state, keys, clock())
        return rule.loss(outputs, rows).total.sum()

    grads = jax.jit(jax.grad(total))(model.params)
    behind_halting = {"halt_kernel[1]", "halt_bias[1]"}
    assert judge.silent_outputs(grads) == behind_halting
    mask = decayed(rule.no_decay)(model.params)
    assert mask["rule"] == {"lifeline": False}
    assert mask["head"] == {"kernel": True}


def test_the_gate_starts_at_one_half():
    config = tiny("loop", rule={"loop": {"lifeline": True}})
    model = judge.first_model(judge.recipe_of(config))
    np.testing.assert_array_equal(model.own(), np.full(16, 0.5, np.float32))


def test_rotation_keeps_norms_and_turns_the_first_pair_by_the_number_of_the_loop():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 8)).astype(np.float32))
    loops = jnp.array([0.0, 1.0, 5.0])
    found = rotated(z, loops)
    np.testing.assert_array_equal(found[0], z[0])
    np.testing.assert_allclose(
        jnp.linalg.norm(found, axis=-1), jnp.linalg.norm(z, axis=-1), rtol=1e-5
    )
    x, y = z[2, :, 0], z[2, :, 1]
    np.testing.assert_allclose(
        found[2, :, 0], x * np.cos(5) - y * np.sin(5), rtol=1e-4, atol=1e-5
    )


def test_a_network_with_the_norm_first_leaves_its_stream_as_it_is():
    rule, model = world_of({}, norm="pre")
    hidden = 3 * jax.random.normal(jax.random.key(1), (2, 17, 16))
    weights = model.params["net"]["0_swiglu"]
    inner = rms_norm(hidden) @ weights["gate_up"]["kernel"]
    gate, up = jnp.split(inner, 2, axis=-1)
    expected = hidden + (jax.nn.silu(gate) * up) @ weights["down"]["kernel"]
    np.testing.assert_allclose(model.net(hidden), expected, rtol=1e-4, atol=1e-4)
    logits = model.predict(hidden)[0]
    np.testing.assert_allclose(
        logits, model.predict(10 * hidden)[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("sections", "begins"),
    [
        ({"rule": {"loop": {"min_loops": 9}}}, "rule.loop.min_loops = 9"),
        (
            {"model": {"d_model": 15}, "rule": {"loop": {"loop_encoding": True}}},
            "model.d_model = 15",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(sections, begins):
    with pytest.raises(ConfigError, match="^" + begins):
        judge.recipe_of(tiny("loop", **sections)).rule.module(
            judge.recipe_of(tiny("loop", **sections)).model.config
        )


@pytest.mark.slow
def test_a_mamba1_loop_resumes_to_the_bit(tmp_path, monkeypatch):
    share_compilations(monkeypatch)
    config = tiny(
        "loop",
        model={"layers": ("mamba1_both", "swiglu"), "norm": "pre"},
        rule={"loop": ALL_ON | {"loops": 3}},
        train={"steps": 4, "checkpoint_every": 2},
    )
    whole = state_digest(api.run(config, tmp_path))
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    resumed = api.run(config, tmp_path)
    assert state_digest(resumed) == whole
    runs = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert [json.loads(run)["from_step"] for run in runs] == [0, 2]
