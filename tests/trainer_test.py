# SPDX-License-Identifier: Apache-2.0
import json
import math

import chex
import jax.numpy as jnp
import pytest

import train
from data_pipeline import sources
from tests.runs import as_flags, call, metric_lines, smoke_config
from trm_jax import cli
from trm_jax.build import build
from trm_jax.checkpoint import Checkpoints
from trm_jax.errors import CheckpointError
from trm_jax.metric_writer import MetricWriter
from trm_jax.trainer import Cadence, NonFiniteError, check_finite

# Weights overflow after a few updates; until then there is something good to keep.
EXPLODES = {"optim.lr": 1e30, "optim.warmup_steps": 0, "optim.weight_decay": 0.0}


def saved_states(folder, config):
    built = build(config, sources.spec_of(**config["data"]).sizes)
    checkpoints = Checkpoints(folder, keep=99)
    steps = [int(p.name) for p in (folder / "checkpoints").iterdir()]
    return [checkpoints.restore_step(built.state_like, step) for step in sorted(steps)]


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(cli, "StopSignal", lambda: lambda: False)
    config = smoke_config(steps=60, checkpoint_every=1, keep_checkpoints=99).unlock()
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


def test_the_command_names_step_and_metric_and_exits_1(tmp_path):
    flags = as_flags("configs/smoke.py", **EXPLODES)
    result = call("train.py", f"--workdir={tmp_path}", *flags)
    assert result.returncode == 1
    assert "at step" in result.stderr
    assert "last good checkpoint is untouched" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_every_metric_is_watched(bad):
    good = {"loss": (jnp.array(1.0), jnp.array(1.0))}
    check_finite(3, good)
    with pytest.raises(NonFiniteError, match="cell_loss is .* at step 4"):
        check_finite(4, good | {"cell_loss": (jnp.array(bad), jnp.array(1.0))})


def test_things_are_due_at_multiples_and_at_the_end():
    cadence = Cadence(steps=10, log_every=3, eval_every=0, checkpoint_every=5)
    due = [step for step in range(11) if cadence.due(step, 3)]
    assert due == [3, 6, 9, 10]
    assert [step for step in range(11) if cadence.due(step, 0)] == [10]


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
