# SPDX-License-Identifier: Apache-2.0
"""A run that was stopped or killed ends where the unbroken one does, to the bit."""

import json
import random
import subprocess
import time

import pytest

from data_pipeline.questions import Questions
from tests.helpers.compiled_once import run_commands_here
from tests.helpers.runs import (
    call_here,
    command,
    digest,
    metric_lines,
    short_config,
    short_flags,
)
from trm_jax.commands import stop_signal, train
from trm_jax.errors import EXIT_STOPPED

STEPS = 16


SLOW = pytest.mark.slow


@pytest.fixture(params=["attention", pytest.param("token_mlp", marks=SLOW)])
def mixer(request):
    return request.param


@pytest.fixture(autouse=True)
def commands_here(monkeypatch):
    run_commands_here(monkeypatch)


@pytest.fixture
def variant(mixer):
    by_mixer = {"attention": "attention", "token_mlp": "mlp_t", "mamba2": "mamba2_attn"}
    return by_mixer[mixer]


@pytest.fixture
def stop_after(monkeypatch):
    """Make the next run stop when its stop request has been read `count` times."""

    def set_count(count):
        def request():
            nonlocal count
            count -= 1
            return count < 0

        monkeypatch.setattr(stop_signal, "StopSignal", lambda: request)

    set_count(10**9)
    return set_count


UNBROKEN = {}


@pytest.fixture
def unbroken(variant, tmp_path_factory, stop_after):
    if variant not in UNBROKEN:
        folder = tmp_path_factory.mktemp("unbroken")
        assert train.train(short_config(variant, steps=STEPS), str(folder)) == 0
        UNBROKEN[variant] = folder
    return UNBROKEN[variant]


def assert_same_run(folder, unbroken):
    assert digest(folder) == digest(unbroken)
    assert digest(folder)[0] == STEPS
    assert metric_lines(folder) == metric_lines(unbroken)


@pytest.mark.parametrize(
    "mixer",
    [
        "attention",
        pytest.param("token_mlp", marks=SLOW),
        pytest.param("mamba2", marks=SLOW),
    ],
)
def test_two_halves_equal_the_whole(variant, tmp_path, unbroken):
    folder = tmp_path / "halves"
    for steps in (STEPS // 2, STEPS):
        assert train.train(short_config(variant, steps=steps), str(folder)) == 0
    # A run always logs and evaluates its last step: the first half does so at step 8,
    # which is an ordinary step of the whole run.
    assert digest(folder) == digest(unbroken)
    assert [r for r in metric_lines(folder) if r["step"] > 9] == [
        r for r in metric_lines(unbroken) if r["step"] > 9
    ]


@pytest.mark.parametrize(
    "count", [0, 9, *(pytest.param(count, marks=SLOW) for count in (1, 4, 13))]
)
def test_a_stop_anywhere_resumes_exactly(
    variant, tmp_path, unbroken, stop_after, count
):
    # The counts fall on a fresh start, between log lines, in evaluations and on saves.
    folder, config = tmp_path / "stopped", short_config(variant, steps=STEPS)
    stop_after(count)
    assert train.train(config, str(folder)) == EXIT_STOPPED
    stop_after(10**9)
    assert train.train(config, str(folder)) == 0
    assert_same_run(folder, unbroken)


def test_a_stop_in_the_last_evaluation_is_no_end(
    variant, tmp_path, unbroken, monkeypatch
):
    folder, config = tmp_path / "stopped", short_config(variant, steps=STEPS)
    evaluations = []  # after steps 8 and 16: the stop comes in the second
    batches = Questions.batches

    def counted(*args, **kwargs):
        evaluations.append(args)
        return batches(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Questions, "batches", counted)
        patch.setattr(stop_signal, "StopSignal", lambda: lambda: len(evaluations) == 2)
        assert train.train(config, str(folder)) == EXIT_STOPPED
    assert metric_lines(folder)[-1]["step"] < STEPS
    assert train.train(config, str(folder)) == 0
    assert_same_run(folder, unbroken)


@pytest.mark.slow
def test_muon_and_a_curriculum_resume_exactly_across_a_phase(tmp_path, stop_after):
    config = short_config("attention", steps=STEPS)
    config.optim.name, config.optim.clip_norm = "muon", 0.5
    config.halting.step_decay = 0.7
    growth = {"phase_h_cycles": (1, 1), "phase_l_cycles": (1, 2)}
    config.rule.trm.update(growth, phase_ends=(0.4, 0.6))  # after updates 6 and 10
    assert train.train(config, str(tmp_path / "whole")) == 0
    folder = tmp_path / "stopped"
    for count in (5, 6):
        stop_after(count)
        assert train.train(config, str(folder)) == EXIT_STOPPED
    stop_after(10**9)
    assert train.train(config, str(folder)) == 0
    assert_same_run(folder, tmp_path / "whole")
    flops = {r["step"]: r["train/flops"] for r in metric_lines(folder)}
    steps = [flops[6] / 6, (flops[9] - flops[6]) / 3, (flops[15] - flops[12]) / 3]
    assert steps[0] == flops[3] / 3
    assert steps[0] < steps[1] < steps[2]


@pytest.mark.slow
def test_many_stops_resume_exactly(variant, tmp_path, unbroken, stop_after):
    folder, config = tmp_path / "stopped", short_config(variant, steps=STEPS)
    codes = []
    while not codes or codes[-1] != 0:
        stop_after(3)
        codes.append(train.train(config, str(folder)))
        assert len(codes) < 40
    assert codes[-2] == EXIT_STOPPED
    assert len(codes) > 4
    assert_same_run(folder, unbroken)


def test_each_logged_step_stands_once_in_order(unbroken):
    steps = [r["step"] for r in metric_lines(unbroken)]
    assert steps == [3, 6, 8, 9, 12, 15, 16]
    evaluated = [r["step"] for r in metric_lines(unbroken) if "eval/cell_loss" in r]
    assert evaluated == [8, 16]


def kill_one(folder, flags, *, lines, rng):
    """Start or continue the run; kill -9 it at random within `lines` log lines."""
    process = subprocess.Popen(
        command("train.py", f"--workdir={folder}", *flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen = []
    try:
        wanted = rng.randint(1, lines)
        for line in process.stdout:
            seen.append(line)
            wanted -= line.startswith("step ")
            if not wanted:
                break
        assert not wanted, "ended before its kill\n" + "".join(seen)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == -9


def assert_survives_kills(tmp_path, kills, steps):
    overrides = {
        "train.steps": steps,
        "train.log_every": 7,
        "train.eval_every": steps // 3,
        "train.checkpoint_every": 10,
    }
    flags = short_flags(**overrides)
    unbroken, folder = tmp_path / "unbroken", tmp_path / "killed"
    lines = int(0.4 * steps / overrides["train.log_every"] / kills)
    rng = random.Random(0)
    for _ in range(kills):
        kill_one(folder, flags, lines=lines, rng=rng)
    for each in (unbroken, folder):
        result = call_here(train.main, f"--workdir={each}", *flags)
        assert result.returncode == 0, result.stderr
    assert digest(folder) == digest(unbroken)
    assert metric_lines(folder) == metric_lines(unbroken)
    runs = [json.loads(r) for r in (folder / "runs.jsonl").read_text().splitlines()]
    starts = [run["from_step"] for run in runs]
    assert len(starts) == kills + 1
    assert starts == sorted(starts)
    if kills > 9:
        assert len(set(starts)) > kills / 2  # most runs made progress


def test_kill_9_loses_nothing(tmp_path):
    assert_survives_kills(tmp_path, kills=1, steps=60)


@pytest.mark.slow
def test_20_kills_at_random_moments_lose_nothing(tmp_path):
    assert_survives_kills(tmp_path, kills=20, steps=3000)
