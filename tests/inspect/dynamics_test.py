# SPDX-License-Identifier: Apache-2.0
"""Tests of the loop monitor: stored numbers, verdicts, and a trained run."""

import json
import shutil
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.errors import DataError
from tests.helpers.rules.turns import Turns
from tests.helpers.runs import call, edit_config, metric_lines
from tests.rules import judge
from trm_jax.errors import ConfigError
from trm_jax.inspect import dynamics, loop_measures
from trm_jax.inspect.loop_measures import (
    answer_measures,
    effective_rank,
    entropy,
    motion_measures,
    state_measures,
    verdict,
)
from trm_jax.inspect.opened import first_puzzles, opened
from trm_jax.rules import RULES
from trm_jax.runtime import workdir
from trm_jax.types import Batch

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "recursive_loop.npz")
STATE = {
    "norm": "norm_rms",
    "input_cosine": "cross_input_cosine_per_position",
    "input_cosine_pooled": "cross_input_cosine_pooled",
    "token_cosine": "token_cosine",
    "effective_rank": "effective_rank",
}
CURVES = {
    "exact": "exact",
    "entropy": "entropy",
    "input_cosine": "cross_input_cosine",
    "effective_rank": "effective_rank",
    "motion": "motion",
}


def test_the_measures_of_every_loop_are_the_stored_ones():
    for k, z in enumerate(GOLDEN["z"]):
        found = state_measures(z)
        assert set(found) == set(STATE)
        for name, stored in STATE.items():
            np.testing.assert_allclose(found[name], GOLDEN[stored][k], rtol=1e-6)


def test_motion_and_cosine_between_loops_are_the_stored_ones():
    z = GOLDEN["z"]
    for k in range(len(z) - 1):
        found = motion_measures(z[k], z[k + 1])
        np.testing.assert_allclose(
            found["motion"], GOLDEN["relative_motion"][k], rtol=1e-9
        )
        np.testing.assert_allclose(
            found["cosine"], GOLDEN["cosine_successive"][k], rtol=1e-9
        )


@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
def test_entropy_and_accuracies_are_the_stored_ones(loss):
    for k, logits in enumerate(GOLDEN["logits"]):
        found = answer_measures(logits, GOLDEN["labels"], GOLDEN["mask"], loss=loss)
        stored = GOLDEN[f"entropy_{loss}"][k]
        np.testing.assert_allclose(found["entropy"], stored, rtol=1e-9)
        np.testing.assert_allclose(found["exact"], GOLDEN["exact"][k], rtol=1e-12)
        cells = GOLDEN["cell_accuracy"][k]
        np.testing.assert_allclose(found["cell_accuracy"], cells, rtol=1e-12)


def test_extreme_inputs_have_finite_measures():
    rank = effective_rank(GOLDEN["corner/identity"])
    np.testing.assert_allclose(rank, GOLDEN["corner/identity_rank"], rtol=1e-9)
    rank = effective_rank(GOLDEN["corner/rank_one"])
    np.testing.assert_allclose(rank, GOLDEN["corner/rank_one_rank"], rtol=1e-5)
    found = entropy(GOLDEN["corner/huge_logits"], loss="softmax")
    np.testing.assert_allclose(found, GOLDEN["corner/huge_logits_entropy"], atol=1e-9)
    uniform = entropy(np.zeros((1, 7)), loss="stablemax")
    np.testing.assert_allclose(uniform, GOLDEN["corner/uniform_entropy"], rtol=1e-9)
    zeros = np.zeros((2, 3, 4), np.float32)
    everything = state_measures(zeros) | motion_measures(zeros, zeros)
    assert np.isfinite(list(everything.values())).all()


def curves_of(name):
    return {ours: GOLDEN[f"curves/{name}/{stored}"] for ours, stored in CURVES.items()}


@pytest.mark.parametrize("name", ["static", "settled", "drift"])
def test_the_stored_curves_have_the_verdict_of_their_name(name):
    found = verdict(curves_of(name))
    assert found["verdict"] == name
    assert found["best_loop"] == 1 + GOLDEN[f"curves/{name}/best_loop"]
    np.testing.assert_allclose(found["overthink"], GOLDEN[f"curves/{name}/overthink"])


def test_each_condition_of_a_verdict_decides():
    static = curves_of("static")
    apart = static | {
        "input_cosine": np.full(6, 0.2),
        "effective_rank": np.full(6, 20.0),
    }
    assert verdict(apart)["verdict"] == "drift"
    flat = apart | {"effective_rank": static["effective_rank"]}
    assert verdict(flat)["verdict"] == "static"
    falling = static | {"entropy": static["entropy"][::-1]}
    assert verdict(falling)["verdict"] == "undecided"
    half_lost = static | {"exact": np.array([0.1, 0.5, 0.9, 0.8, 0.7, 0.6])}
    assert verdict(half_lost)["verdict"] == "undecided"
    settled = curves_of("settled")
    moving = settled | {"motion": settled["motion"] + 0.01}
    assert verdict(moving)["verdict"] == "undecided"
    worse = settled | {"exact": np.array([0.1, 0.5, 0.8, 0.9, 0.9, 0.88])}
    assert verdict(worse)["verdict"] == "undecided"
    never = static | {"exact": np.zeros(6)}
    assert verdict(never)["verdict"] == "undecided"


def test_a_run_is_measured_as_its_evaluation_scored_it(run):
    found = dynamics.report(run, loops=6)
    assert found["step"] == 20
    assert found["rows"] == 8
    assert found["training_loops"] == 4
    assert [one["loop"] for one in found["loops"]] == [1, 2, 3, 4, 5, 6]
    scored = [line for line in metric_lines(run) if "eval/exact_accuracy" in line][-1]
    assert scored["step"] == 20
    fourth = found["loops"][3]
    np.testing.assert_allclose(fourth["exact"], scored["eval/exact_accuracy"])
    np.testing.assert_allclose(
        fourth["cell_accuracy"], scored["eval/cell_accuracy"], rtol=1e-6
    )
    assert found["thresholds"] == loop_measures.THRESHOLDS
    assert "motion" not in found["loops"][0]
    assert all(0.01 < one["motion"] < 3 for one in found["loops"][1:])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("loop", "wta") else pytest.mark.slow)
        for name in (*RULES, "turns")
    ],
)
def test_the_latents_of_every_rule_are_those_that_its_heads_read(name, monkeypatch):
    monkeypatch.setitem(RULES, "turns", Turns)
    recipe, rows = (
        judge.recipe_of(judge.tiny(name)),
        judge.on_device(judge.make_rows(0)),
    )
    state = judge.on_device(judge.first_state(name))
    weights = state.params, state.constants, state.puzzle_table
    states = dynamics.loop_states(recipe, weights, [rows], loops=1, seed=0)
    ((latents, logits),) = states
    assert latents.shape == (judge.ROWS, recipe.model.config.seq_len, 16)
    heads = jax.jit(partial(recipe.model.apply, method="predict"))
    expected, _ = heads({"params": state.params}, jnp.asarray(latents))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_the_entropy_of_chains_is_that_of_their_rule():
    rule = {"name": "wta", "wta": {"inner": "trm"}, "trm": {"cell_loss": "stablemax"}}
    for loss in ("stablemax", "softmax"):
        rule["trm"]["cell_loss"] = loss
        recipe = judge.recipe_of(judge.tiny("wta", rule=rule))
        assert dynamics.cell_loss(recipe.rule) == loss


def test_the_gates_of_a_lifeline_are_reported():
    assert dynamics.gates({"net": {}}) == {}
    found = dynamics.gates({"rule": {"lifeline": np.array([0.0, np.log(3.0)])}})
    assert found == {"gates": {"least": 0.5, "most": pytest.approx(0.75)}}


def test_batches_and_their_padding_change_no_measure(run):
    whole = dynamics.report(run, loops=2)
    config, identity = workdir.read_run(run)
    config = config | {"eval": config["eval"] | {"batch_size": 3}}
    with opened(run, rows=8) as found:
        test = workdir.read_test_set("", config, identity)
        batches = [Batch(**fields) for fields, _ in first_puzzles(config, test, 8)]
        assert [len(batch.weight) for batch in batches] == [3, 3, 3]
        parts = dynamics.measure(found.built.recipe, found.weights, batches, loops=2)
    for one, other in zip(whole["loops"], parts, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_a_test_set_that_has_changed_is_refused(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    edit_config(folder, lambda config: config["data"].update(seed=5))
    problem = r"has changed since the run began; .*run/dataset.json records other"
    with pytest.raises(DataError, match=problem):
        dynamics.report(folder, loops=2, rows=4)


def test_a_single_puzzle_is_refused(run):
    with pytest.raises(ConfigError, match="fewer than 2 puzzles"):
        dynamics.report(run, rows=1)


@pytest.mark.slow
def test_the_command_writes_numbers_and_figure_and_names_what_is_wrong(run, tmp_path):
    pytest.importorskip("matplotlib")
    done = call(
        *("-m", "trm_jax.inspect.dynamics", run, "--loops=3", f"--out={tmp_path}")
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "step_20.json").read_text())
    assert len(written["loops"]) == 3
    assert written["verdict"] in done.stdout
    assert "thresholds: collapsed_exact 0.5" in done.stdout
    assert (tmp_path / "step_20.png").read_bytes()[:4] == b"\x89PNG"
    for flags, text in (
        ([tmp_path / "none"], "none"),
        ([run, "--loops=1"], "--loops = 1"),
        ([run, "--step=7"], "7"),
    ):
        failed = call("-m", "trm_jax.inspect.dynamics", *flags)
        assert failed.returncode == 2
        assert text in failed.stderr.splitlines()[-1]
        assert "Traceback" not in failed.stderr
