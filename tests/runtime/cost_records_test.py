# SPDX-License-Identifier: Apache-2.0
"""Seconds and FLOPs in metrics.jsonl: of all sittings, without evaluations."""

import json
import types

import pytest

from data_pipeline.questions import Questions
from tests.helpers.compiled_once import run_commands_here
from tests.helpers.runs import short_config
from trm_jax.commands import shell, stop_signal, train
from trm_jax.errors import EXIT_STOPPED
from trm_jax.runtime import trainer


def records(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_seconds_and_flops_continue_over_sittings(tmp_path, monkeypatch):
    """A step takes 1 s here; evaluations and the pause in between do not count."""
    run_commands_here(monkeypatch)
    now, stop_at = [100.0], [7]
    batches = Questions.batches

    def evaluated(*args, **kwargs):
        now[0] += 50
        return batches(*args, **kwargs)

    def stepped(done, _, unit):
        now[0] += unit == "steps"
        if done == stop_at[0] and unit == "steps":
            stop_at[0] = -1

    monkeypatch.setattr(Questions, "batches", evaluated)
    monkeypatch.setattr(shell.BAR, "update", stepped)
    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(trainer, "time", clock)
    monkeypatch.setattr(stop_signal, "StopSignal", lambda: lambda: stop_at[0] == -1)
    config = short_config(steps=16)
    assert train.train(config, str(tmp_path)) == EXIT_STOPPED
    stop_at[0], now[0] = 0, 5000.0
    assert train.train(config, str(tmp_path)) == 0
    found = records(tmp_path)
    assert [r["step"] for r in found] == [3, 6, 8, 9, 12, 15, 16]  # 8, 16: evaluations
    assert [r["train/seconds"] for r in found] == [r["step"] for r in found]
    per_step = found[0]["train/flops"] / 3
    assert per_step > 1e6
    assert [r["train/flops"] for r in found] == [per_step * r["step"] for r in found]
    # The rate is that since the line before, without the evaluation.
    assert [r["steps_per_s"] for r in found if "steps_per_s" in r] == [1.0] * 6


@pytest.mark.slow
def test_seconds_are_unknown_after_a_sitting_that_did_not_record_them(
    tmp_path, monkeypatch
):
    run_commands_here(monkeypatch)
    assert train.train(short_config(steps=6), str(tmp_path)) == 0
    monkeypatch.setattr(trainer, "SECONDS", "train/other")
    assert train.train(short_config(steps=9), str(tmp_path)) == 0
    assert records(tmp_path)[-1]["train/other"] is None
