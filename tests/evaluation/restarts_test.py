# SPDX-License-Identifier: Apache-2.0
"""Restarts keep to the starts of a rule that draws them, and the published searches."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.compiled_once import run_commands_here
from tests.helpers.runs import ROOT, call_here, short_flags
from tests.helpers.states import init_of
from tests.helpers.tiny import tiny_recipe
from trm_jax import api
from trm_jax.commands import eval as eval_command
from trm_jax.commands import train
from trm_jax.evaluation import evaluate
from trm_jax.evaluation.calls import draws_start
from trm_jax.evaluation.evaluate import stepper
from trm_jax.rules import make_rule
from trm_jax.training.supervision import empty_batch

ROWS = 4


@pytest.mark.parametrize(
    ("changes", "draws"),
    [
        ({}, False),
        ({"rule.trm.starts": "anchored"}, True),
        ({"rule.name": "hrm"}, False),
        ({"rule.name": "eqr"}, True),
        ({"rule.name": "eqr", "rule.eqr.starts": "fixed"}, False),
        ({"rule.name": "flow"}, True),
        ({"rule.name": "wta"}, False),
        ({"rule.name": "wta", "rule.wta.inner": "flow"}, True),
    ],
)
def test_a_rule_that_draws_its_starts_is_noticed(changes, draws):
    assert draws_start(tiny_recipe({"model.layers": ("swiglu",)} | changes)) == draws


@pytest.mark.parametrize("rule", [pytest.param("flow", marks=pytest.mark.slow), "eqr"])
def test_chains_of_a_row_differ_in_what_the_rule_draws_and_in_nothing_else(rule):
    recipe = tiny_recipe({"model.layers": ("swiglu",), "rule.name": rule})
    state = init_of(recipe, ROWS)(jax.random.key(0))
    weights = state.params, state.constants, state.puzzle_table
    chains = jnp.stack([jnp.zeros(ROWS, int), jnp.arange(ROWS)], axis=1)
    batch = empty_batch(recipe.model.config, ROWS)
    carry, _ = stepper(recipe, weights, batch, chains, 3, seed=0)
    plain, _ = stepper(recipe, weights, batch, chains[:, 0], 3, seed=0)
    drawn = {"flow": {"x", "times"}, "eqr": {"y", "z"}}[rule]
    for name, leaf in carry.state._asdict().items():
        np.testing.assert_array_equal(leaf[0], getattr(plain.state, name)[0])
        same = [np.array_equal(leaf[0], other) for other in leaf[1:]]
        assert same == [name not in drawn] * 3, name


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["flow", "trm"])
def test_only_rules_that_draw_no_starts_get_random_latents(rule, tmp_path, monkeypatch):
    run_commands_here(monkeypatch)
    flags = short_flags(**{"train.steps": 2, "rule.name": rule})
    result = call_here(train.main, f"--workdir={tmp_path}", *flags)
    assert result.returncode == 0, result.stderr
    seen, explored = [], evaluate.explored

    def record(chains, *args):
        seen.append(chains)
        return explored(chains, *args)

    monkeypatch.setattr(evaluate, "explored", record)
    line = f"--workdir={tmp_path}", "--puzzles=4", "--supervision_steps=2"
    search = "--search=restarts", "--budget=1000"
    result = call_here(eval_command.main, *line, *search)
    assert result.returncode == 0, result.stderr
    assert [chains.random_starts for chains in seen] == [True] * (rule == "trm")
    (report,) = (tmp_path / "eval").glob("search_*.json")
    points = json.loads(report.read_text())["points"]
    assert {point["search"] for point in points} == {"plain", "restarts"}
    result = call_here(eval_command.main, *line, "--refill=0.5")
    assert result.returncode == (2 if rule == "flow" else 0)
    assert ("samples in a fixed number" in result.stderr) == (rule == "flow")
    assert not [*(tmp_path / "eval").rglob("about.json")]


ROW = re.compile(r"^\| `(\S+)`.*\| (\d+) \| (\d+) \| `(.+)` \|", re.MULTILINE)


def test_the_budgets_of_the_published_searches_are_their_network_calls():
    rows = ROW.findall((ROOT / "docs" / "search.md").read_text())
    assert len(rows) >= 8
    for name, steps, chains, flags in rows:
        config = api.get_config(name)
        calls = len(make_rule(config.rule.to_dict()).calls())
        given = dict(flag.removeprefix("--").split("=") for flag in flags.split())
        assert int(given["budget"]) == int(steps) * int(chains) * calls, name
        own = config.eval.supervision_steps or config.halting.max_supervision_steps
        assert int(given.get("supervision_steps", own)) == int(steps), name
        assert given["search"] in ("restarts", "noise", "guided")
