# SPDX-License-Identifier: Apache-2.0
"""trm_jax.commands.adapt: test-time training on new ARC tasks."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from tests.commands.vote_cli_test import ARC, NUM_FORMS
from tests.helpers.runs import ROOT, as_flags, call_here, digest, metric_lines
from trm_jax import api
from trm_jax.commands import adapt, train
from trm_jax.errors import EXIT_OK, EXIT_STOPPED, EXIT_WRONG_INPUT
from trm_jax.loading import open_weights
from trm_jax.training.optim import ema_update

pytestmark = pytest.mark.usefixtures("commands_here")

DATA = ROOT / "tests" / "data_pipeline" / "bad" / "arc_ok"
SHORT = {
    "optim.table_only_steps": 2,
    "optim.warmup_steps": 0,
    "train.steps": 4,
    "train.checkpoint_every": 1,
    "train.keep_checkpoints": 9,
    "data.num_augmentations": 3,
}
FLAGS = [f"--config.{key}={value}" for key, value in SHORT.items()]


def adapted(weights, folder, *flags, data=DATA):
    given = [f"--data={data}", f"--workdir={folder}", "--subset=training"]
    return call_here(adapt.main, weights, *given, *FLAGS, *flags)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A run on two of the three tasks, so that one is new."""
    folder = tmp_path_factory.mktemp("arc") / "run"
    flags = as_flags("configs/arc_small.py", **ARC | {"data.test_puzzles": 2})
    result = call_here(train.main, f"--workdir={folder}", *flags)
    assert result.returncode == EXIT_OK, result.stderr
    return folder


@pytest.fixture(scope="module")
def straight(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted") / "run"
    result = adapted(weights, folder)
    assert result.returncode == EXIT_OK, result.stderr
    return folder


def of(folder, step, kind="raw"):
    bundle = open_weights(folder, step=step, weights=kind)
    tensors = {name: tensor.read() for name, tensor in bundle.tensors.items()}
    return tensors, tensors.pop("puzzle_table")


@pytest.mark.slow
def test_the_table_begins_at_its_mean_and_trains_alone_at_first(weights, straight):
    trained, rows = of(weights, 6, "ema")
    first, table = of(straight, 1)
    assert len(rows) == 1 + 2 * NUM_FORMS
    assert len(table) == 1 + 3 * (1 + SHORT["data.num_augmentations"])
    mean = rows.mean(0, dtype=np.float64).astype(np.float32)
    new = (table == mean).all(axis=1)
    assert 0 < new.sum() < len(table)
    for tensors in (first, of(straight, 2)[0]):
        for path, leaf in trained.items():
            np.testing.assert_array_equal(tensors[path], leaf)
    after, _ = of(straight, 3)
    changed = {p for p, leaf in trained.items() if (after[p] != leaf).any()}
    assert changed == {p for p in trained if p.startswith("params")}


def test_the_average_that_answers_is_what_the_default_run_trained():
    changes = adapt.changes("folder", "evaluation")
    decay, ramp = 0.999, changes["optim.ema_ramp"]
    first, last = changes["optim.table_only_steps"] + 1, changes["train.steps"]
    old = jnp.ones(())  # the share of the weights before the network's first update
    for step in range(first, last + 1):
        step = jnp.array(step)
        old = ema_update(old, jnp.zeros(()), step, decay=decay, ramp=ramp)
    assert old < 0.003


def test_schedules_of_a_rule_stay_where_they_ended():
    flow = api.get_config("arc_agi_2:flow+cgar").rule.flow
    found = flow.to_dict() | adapt.ended(flow)
    expected = {"phase_ends": (), "phase_h_cycles": (), "phase_l_cycles": ()}
    assert found == flow.to_dict() | expected | {"pseudo_steps": 1}
    trm = {"grad_cycles": 1, "grow_cycles_to": 3, "grow_updates": 9, "starts": "fixed"}
    grown = {"grad_cycles": 3, "grow_cycles_to": 0, "grow_updates": 0}
    assert trm | adapt.ended(trm) == trm | grown
    hrm = api.get_config().rule.hrm
    assert hrm.to_dict() | adapt.ended(hrm) == hrm.to_dict()


@pytest.mark.slow
def test_it_answers_every_new_task(straight):
    report = json.loads((straight / "eval" / "step_4-votes_0.json").read_text())
    assert report["tasks"] == 3
    assert report["votes"] == 0
    assert "pass@2" in {f"pass@{k}" for k in report["pass_at"]}
    names = json.loads((DATA / "arc-agi_training_challenges.json").read_text())
    submission = straight / "eval" / "submission_4-votes_0.json"
    assert json.loads(submission.read_text()).keys() == names.keys()


@pytest.mark.slow
def test_minutes_end_the_training_and_a_second_call_goes_on(
    weights, straight, tmp_path
):
    folder = tmp_path / "run"
    result = adapted(weights, folder, "--minutes=0")
    assert result.returncode == EXIT_OK, result.stderr
    assert "--minutes=0 are over" in result.stdout
    assert (folder / "eval" / "step_0-votes_0.json").exists()
    assert digest(folder)[0] == 0
    assert adapted(weights, folder).returncode == EXIT_OK
    assert digest(folder) == digest(straight)
    assert metric_lines(folder) == metric_lines(straight)


@pytest.mark.slow
def test_a_signal_stops_it_before_the_evaluation(weights, tmp_path, monkeypatch):
    class Interrupted:
        def __enter__(self):
            return lambda: True

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(adapt, "interrupts", Interrupted)
    assert adapted(weights, tmp_path / "run").returncode == EXIT_STOPPED
    assert not (tmp_path / "run" / "eval").exists()


@pytest.mark.slow
def test_tasks_without_answers_get_a_submission_alone(weights, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(DATA / "arc-agi_training_challenges.json", data)
    result = adapted(weights, tmp_path / "run", data=data)
    assert result.returncode == EXIT_OK, result.stderr
    assert (tmp_path / "run" / "eval" / "submission_4-votes_0.json").exists()


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--data=x", "--workdir=y"], ["WEIGHTS is missing"]),
        (["sudoku_6x6", "--data=x"], ["--workdir=FOLDER is missing"]),
        (["sudoku_6x6", "--workdir=y"], ["--data=FOLDER is missing"]),
        (["nowhere", "--data=x", "--workdir=y"], ["nowhere"]),
        (
            ["sudoku_6x6", "--data=x", "--workdir=y"],
            ["sudoku_6x6", "data.task = 'sudoku'", "expected 'arc'"],
        ),
        (["w", "--data=x", "--workdir=y", "--minutes=-1"], ["minutes"]),
    ],
)
def test_wrong_arguments_are_one_error(argv, named):
    result = call_here(adapt.main, *argv)
    assert result.returncode == EXIT_WRONG_INPUT
    assert result.stderr.count("\n") == 1
    assert [word for word in named if word not in result.stderr] == []
