# SPDX-License-Identifier: Apache-2.0
"""EqR against the published code's numbers, with the file's noise and starts."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import golden_trm
from tests.rules import judge
from trm_jax.rules import eqr, latents
from trm_jax.rules.base import Clock
from trm_jax.rules.eqr import EqR
from trm_jax.rules.latents import Latents
from trm_jax.rules.trm import TRM
from trm_jax.training import supervision
from trm_jax.training.build import make_recipe
from trm_jax.training.config import default_config, read_run
from trm_jax.training.step import loss_and_grads
from trm_jax.training.supervision import empty_batch, refill
from trm_jax.types import Carry

CALLS, ROWS, STEPS = 9, 4, 3
ATOL = 1e-4


@pytest.fixture(autouse=True)
def stored_draws(request):
    """The "key" of a row holds what the file drew for it: 9 noises, then y and z."""
    if "golden" not in request.fixturenames:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervision, "folded", lambda keys, use: keys)
        patch.setattr(
            latents, "folded", lambda keys, _, number: keys[:, CALLS + number]
        )
        patch.setattr(latents, "truncated", lambda drawn, shape: drawn)
        patch.setattr(eqr, "folded", lambda keys, _, i, call: keys[:, 3 * i + call])
        patch.setattr(eqr, "normal", lambda drawn, shape: drawn)
        yield


@cache
def load():
    """The file, its settings, its parameters and its step without an update."""
    file = dict(np.load(golden_trm.GOLDEN / "eqr_step.npz"))
    c = golden_trm.official_config(file) | {
        "puzzle_emb_len": 0,
        "puzzle_emb_ndim": 0,
        "num_puzzle_identifiers": 1,
    }
    config, sizes = golden_trm.config_and_sizes(c, "float32")
    config["rule"] = default_config()["rule"] | {"name": "eqr"}
    config["rule"]["eqr"].update(
        h_cycles=c["H_cycles"],
        l_cycles=c["L_cycles"],
        damping=1 - c["lambda_"],
        noise=c["noise_scale"],
    )
    recipe = make_recipe(config, sizes, read_run(config))
    weights = {k[8:]: v for k, v in file.items() if k.startswith("weights/")}
    params = jax.tree.map(jnp.asarray, golden_trm.to_params(weights, c))
    return file, c, recipe, params, jax.jit(partial(loss_and_grads, recipe, ROWS))


@pytest.fixture(name="golden")
def loaded():
    return load()


def stepped(golden, i, carry):
    """Step i of the file on this carry: gradients, metrics and the next carry."""
    file, _, recipe, params, step = golden
    none = np.zeros(ROWS, np.int32)
    batch = {k: file[f"batch{i}/{k}"] for k in ("inputs", "labels")}
    batch = golden_trm.batch_of(batch | {"puzzle_identifiers": none})
    carry = refill(carry, jax.tree.map(jnp.asarray, batch))
    first = [file[f"init/{name}"][i][:, None] for name in ("z_H", "z_L")]
    keys = jnp.asarray(np.concatenate([file["noise"][i].swapaxes(0, 1), *first], 1))
    vectors = jnp.zeros((ROWS, recipe.model.config.puzzle_width))
    sums, (_, carry) = step(
        (params, {}, jnp.int32(0)), vectors, carry, keys, jnp.asarray(none)
    )
    return *sums, carry


def assert_step(golden, i, grads, metrics, carry):
    file, c, recipe, params, _ = golden
    close = partial(np.testing.assert_allclose, rtol=ATOL, atol=ATOL)
    close(carry.state.y, file[f"train{i}/z_H"])
    close(carry.state.z, file[f"train{i}/z_L"])
    for name in ("steps", "halted"):
        np.testing.assert_array_equal(getattr(carry, name), file[f"train{i}/{name}"])
    np.testing.assert_array_equal(carry.batch.inputs, file[f"train{i}/rows/inputs"])
    logits, q = recipe.model.apply({"params": params}, carry.state.y, method="predict")
    close(logits, file[f"train{i}/logits"])
    close(q[:, 0], file[f"train{i}/q_halt_logits"])
    close(metrics["loss"][0], file[f"train{i}/loss"])
    close(metrics["cell_loss"][0], file[f"train{i}/metrics/lm_loss"])
    close(metrics["halt_loss"][0], file[f"train{i}/metrics/q_halt_loss"])
    prefix = f"train{i}/grads/"
    stored = {k.removeprefix(prefix): v for k, v in file.items() if prefix in k}
    if stored:
        found = dict(jax.tree_util.tree_leaves_with_path(grads))
        expected = golden_trm.to_params(stored, c)
        for path, grad in jax.tree_util.tree_leaves_with_path(expected):
            close(found[path], grad, err_msg=jax.tree_util.keystr(path))
    return len(stored)


def begun(golden):
    config, zeros = golden[2].model.config, jnp.zeros(golden[0]["init/z_H"].shape[1:])
    batch = empty_batch(config, ROWS)
    state, ones = Latents(zeros, zeros), jnp.ones(ROWS, bool)
    return Carry(state, jnp.zeros(ROWS, int), ones, batch)


def test_threaded_steps_match(golden):
    carry, compared = begun(golden), []
    for i in range(STEPS):
        resets = carry.halted
        np.testing.assert_array_equal(resets, golden[0][f"train{i}/reset_rows"])
        *sums, carry = stepped(golden, i, carry)
        compared.append(assert_step(golden, i, *sums, carry))
    assert compared == [12, 0, 10]  # arrays of gradients


def test_each_step_matches_from_the_stored_state(golden):
    carry, file = begun(golden), golden[0]
    for i in range(STEPS):
        *sums, carry = stepped(golden, i, carry)
        assert_step(golden, i, *sums, carry)
        names = ("z_H", "z_L", "steps", "halted")
        y, z, steps, halted = (jnp.asarray(file[f"train{i}/{k}"]) for k in names)
        carry = carry._replace(state=Latents(y, z), steps=steps, halted=halted)


def stepped_by(rule):
    """The state after a step of an evaluation of the tiny model."""
    world = judge.begun("eqr")
    clock = Clock(world.carry.steps, 3, jnp.int32(0))

    def step(keys):
        model, carry = judge.model_of(world), world.carry
        return rule.infer(model, carry.batch, carry.state, keys, clock)[0]

    return jax.jit(step)(world.keys)


CYCLES = {"h_cycles": 2, "l_cycles": 2}


def test_without_damping_and_noise_a_step_is_that_of_trm():
    found = stepped_by(EqR(damping=0.0, noise=0.0, **CYCLES))
    expected = stepped_by(TRM(**CYCLES))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), found, expected)


def test_noise_is_drawn_anew_per_row_cycle_and_call_in_evaluation_too(monkeypatch):
    real, keys = eqr.normal, []

    def noted(row_keys, shape):
        jax.debug.callback(keys.append, jax.random.key_data(row_keys))
        return real(row_keys, shape)

    monkeypatch.setattr(eqr, "normal", noted)
    jax.block_until_ready(stepped_by(EqR(**CYCLES)))
    jax.effects_barrier()
    assert len(keys) == 6
    assert len(np.unique(np.concatenate(keys), axis=0)) == 6 * judge.ROWS


def test_damping_and_noise_are_those_of_the_settings():
    one = {"h_cycles": 1, "l_cycles": 1}
    quiet = stepped_by(EqR(damping=0.0, noise=0.0, **one))
    loud = stepped_by(EqR(damping=0.0, noise=0.3, **one))
    assert float((loud.z - quiet.z).std()) == pytest.approx(0.3, rel=0.05)
    damped = stepped_by(EqR(damping=0.25, noise=0.0, **one))
    before = judge.begun("eqr").carry.state.z
    np.testing.assert_allclose(damped.z, 0.25 * before + 0.75 * quiet.z, atol=1e-5)
