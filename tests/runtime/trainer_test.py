# SPDX-License-Identifier: Apache-2.0
import errno
import json
import logging
import math
import re

import chex
import jax.numpy as jnp
import pytest

from data_pipeline import tasks
from tests.helpers.compiled_once import run_commands_here
from tests.helpers.runs import (
    call_here,
    digest,
    metric_lines,
    short_config,
    short_flags,
)
from trm_jax.commands import shell, stop_signal, train
from trm_jax.errors import CheckpointError, SaveError
from trm_jax.runtime import background_save
from trm_jax.runtime.background_save import BackgroundSave
from trm_jax.runtime.checkpoint import Checkpoints
from trm_jax.runtime.lock import WorkdirLock
from trm_jax.runtime.metric_writer import MetricWriter
from trm_jax.runtime.non_finite import NonFiniteError
from trm_jax.training.build import build

# Weights overflow after a few updates, but the states before that can be kept.
EXPLODES = {"optim.lr": 1e30, "optim.warmup_steps": 0, "optim.weight_decay": 0.0}


def saved_states(folder, config):
    built = build(config, tasks.spec_of(config["data"]).sizes)
    checkpoints = Checkpoints(folder, keep=99)
    steps = [int(p.name) for p in (folder / "checkpoints").iterdir()]
    return [checkpoints.restore_step(built.state_like, step) for step in sorted(steps)]


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(
    tmp_path, monkeypatch
):
    run_commands_here(monkeypatch)
    config = short_config(steps=60, checkpoint_every=1, keep_checkpoints=99).unlock()
    for key, value in EXPLODES.items():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(NonFiniteError, match=r"(loss|grad_norm) is \S+ at step \d+"):
        train.train(config.lock(), str(tmp_path))
    states = saved_states(tmp_path, config.to_dict())
    assert 1 <= len(states) < 60
    for state in states:
        assert jnp.isfinite(state.metrics["loss"][0])
        chex.assert_tree_all_finite(state.carry)
    for record in metric_lines(tmp_path):
        values = [v for v in record.values() if isinstance(v, float)]
        assert all(map(math.isfinite, values))


def test_the_command_names_step_and_metric_and_exits_1(tmp_path, monkeypatch):
    run_commands_here(monkeypatch)
    flags = short_flags(**EXPLODES, **{"train.steps": 60})
    result = call_here(train.main, f"--workdir={tmp_path}", *flags)
    assert result.returncode == 1
    assert "at step" in result.stderr
    assert "last good checkpoint is untouched" in result.stderr
    assert "Traceback" not in result.stderr


class Disk:
    """A disk on which the saves of some steps fail, at the start or at the commit."""

    def __init__(self, monkeypatch, moment):
        self.bad, self.tried = set(), []
        make, commit = background_save.make_draft, BackgroundSave._commit

        def fail(step):
            if step in self.bad:
                raise OSError(errno.ENOSPC, "No space left on device", "disk")

        def made(draft, size):
            if draft.name.startswith("trial"):
                make(draft, size)
                return
            self.tried.append(int(re.match(r"\D*(\d+)", draft.name)[1]))
            if moment == "start":
                fail(self.tried[-1])
            make(draft, size)

        def committed(save):
            if save._keep != 0:  # no trial
                fail(save.step)
            commit(save)

        monkeypatch.setattr(background_save, "make_draft", made)
        monkeypatch.setattr(BackgroundSave, "_commit", committed)


@pytest.fixture(params=["commit", pytest.param("start", marks=pytest.mark.slow)])
def disk(request, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "trm_jax")
    run_commands_here(monkeypatch)
    return Disk(monkeypatch, request.param)


def saving(on_save_error):
    return short_config(steps=20, on_save_error=on_save_error, keep_checkpoints=9)


def saved_steps(folder):
    return sorted(int(p.name) for p in (folder / "checkpoints").iterdir())


def test_a_failed_save_ends_the_run_by_the_next_log_line(
    tmp_path, disk, caplog, monkeypatch
):
    poll = Checkpoints.poll

    def late(checkpoints):  # as if steps were slower than saves
        if checkpoints._save:
            checkpoints._save.join()
        poll(checkpoints)

    monkeypatch.setattr(Checkpoints, "poll", late)
    disk.bad = {10}
    with pytest.raises(SaveError, match="step 10 was not saved .*No space left"):
        train.train(saving("stop"), str(tmp_path))
    assert saved_steps(tmp_path) == [5]
    assert metric_lines(tmp_path)[-1]["step"] < 12
    assert "saved step 5" in caplog.text
    assert "saved step 10" not in caplog.text
    disk.bad = set()
    assert train.train(saving("stop"), str(tmp_path)) == 0
    assert digest(tmp_path)[0] == 20


def test_a_run_goes_on_after_failed_saves_if_told_so(tmp_path, disk, caplog):
    assert train.train(saving("continue"), str(tmp_path / "unbroken")) == 0
    caplog.clear()
    disk.bad = {5, 15}
    assert train.train(saving("continue"), str(tmp_path / "run")) == 0
    assert saved_steps(tmp_path / "run") == [10, 20]
    for step in (5, 15):
        warning = rf"SAVE FAILED, going on: step {step} was not saved .*No space"
        assert len(re.findall(warning, caplog.text)) == 1
        assert f"saved step {step}" not in caplog.text
    assert digest(tmp_path / "run") == digest(tmp_path / "unbroken")
    assert metric_lines(tmp_path / "run") == metric_lines(tmp_path / "unbroken")


@pytest.mark.parametrize("stopped_at", [None, 7])
def test_the_last_save_must_succeed(tmp_path, disk, monkeypatch, stopped_at):
    if stopped_at:
        done = []
        monkeypatch.setattr(shell.BAR, "update", lambda k, *_: done.append(k))
        monkeypatch.setattr(
            stop_signal, "StopSignal", lambda: lambda: stopped_at in done
        )
    last = stopped_at or 20
    disk.bad = {last}
    with pytest.raises(SaveError, match=f"step {last} was not saved"):
        train.train(saving("continue"), str(tmp_path))
    assert max(saved_steps(tmp_path)) < last


class FullFile:
    """Takes a few bytes of a line while the disk is full."""

    def __init__(self, file, is_full):
        self.file, self.is_full, self.fileno = file, is_full, file.fileno
        self.close = file.close

    def write(self, data):
        if self.is_full():
            if len(data) < 20:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data[:7])
        return self.file.write(data)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["continue", "stop"])
def test_lines_wait_for_a_full_disk_if_told_so(tmp_path, monkeypatch, caplog, policy):
    run_commands_here(monkeypatch)
    config = saving(policy)
    assert train.train(config, str(tmp_path / "whole")) == 0
    done, written = [], MetricWriter.write

    def write(writer, record):
        done.append(record["step"])
        if not isinstance(writer._file, FullFile):
            writer._file = FullFile(writer._file, lambda: 4 < done[-1] < 12)
        written(writer, record)

    monkeypatch.setattr(MetricWriter, "write", write)
    folder = tmp_path / "full"
    if policy == "stop":
        with pytest.raises(SaveError, match=r"metrics.jsonl cannot .*No space left"):
            train.train(config, str(folder))
        monkeypatch.setattr(MetricWriter, "write", written)
    else:
        caplog.clear()
    assert train.train(config, str(folder)) == 0
    if policy == "continue":
        assert "SAVE FAILED, going on" in caplog.text
        assert 10 not in saved_steps(folder)  # its lines were not on the disk
    assert metric_lines(folder) == metric_lines(tmp_path / "whole")
    assert digest(folder) == digest(tmp_path / "whole")


def test_the_command_ends_with_code_1_where_a_save_fails(tmp_path, monkeypatch):
    run_commands_here(monkeypatch)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device", "disk")

    monkeypatch.setattr(BackgroundSave, "_commit", full)
    flags = short_flags(**{"train.checkpoint_every": 10})
    result = call_here(train.main, f"--workdir={tmp_path}", *flags)
    assert result.returncode == 1, result.stderr
    failed = r"error: (trial before the first step: )?step \d+ was not saved in \S+: "
    assert re.match(f"{failed}.*No space", result.stderr)
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert "saved step" not in result.stdout


def test_the_lock_is_checked_before_each_save(tmp_path, monkeypatch):
    disk, check = Disk(monkeypatch, "start"), WorkdirLock.check
    run_commands_here(monkeypatch)
    before = []

    def counted(lock):
        before.append(len(disk.tried))
        check(lock)

    monkeypatch.setattr(WorkdirLock, "check", counted)
    assert train.train(saving("stop"), str(tmp_path)) == 0
    assert disk.tried == [5, 10, 15, 20]
    assert before == [0, 1, 2, 3]


def write_lines(folder, *lines):
    (folder / "metrics.jsonl").write_text("".join(lines))


def test_metrics_after_the_restored_step_and_cut_lines_are_dropped(tmp_path):
    lines = [json.dumps({"step": s, "loss": s / 7}) + "\n" for s in (2, 4, 6, 8)]
    write_lines(tmp_path, *lines, '{"step": 1')
    writer = MetricWriter(tmp_path, step=6)
    assert writer.last_step == 6
    writer.write({"step": 7})
    writer.close()
    expected = "".join(lines[:3]) + '{"step": 7}\n'
    assert (tmp_path / "metrics.jsonl").read_text() == expected


def test_a_broken_line_in_the_middle_is_refused_by_number(tmp_path):
    write_lines(tmp_path, '{"step": 1}\n', "garbage\n", '{"step": 3}\n')
    with pytest.raises(CheckpointError, match=r"metrics.jsonl line 2.*'garbage'"):
        MetricWriter(tmp_path, step=9)


def test_tensorboard_events_hold_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c  # noqa: F401  same package

    writer = MetricWriter(tmp_path, step=-1)
    writer.write({"step": 3, "train/loss": 0.5, "eval/exact_accuracy_95": [0, 1]})
    writer.close()
    (path,) = (tmp_path / "events").glob("events.out.tfevents.*")
    data, found = path.read_bytes(), {}
    while data:  # length, its checksum, the event, its checksum
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        found |= {v.tag: (event.step, v.simple_value) for v in event.summary.value}
        data = data[16 + length :]
    assert found == {"train/loss": (3, 0.5)}


def test_tensorboard_events_end_where_they_cannot_be_written(
    tmp_path, monkeypatch, caplog
):
    pytest.importorskip("tensorboardX")
    writer = MetricWriter(tmp_path, step=-1)

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer._events, "flush", full)
    for step in range(30):  # more than its queue holds
        writer.write({"step": step, "train/loss": 0.5})
    writer.close()
    assert caplog.text.count("no more TensorBoard events") == 1
    assert [r["step"] for r in metric_lines(tmp_path)] == list(range(30))
