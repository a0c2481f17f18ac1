# SPDX-License-Identifier: Apache-2.0
"""A run that goes back after a fault, and resumes exactly thereafter."""

import gc
import json

import jax
import numpy as np
import pytest

import train
from tests.helpers.faulty_runs import (
    STEPS,
    assert_all_finite,
    assert_same_run,
    config_of,
    rollbacks,
    runner,
)
from tests.helpers.runs import digest
from trm_jax.errors import CheckpointError, ConfigError
from trm_jax.files import write_whole
from trm_jax.runtime import cli, non_finite
from trm_jax.runtime.checkpoint import Checkpoints
from trm_jax.runtime.non_finite import (
    MAX_ROLLBACKS,
    NonFiniteError,
    Rollbacks,
)
from trm_jax.runtime.step_folders import MANIFEST


@pytest.fixture
def run(monkeypatch):
    return runner(monkeypatch)


def test_a_rollback_leaves_out_the_batches_that_led_to_the_fault(tmp_path, run, caplog):
    # From step 5 on batches 5 to 9, 10 to 11, 12 to 20; the rest from step 10 on.
    config, bad = config_of("rollback"), {9, 11, 20}
    assert run(tmp_path / "run", config, bad=bad) == 0
    assert rollbacks(tmp_path / "run") == [
        {"from_step": 5, "bad_step": 10, "shift": 5},
        {"from_step": 5, "bad_step": 7, "shift": 7},
        {"from_step": 10, "bad_step": 14, "shift": 11},
    ]
    for step, batch in [(5, 10), (5, 12), (10, 21)]:
        assert f"ROLLED BACK to step {step}; on with batch {batch}" in caplog.text

    def number(k):
        return k + 11 if k >= 10 else k + 7 if k >= 5 else k

    assert run(tmp_path / "expected", config, number=number) == 0
    assert_same_run(tmp_path / "run", tmp_path / "expected")
    assert_all_finite(tmp_path / "run")
    dumps = (tmp_path / "run" / "non_finite").iterdir()
    assert {json.loads(p.read_text())["batch"] for p in dumps} == bad


def test_a_rollback_keeps_no_second_state(tmp_path, run, monkeypatch):
    restore, live = Checkpoints.restore_newest, []

    def measured(checkpoints, like):
        gc.collect()
        live.append(sum(array.nbytes for array in jax.live_arrays()))
        return restore(checkpoints, like)

    monkeypatch.setattr(Checkpoints, "restore_newest", measured)
    assert run(tmp_path, config_of("rollback"), bad={8}) == 0
    at_start, at_rollback = live
    assert at_rollback < at_start + 50_000  # of 290 kB


TWICE = {8, 13}  # the faults of a run that goes back to step 5 each time


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert runner(monkeypatch)(folder, config_of("rollback"), bad=TWICE) == 0
    records = rollbacks(folder)
    assert [(r["from_step"], r["shift"]) for r in records] == [(5, 4), (5, 9)]
    return folder


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "num_asked", [0, 4, *(pytest.param(n, marks=SLOW) for n in (1, 9))]
)
def test_a_stop_after_a_rollback_resumes_exactly(tmp_path, run, unbroken, num_asked):
    folder, asked = tmp_path / "stopped", []

    def stop():
        path = folder / "rollbacks.jsonl"
        if path.exists() and len(path.read_text().splitlines()) == len(TWICE):
            asked.append(1)
        return len(asked) > num_asked

    config = config_of("rollback")
    assert run(folder, config, bad=TWICE, stop=stop) == cli.EXIT_STOPPED
    assert digest(folder)[0] < STEPS
    assert run(folder, config, bad=TWICE) == 0
    assert rollbacks(folder) == rollbacks(unbroken)
    assert_same_run(folder, unbroken)


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "num_steps", [9, 15, *(pytest.param(n, marks=SLOW) for n in (1, 6, 10, 13, 22))]
)
def test_a_kill_around_a_rollback_repeats_it_exactly(
    tmp_path, run, unbroken, monkeypatch, num_steps
):
    folder, config, seen = tmp_path / "killed", config_of("rollback"), []

    def update(*_):
        seen.append(1)
        if len(seen) == num_steps:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(cli.BAR, "update", update)
        with pytest.raises(Killed):
            run(folder, config, bad=TWICE)
    assert run(folder, config, bad=TWICE) == 0
    assert rollbacks(folder) == rollbacks(unbroken)
    assert_same_run(folder, unbroken)


@pytest.mark.parametrize("moment", ["before the record", "after the record"])
def test_a_kill_in_a_rollback_repeats_it_exactly(
    tmp_path, run, unbroken, monkeypatch, moment
):
    folder, config, write = tmp_path / "killed", config_of("rollback"), write_whole

    def killed(path, *args):
        if path.name == "rollbacks.jsonl":
            if moment == "after the record":
                write(path, *args)
            raise Killed
        write(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(non_finite, "write_whole", killed)
        with pytest.raises(Killed):
            run(folder, config, bad=TWICE)
    recorded = (folder / "rollbacks.jsonl").exists()
    assert recorded == (moment == "after the record")
    assert run(folder, config, bad=TWICE) == 0
    assert rollbacks(folder) == rollbacks(unbroken)
    assert_same_run(folder, unbroken)


def test_a_run_that_lost_its_workdir_records_no_rollback(tmp_path, run, monkeypatch):
    class Lock(train.WorkdirLock):
        def check(self):
            if (tmp_path / "non_finite").exists():
                raise ConfigError("lost")

    monkeypatch.setattr(train, "WorkdirLock", Lock)
    with pytest.raises(ConfigError, match="lost"):
        run(tmp_path, config_of("rollback"), bad={9})
    assert not (tmp_path / "rollbacks.jsonl").exists()


def test_a_damaged_checkpoint_is_passed_over_in_a_rollback(tmp_path, run, monkeypatch):
    folder, restore, calls = tmp_path / "checkpoints", Checkpoints.restore_newest, []

    def damaged(checkpoints, like):
        calls.append(checkpoints.steps())
        if len(calls) == 2:
            (folder / "10" / MANIFEST).write_text("{")
        return restore(checkpoints, like)

    monkeypatch.setattr(Checkpoints, "restore_newest", damaged)
    assert run(tmp_path, config_of("rollback"), bad={12}) == 0
    assert calls == [[], [5, 10]]
    assert rollbacks(tmp_path) == [{"from_step": 5, "bad_step": 13, "shift": 8}]
    assert any("damaged" in p.name for p in folder.iterdir())


def test_a_run_that_goes_back_to_one_checkpoint_too_often_ends(tmp_path, run):
    config = config_of("rollback")
    with pytest.raises(NonFiniteError, match="after 3 rollbacks to step 5"):
        run(tmp_path, config, bad=range(5, 99))
    assert [r["from_step"] for r in rollbacks(tmp_path)] == [5] * MAX_ROLLBACKS
    assert [r["shift"] for r in rollbacks(tmp_path)] == [1, 2, 3]
    assert digest(tmp_path)[0] == 5
    with pytest.raises(NonFiniteError, match="after 3 rollbacks to step 5"):
        run(tmp_path, config, bad=range(5, 99))
    assert len(rollbacks(tmp_path)) == MAX_ROLLBACKS


@pytest.mark.parametrize("seed", range(20))
def test_no_batch_is_used_after_a_rollback_left_it_out(tmp_path, seed):
    rng = np.random.default_rng(seed)
    records, step, left_out = Rollbacks(tmp_path), 0, set()
    for _ in range(6):
        # The checkpoint of `step`, or later ones, may turn out to be damaged.
        bad = int(rng.integers(0, step + 1)) + int(rng.integers(1, 9))
        back_to = int(rng.integers(0, bad))
        used = [records.batch_number(s) for s in range(bad)]
        assert len(set(used)) == bad
        assert not left_out & set(used)
        left_out |= set(used[back_to:])
        records.add(back_to, bad)
        assert records.batch_number(back_to) == max(left_out) + 1
        step = back_to
        again = Rollbacks(tmp_path)
        for s in range(40):
            assert again.batch_number(s) == records.batch_number(s)


GOOD = '{"from_step": 5, "bad_step": 9, "shift": 4}\n'


@pytest.mark.parametrize(
    "line",
    [
        "",
        GOOD[:20],
        "[5, 9, 4]",
        "null",
        '{"from_step": 5, "bad_step": 9}',
        GOOD.replace("4", "true").strip(),
        GOOD.replace("4", "-4").strip(),
        GOOD.replace("4", '4, "by": 1').strip(),
    ],
)
def test_a_damaged_record_is_refused_by_line(tmp_path, line):
    (tmp_path / "rollbacks.jsonl").write_text(GOOD + line + "\n" + GOOD)
    with pytest.raises(CheckpointError, match=r"rollbacks.jsonl line 2: expected"):
        Rollbacks(tmp_path)


def test_a_record_that_cannot_be_written_is_no_rollback(tmp_path):
    records = Rollbacks(tmp_path / "missing")
    with pytest.raises(
        CheckpointError, match=r"rollbacks.jsonl cannot be written: No such file"
    ):
        records.add(5, 9)
    assert records.batch_number(7) == 7
