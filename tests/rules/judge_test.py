# SPDX-License-Identifier: Apache-2.0
"""Tests of all registered rules, of two in tests/helpers, and of variants of some."""

import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.dtypes import float0

from tests.helpers.compiled_once import share_compilations
from tests.helpers.rules.pair import Pair
from tests.helpers.rules.turns import Turns, TurnsOutputs
from tests.rules import judge
from tests.rules.judge import ROWS, begun, make_rows, one_step, take, tiny
from tests.rules.variants import VARIANTS
from trm_jax import api
from trm_jax.rules import RULES
from trm_jax.rules.base import Clock
from trm_jax.training.cost import step_flops
from trm_jax.training.digest import state_digest
from trm_jax.training.supervision import bind

OWN = {"turns": Turns, "pair": Pair} | VARIANTS


# `make slow` judges the other rules, which have tests of their own here.
PARAMS = [
    name if name == "trm" else pytest.param(name, marks=pytest.mark.slow)
    for name in (*RULES, *OWN)
]


@pytest.fixture(scope="module", params=PARAMS)
def rule(request):
    with pytest.MonkeyPatch.context() as patch:
        for name, kind in OWN.items():
            patch.setitem(RULES, name, kind)
        yield request.param
    judge.forget()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_state_leaves_are_batch_first_and_keep_shape_and_dtype(rule, dtype):
    recipe = judge.recipe_of(tiny(rule, model={"dtype": dtype}))
    world = begun(rule)._replace(recipe=recipe)
    carry = judge.first_carry(world)
    after, _ = jax.eval_shape(lambda: one_step(world, carry))
    chex.assert_trees_all_equal_shapes_and_dtypes(carry, after)
    leaves = jax.tree.leaves(carry.state)
    assert leaves
    assert all(leaf.shape[0] == ROWS for leaf in leaves)


def test_losses_and_gradients_are_finite_and_reach_every_parameter(rule):
    world = begun(rule)
    args = world.state.params, judge.vectors_of(world), world.carry.state
    loss = jax.value_and_grad(judge.total_loss, argnums=(1, 2, 3), allow_int=True)
    value, (grads, vectors, first) = jax.jit(lambda *a: loss(world, *a))(*args)
    assert np.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, vectors)))
    unused = set() if rule in judge.CONTINUE else judge.NO_CONTINUE
    assert judge.silent_outputs(grads) == unused
    assert (vectors != 0).any(-1)[world.carry.halted].all()
    # The incoming state is data: the loss of a step does not train the previous step.
    floats = [leaf for leaf in jax.tree.leaves(first) if leaf.dtype != float0]
    assert floats
    assert not any(leaf.any() for leaf in floats)


class Idle(Turns):
    """A rule that predicts from the incoming state and stops no gradient itself."""

    def step(self, model, rows, state, keys, clock, keep=None):
        logits, q = model.predict(state.h)
        return state, TurnsOutputs(logits[None], q[None], None)


def test_the_target_of_pair_is_a_second_pass_of_the_same_weights_as_data(monkeypatch):
    monkeypatch.setitem(RULES, "pair", Pair)
    world = begun("pair")
    rule, carry = world.recipe.rule, world.carry
    clock = Clock(jnp.arange(ROWS) % 3, 3, jnp.int32(0))

    def targets(params, vectors):
        model = bind(rule, world.recipe.model, params, world.state.constants, vectors)
        state, outputs = rule.step(model, carry.batch, carry.state, world.keys, clock)
        _, later = rule.infer(model, carry.batch, state, world.keys, clock)
        best = jnp.where(clock.step == 2, later.q[:, 0], later.q.max(-1))
        return outputs.q_target.sum(), (outputs.q_target, jax.nn.sigmoid(best))

    slopes = jax.grad(targets, argnums=(0, 1), has_aux=True)
    args = world.state.params, judge.vectors_of(world)
    slopes, (found, expected) = jax.jit(slopes)(*args)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    chex.assert_trees_all_equal(slopes, jax.tree.map(jnp.zeros_like, slopes))


def test_the_seed_of_an_evaluation_decides_its_draws(monkeypatch):
    monkeypatch.setitem(RULES, "pair", Pair)
    name = judge.register_draws("pair", monkeypatch)
    (part,) = split_rows()["at once"]
    first, other = (
        judge.drawn_in_evaluation(tiny(name), seed)([part]) for seed in (0, 1)
    )
    for ours, theirs in zip(first, other, strict=True):
        assert (ours.key != theirs.key).any(-1).all()


def test_no_gradient_crosses_the_start_whatever_the_rule(monkeypatch):
    monkeypatch.setitem(RULES, "turns", Turns)
    world = begun("turns")
    world = world._replace(recipe=world.recipe._replace(rule=Idle()))
    args = world.state.params, judge.vectors_of(world), world.carry.state
    loss = jax.grad(judge.total_loss, argnums=(1, 2))
    grads, vectors = jax.jit(lambda *a: loss(world, *a))(*args)
    assert (grads["head"]["kernel"] != 0).any()
    np.testing.assert_array_equal(grads["embed_tokens"], 0)
    np.testing.assert_array_equal(vectors, 0)


def test_keeping_changes_no_bit_and_ends_with_the_state(rule):
    world = begun(rule)
    plain = jax.jit(lambda: one_step(world, world.carry))()
    carry, outputs = jax.jit(
        lambda: one_step(world, world.carry, keep=lambda state: state)
    )()
    assert jax.tree.leaves(plain[1].kept) == []
    chex.assert_trees_all_equal(outputs._replace(kept=plain[1].kept), plain[1])
    chex.assert_trees_all_equal(carry, plain[0])
    lengths = {len(leaf) for leaf in jax.tree.leaves(outputs.kept)}
    assert len(lengths) == 1
    assert lengths.pop() > 1
    last = jax.tree.map(lambda leaf: leaf[-1], outputs.kept)
    chex.assert_trees_all_equal(last, carry.state)


def test_a_run_resumed_after_three_steps_ends_the_same_to_the_bit(
    rule, tmp_path, monkeypatch
):
    share_compilations(monkeypatch)
    config = tiny(rule, train={"checkpoint_every": 3})
    whole = state_digest(api.run(config, tmp_path))
    shutil.rmtree(tmp_path / "checkpoints" / "6")
    resumed = api.run(config, tmp_path)
    assert int(resumed.step) == 6
    assert state_digest(resumed) == whole
    runs = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert [json.loads(run)["from_step"] for run in runs] == [0, 3]
    *_, last = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert {f"train/{name}" for name in begun(rule).recipe.rule.metrics} <= json.loads(
        last
    ).keys()


SPLITS = {
    "two devices": {"mesh": {"data": 2}},
    "shared weights, two parts": {"mesh": {"fsdp": 2}, "train": {"micro_batches": 2}},
}


@pytest.mark.parametrize(
    "how",
    [pytest.param("two devices", marks=pytest.mark.slow), "shared weights, two parts"],
)
def test_a_step_is_the_same_on_two_devices_and_in_parts(rule, how):
    batches = [make_rows(0), make_rows(1)]
    expected = judge.trained(tiny(rule), batches)
    found = judge.trained(tiny(rule, **SPLITS[how]), batches)
    for ours, theirs in zip(found, expected, strict=True):
        for part in ("carry", "metrics", "params", "puzzle_table"):
            pair = getattr(ours, part), getattr(theirs, part)
            chex.assert_trees_all_close(*pair, rtol=1e-3, atol=1e-4)


def test_a_row_draws_the_same_on_two_devices_and_in_parts(rule, monkeypatch):
    name = judge.register_draws(rule, monkeypatch)
    still = {"optim": {"lr": 0.0, "table_lr": 0.0}, "halting": {"explore_rate": 0.5}}
    batches = [make_rows(seed) for seed in range(4)]

    def carries(**changes):
        states = judge.trained(tiny(name, **still, **changes), batches)
        return [state.carry for state in states]

    expected = carries()
    keys = np.concatenate([carry.state.key for carry in expected])
    assert len(np.unique(keys, axis=0)) == 4 * ROWS
    halted = np.stack([carry.halted for carry in expected])
    assert (halted != halted[:, :1]).any()
    split = SPLITS["shared weights, two parts"]
    chex.assert_trees_all_equal(carries(**split), expected)


def split_rows():
    """The same rows at once, in another order, and in two parts."""
    batch, numbers = make_rows(3), np.arange(ROWS, dtype=np.int32)
    order = np.random.default_rng(0).permutation(ROWS)
    parts = [np.arange(0, 4), np.arange(4, 8)]
    return {
        "at once": [(batch, numbers)],
        "in another order": [(take(batch, order), numbers[order])],
        "in two parts": [(take(batch, part), numbers[part]) for part in parts],
    }


def test_evaluation_does_not_depend_on_batches_or_order(rule):
    whole, *others = split_rows().values()
    expected = judge.evaluated(rule, whole)
    for parts in others:
        found = judge.evaluated(rule, parts)
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


def test_evaluation_draws_by_row_number_only(rule, monkeypatch):
    name = judge.register_draws(rule, monkeypatch)
    whole, *others = split_rows().values()
    drawn = judge.drawn_in_evaluation(tiny(name))
    expected = drawn(whole)
    keys = np.concatenate([state.key for state in expected])
    assert len(np.unique(keys, axis=0)) == 2 * ROWS
    for parts in others:
        chex.assert_trees_all_equal(drawn(parts), expected)
    elsewhere = judge.drawn_in_evaluation(tiny(name, mesh={"data": 2}))
    chex.assert_trees_all_equal(elsewhere(whole), expected)


def test_evaluation_does_not_see_labels(rule):
    ((batch, numbers),) = split_rows()["at once"]
    other = batch._replace(labels=batch.labels % 5 + 1)
    seen = judge.evaluated(rule, [(batch, numbers)])
    found = judge.evaluated(rule, [(other, numbers)])
    assert (found.cell_loss != seen.cell_loss).any()
    np.testing.assert_array_equal(found.predictions, seen.predictions)
    np.testing.assert_array_equal(found.q_halt, seen.q_halt)


def test_its_cost_is_counted_without_rematerialisation(rule):
    config = tiny(rule)
    cost = step_flops(judge.recipe_of(config), ROWS)
    assert cost > 0
    if "remat" in config["rule"][rule]:
        config["rule"][rule]["remat"] = "full"
        assert step_flops(judge.recipe_of(config), ROWS) == cost
