# SPDX-License-Identifier: Apache-2.0
"""Tests of the rule "wta": four golden steps, and what it does around other rules."""

import dataclasses
import json
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.compiled_once import run_commands_here
from tests.helpers.golden_trm import GOLDEN
from tests.helpers.rules.turns import Turns
from tests.helpers.runs import call_here, metric_lines, short_flags
from tests.rules import judge
from tests.rules.judge import ROWS, make_rows, on_device, tiny
from trm_jax.commands import train
from trm_jax.errors import ConfigError
from trm_jax.model.layers import rms_norm
from trm_jax.model.model import BoundModel
from trm_jax.rules import RULES
from trm_jax.rules.base import Clock
from trm_jax.rules.chains import aligned
from trm_jax.rules.halting import halt
from trm_jax.rules.latents import Latents
from trm_jax.rules.trm import TRM
from trm_jax.rules.wta import WTA, Chains
from trm_jax.training.step import init_train_state
from trm_jax.training.supervision import row_keys
from trm_jax.types import Batch

FILE = np.load(GOLDEN / "sic_wta.npz")
STEPS = range(4)
SLOTS, CHAINS = 4, 4
ONE = "expected auto or none, since the rule .* has one latent"
TOKEN_MLP = {"model": {"layers": ("token_mlp",), "swiglu": {"width": 0}}}


def unit(h, weights, name):
    """W_down(sigmoid(g) rms(g v)), with torch's layout of the weights."""
    up, down = (weights[f"{name}.{part}_proj.weight"] for part in ("up", "down"))
    g, v = jnp.split(h @ up.T, 2, axis=-1)
    return (jax.nn.sigmoid(g) * rms_norm(g * v)) @ down.T


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reference(BoundModel):
    """The published network: two mixer blocks, a register token, a head with a bias."""

    def embed(self, inputs):
        w = self.params
        registers = jnp.broadcast_to(w["register_tokens"], (len(inputs), 1, 32))
        x = jnp.concatenate([registers, w["embed_tokens.weight"][inputs]], axis=1)
        return np.sqrt(32) * x

    def net(self, h):
        for i in range(2):
            mixed = unit(h.swapaxes(1, 2), self.params, f"reasoning.{i}.attn")
            h = rms_norm(h + mixed.swapaxes(1, 2), axis=1)
            h = rms_norm(h + unit(h, self.params, f"reasoning.{i}.mlp"))
        return h

    def predict(self, y):
        w = self.params
        logits = y[:, 1:] @ w["head.weight"].T + w["head.bias"][None, None]
        return logits, y[:, 0] @ w["q_head.weight"].T + w["q_head.bias"][None]


def reference():
    weights = {
        key.removeprefix("weights/"): jnp.asarray(FILE[key])
        for key in FILE
        if key.startswith("weights/")
    }
    return Reference(weights, None, jnp.zeros((SLOTS, 1)), None)


def own(step, name):
    """A quantity of the floating chains as (slot, chain); lost chains get chain 0's."""
    places = FILE[f"step{step}/chain_of_slot_in"]
    return FILE[f"step{step}/{name}"][np.maximum(places, 0)]


def golden_rule():
    inner = TRM(
        h_cycles=3,
        l_cycles=2,
        cell_loss="softmax",
        label_smoothing=0.2,
        halt_weight=0.05,
    )
    return WTA(chains=CHAINS).around(inner)


def golden_step(step):
    """The next state and the outputs, from the stored state, and the gradients."""
    rule, model = golden_rule(), reference()
    labels = FILE[f"step{step}/labels"]
    rows = Batch(
        jnp.asarray(FILE[f"step{step}/inputs"]),
        jnp.asarray(labels),
        jnp.asarray(labels > 0),
        jnp.zeros(SLOTS, jnp.int32),
        jnp.ones(SLOTS),
    )
    latents = Latents(*(jnp.asarray(own(step, f"z_{k}_in")) for k in "HL"))
    live = jnp.asarray(FILE[f"step{step}/chain_of_slot_in"] >= 0)
    counts = jnp.asarray(FILE[f"step{step}/step_count_in"], jnp.int32)
    clock = Clock(counts, 3, jnp.int32(0))
    keys = row_keys(jax.random.key(0), jnp.arange(SLOTS))

    def loss(params):
        bound = dataclasses.replace(model, params=params)
        state, outputs = rule.step(bound, rows, Chains(latents, live), keys, clock)
        losses = rule.loss(outputs, rows)
        return losses.total.mean(), (state, outputs, losses)

    (_, found), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(model.params)
    return rule, found, grads, live, counts


@pytest.mark.parametrize(
    "step", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in STEPS[1:-1]), 3]
)
def test_a_step_from_each_stored_state_agrees_with_the_golden_numbers(step):
    rule, (state, outputs, losses), grads, live, counts = golden_step(step)
    used = np.asarray(live)

    def close(found, name, atol=2e-4):
        expected = own(step, name)
        np.testing.assert_allclose(
            np.asarray(found)[used], expected[used], rtol=1e-4, atol=atol
        )

    # The file has every chain's own z_H, which the winner's then replaces.
    best = own(step, "z_H_out")[np.arange(SLOTS), outputs.winner]
    expected = np.broadcast_to(best[:, None], state.of_chain.y.shape)
    np.testing.assert_allclose(state.of_chain.y, expected, rtol=1e-4, atol=2e-4)
    close(state.of_chain.z, "z_L_out")
    of_chains = outputs.of_chains
    close(of_chains.logits.reshape(SLOTS, CHAINS, 16, 7), "logits")
    close(of_chains.q[:, 0].reshape(SLOTS, CHAINS), "chain_q_halt")
    places = FILE[f"step{step}/chain_of_slot_in"]
    winner = places[np.arange(SLOTS), outputs.winner]
    np.testing.assert_array_equal(winner, FILE[f"step{step}/winner_chain"])
    loss = FILE[f"step{step}/loss"]
    np.testing.assert_allclose(losses.total.mean(), loss, atol=2e-5)
    for name, grad in grads.items():
        key = f"step{step}/grads/{name}"
        if key in FILE:
            np.testing.assert_allclose(grad, FILE[key], atol=2e-4, err_msg=name)
    wants = rule.answer(outputs).wants_halt
    halted = halt(wants, counts + 1, jnp.zeros(SLOTS, jnp.int32), max_steps=3)
    assert halted.sum() == FILE[f"step{step}/num_halted"]
    left = FILE[f"step{step}/chain_of_slot_after_expunge"]
    goes_on = ~np.asarray(halted)
    np.testing.assert_array_equal(np.asarray(state.live)[goes_on], left[goes_on] >= 0)
    if step + 1 in STEPS:
        kept = goes_on[:, None] & (left >= 0)
        for name, found in zip("HL", state.of_chain, strict=True):
            expected = FILE[f"step{step + 1}/z_{name}_in"][left[kept]]
            found = np.asarray(found)[kept]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-4)


def test_starts_are_aligned_as_in_the_golden_numbers():
    before, after = (FILE[f"svd/L_init_{name}"] for name in ("before", "after"))
    kernel = jnp.asarray(FILE["weights/reasoning.0.mlp.up_proj.weight"].T)
    found = aligned(jnp.asarray(before), kernel, 10)
    np.testing.assert_allclose(found, after, atol=1e-4)
    np.testing.assert_array_equal(found[0], before[0])
    one_per_position = jnp.asarray(before)[:, None].repeat(3, 1)
    found = aligned(one_per_position, kernel, 10)
    np.testing.assert_allclose(found, after[:, None].repeat(3, 1), atol=1e-4)


@pytest.mark.parametrize("starts", ["published", "fixed", "anchored"])
def test_a_run_aligns_the_starts_of_z_alone(starts):
    def constants(rank):
        rule = {"wta": {"align_starts": rank}, "trm": {"starts": starts}}
        recipe = judge.recipe_of(tiny("wta", rule=rule))
        # Not compiled: two programs may round the same weights differently.
        state = init_train_state(recipe, jax.random.key(0), ROWS)
        return state.constants, state.params["net"]

    free, weights = constants(0)
    found, same = constants(3)
    chex.assert_trees_all_equal(weights, same)
    np.testing.assert_array_equal(found["y"], free["y"])
    (kernel,) = (v["gate_up"]["kernel"] for k, v in weights.items() if "swiglu" in k)
    np.testing.assert_array_equal(found["z"], aligned(free["z"], kernel, 3))
    assert (found["z"][1:] != free["z"][1:]).any()


@pytest.mark.parametrize(
    ("rank", "changes", "message"),
    [
        (3, {"rule": {"trm": {"starts": "random"}}}, "no start of z is drawn once"),
        (3, TOKEN_MLP, "the network 'net' has no SwiGLU"),
        (16, {}, "= 16; expected fewer than the 16 singular vectors"),
    ],
)
def test_starts_that_cannot_be_aligned_are_refused(rank, changes, message):
    rule = changes.get("rule", {}) | {"wta": {"align_starts": rank}}
    recipe = judge.recipe_of(tiny("wta", **changes | {"rule": rule}))
    with pytest.raises(ConfigError, match=f"rule.wta.align_starts.* {message}"):
        judge.first_model(recipe)


def world_of(inner, training=True, **settings):
    """Rule, bound model and the states of the rows before their first step."""
    recipe = judge.recipe_of(tiny("wta", rule={"wta": {"inner": inner} | settings}))
    model = judge.first_model(recipe)
    keys = row_keys(jax.random.key(3), jnp.arange(ROWS))
    rows = on_device(make_rows(0))
    first = partial(recipe.rule.start, model, training=training)
    start = jax.jit(first)(rows, keys)
    clock = Clock(jnp.zeros(ROWS, jnp.int32), 3, jnp.int32(0))
    return recipe.rule, model, (rows, start, keys, clock)


def test_an_evaluation_is_that_of_the_inner_rule_with_the_first_start():
    rule, model, args = world_of("trm", training=False)
    assert args[1].live.shape == (ROWS, 1)
    state, outputs = jax.jit(partial(rule.infer, model))(*args)
    constants = jax.tree.map(lambda leaf: leaf[0], model.constants)
    inner = dataclasses.replace(model, constants=constants)
    rows, _, keys, clock = args
    start = rule.inner.start(inner, rows, keys, training=False)
    infer = jax.jit(partial(rule.inner.infer, inner))
    expected, logits = infer(rows, start, keys, clock)
    np.testing.assert_allclose(state.y, expected.y, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        rule.answer(outputs).logits, logits.logits, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "copied",
    ["y", "none", *(pytest.param(c, marks=pytest.mark.slow) for c in ("z", "both"))],
)
def test_chains_take_over_what_is_copied_and_keep_the_rest(copied):
    rule, model, args = world_of("trm", copied=copied, chains=3)
    state, outputs = jax.jit(partial(rule.step, model))(*args)
    for name in ("y", "z"):
        value = np.asarray(getattr(state.of_chain, name))
        best = value[np.arange(ROWS), outputs.winner][:, None]
        is_same = np.array_equal(value, np.broadcast_to(best, value.shape))
        assert is_same == (copied in (name, "both")), name


def test_every_chain_draws_from_its_own_key_of_the_row(monkeypatch):
    rule, model, args = world_of("trm", chains=3)
    seen, step = [], TRM.step

    def record(self, model, rows, state, keys, *rest):
        seen.append(jax.random.key_data(keys).reshape(ROWS, 3, 2))
        return step(self, model, rows, state, keys, *rest)

    monkeypatch.setattr(TRM, "step", record)
    rule.step(model, *args)
    of_chain = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    for chain in range(3):
        expected = jax.random.key_data(of_chain(args[2], chain))
        np.testing.assert_array_equal(seen[0][:, chain], expected)


def test_a_row_that_has_lost_a_chain_never_picks_it():
    rule, model, (rows, start, keys, clock) = world_of("trm", chains=3)
    step = jax.jit(partial(rule.step, model))
    _, outputs = step(rows, start, keys, clock)
    live = start.live.at[jnp.arange(ROWS), outputs.winner].set(False)
    _, other = step(rows, start._replace(live=live), keys, clock)
    assert (other.winner != outputs.winner).all()
    metrics = rule.loss(other, rows).extra
    np.testing.assert_array_equal(metrics["live_chains"], 2)
    np.testing.assert_array_equal(metrics["first_wins"], other.winner == 0)


def test_equal_chains_are_expunged_down_to_one_unless_the_limit_is_one():
    for limit, left in ((0.95, [2, 1, 1]), (1.0, [3, 3, 3])):
        rule, model, args = world_of(
            "trm", chains=3, copied="both", expunge_above=limit
        )
        rows, state, keys, clock = args
        step = jax.jit(partial(rule.step, model))
        for count in left:
            state, _ = step(rows, state, keys, clock)
            np.testing.assert_array_equal(state.live.sum(1), count)


@pytest.mark.parametrize(
    ("wta", "begins"),
    [
        ({"inner": "wta"}, "rule.wta.inner = 'wta'; expected another rule"),
        ({"inner": "x"}, "rule.wta.inner = 'x'; expected one of"),
        *(
            ({"inner": inner, "copied": copied}, f"rule.wta.copied = {copied}; {ONE}")
            for inner in ("one_latent", "urm", "loop")
            for copied in ("y", "z", "both")
        ),
    ],
)
def test_what_does_not_fit_is_refused(wta, begins):
    with pytest.raises(ConfigError, match=begins):
        world_of(**wta)


INNER = [
    name if name in ("trm", "urm") else pytest.param(name, marks=pytest.mark.slow)
    for name in RULES
    if name != "wta"
]


@pytest.mark.parametrize("inner", INNER)
def test_chains_of_any_rule_share_y_and_keep_a_latent_of_their_own(inner):
    rule, model, args = world_of(inner, chains=3)
    # Nothing is an argument: a flow reads how many steps there will be.
    state, outputs = jax.jit(lambda: rule.step(model, *args))()
    assert np.isfinite(rule.loss(outputs, args[0]).total).all()
    latents = state.of_chain._asdict()
    shared = {
        name: bool((latents[name] == latents[name][:, :1]).all())
        for name in ("y", "z")
        if name in latents
    }
    expected = {"y": True, "z": False}
    assert shared == (expected if "y" in latents else {"z": False})


def test_a_latent_of_another_name_is_compared_as_z_is(monkeypatch):
    monkeypatch.setitem(RULES, "turns", Turns)  # it draws nothing: chains are equal
    rule, model, args = world_of("turns", chains=3)
    state, _ = jax.jit(lambda: rule.step(model, *args))()
    np.testing.assert_array_equal(state.live.sum(1), 2)


@pytest.mark.slow
def test_chains_and_another_optimiser_combine_on_the_command_line(
    monkeypatch, tmp_path
):
    run_commands_here(monkeypatch)
    changes = {"rule.name": "wta", "rule.wta.inner": "eqr", "optim.name": "muon"}
    flags = short_flags(**changes, **{"train.steps": 2, "train.log_every": 1})
    result = call_here(train.main, f"--workdir={tmp_path}", *flags)
    assert result.returncode == 0, result.stderr
    losses = [line["train/loss"] for line in metric_lines(tmp_path)]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["rule"]["name"], config["rule"]["wta"]["inner"]) == ("wta", "eqr")
    assert config["optim"]["name"] == "muon"
