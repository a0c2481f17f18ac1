# SPDX-License-Identifier: Apache-2.0
"""train.py in 2 and 4 processes: batches, exact repeats, signals and kills.

Slow tests start 4 processes, and kill each of them in turn.
"""

import json
import random
import re
import shutil
import signal
import sys
import time

import pytest

from tests.helpers.process_group import ProcessGroup
from tests.helpers.runs import command, digest, metric_lines, short_flags

LIMIT_S = 240


def start(folder, num, *, steps, devices=1, extra=None, **overrides):
    flags = short_flags(**{"train.steps": steps} | overrides)
    line = command("train.py", f"--workdir={folder}", *flags)
    logs = folder.parent / f"logs_of_{folder.name}"
    return ProcessGroup(line, num, logs, devices=devices, extra=extra)


def run(folder, num, **kwargs):
    with start(folder, num, **kwargs) as group:
        assert group.codes(LIMIT_S) == [0] * num, group.outputs()
    for i in range(num):
        assert "error" not in group.output(i).lower()
        assert not re.search("^step |saved", group.output(i), re.MULTILINE) or i == 0
    return folder


def assert_same_run(folder, other):
    assert digest(folder) == digest(other)
    assert metric_lines(folder) == metric_lines(other)


def stop_one(folder, num, which, **kwargs):
    """Send SIGTERM to one process; return the step at which all of them saved."""
    with start(folder, num, **kwargs) as group:
        group.await_text(0, "\nstep ", LIMIT_S)
        group.send(which, signal.SIGTERM)
        assert group.codes(LIMIT_S) == [75] * num, group.outputs()
    stopped = re.search(r"stopped after step (\d+); saved", group.output(0))
    return int(stopped[1])


def lose_one(folder, num, which, wait_s, **kwargs):
    """Kill -9 one process `wait_s` after the first line; time how long others live."""
    with start(folder, num, **kwargs) as group:
        group.await_text(0, "\nstep ", LIMIT_S)
        time.sleep(wait_s)
        running = [p.poll() is None for p in group.processes]
        assert all(running), f"the run was over before the kill\n{group.outputs()}"
        group.send(which)
        killed = time.monotonic()
        codes = group.codes(60, but=[which])
        took_s = time.monotonic() - killed
    others = [codes[i] for i in range(num) if i != which]
    assert set(others) <= {75, -signal.SIGABRT}, group.outputs()  # both mean: resume
    return took_s


@pytest.mark.slow
def test_a_signal_to_one_of_two_saves_on_both(tmp_path):
    step = stop_one(tmp_path / "run", 2, 1, steps=2000)
    assert digest(tmp_path / "run")[0] == step < 2000


@pytest.mark.slow
def test_another_config_of_one_ends_both(tmp_path):
    extra = {1: ["--config.seed=7"]}
    with start(tmp_path / "run", 2, steps=10, extra=extra) as group:
        assert group.codes(60) == [2, 2], group.outputs()
    for i in range(2):
        assert "process 1 of 2 has 'seed: 7', not 'seed: 0'" in group.output(i)
        assert "Traceback" not in group.output(i)
    assert not (tmp_path / "run").exists()


def test_two_processes_train_as_one_run(tmp_path):
    folder = run(tmp_path / "run", 2, steps=6)
    assert digest(folder)[0] == 6
    assert [line["step"] for line in metric_lines(folder)] == [3, 6]


BATCHES = """
import hashlib, sys
from data_pipeline import loader, tasks
from tests.helpers.process_group import run_member
from tests.helpers.runs import short_config
def main(values):
    from jax.experimental import multihost_utils
    from trm_jax.training.sharding import make_mesh, own_rows, put_batch
    config = short_config()
    data, mesh = tasks.load(config.data.to_dict()), make_mesh(0)
    load = loader.TrainLoader(
        data.train, batch_size=8, seed=0, variants=data.train_variants,
        rows=own_rows(mesh, 8),
    )
    total = hashlib.sha256()
    for rows in loader.prefetched(load, 3, 9):
        batch = put_batch(rows, mesh)
        for part in multihost_utils.process_allgather(batch, tiled=True):
            total.update(str((part.dtype, part.shape)).encode() + part.tobytes())
    sys.stdout.write(f"hash {total.hexdigest()}\\n")
    return 0
run_member(main)
"""


def batch_hashes(folder, layouts):
    found = set()
    for num, devices in layouts:
        line = [sys.executable, "-c", BATCHES]
        with ProcessGroup(line, num, folder, devices=devices) as group:
            assert group.codes(LIMIT_S) == [0] * num, group.outputs()
        for i in range(num):
            found.add(re.search("hash [0-9a-f]{64}", group.output(i))[0])
    return found


@pytest.mark.slow
def test_the_batch_is_the_same_however_many_processes_share_it(tmp_path):
    layouts = [(1, 1), (1, 4), (2, 1), (2, 2), (4, 1), (4, 2)]
    assert len(batch_hashes(tmp_path, layouts)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("num", "devices"), [(2, 2), (4, 1)])
def test_two_fresh_runs_are_equal_to_the_bit(tmp_path, num, devices):
    folders = [
        run(tmp_path / name, num, devices=devices, steps=16) for name in ("a", "b")
    ]
    assert_same_run(*folders)


@pytest.mark.slow
@pytest.mark.parametrize("num", [2, 4])
def test_kills_of_each_process_lose_nothing(tmp_path, num):
    kwargs = {"steps": 600, "train.log_every": 7, "train.eval_every": 100}
    unbroken = run(tmp_path / "unbroken", num, **kwargs)
    folder, rng = tmp_path / "killed", random.Random(num)
    for which in range(num):
        took_s = lose_one(folder, num, which, rng.uniform(0, 2), **kwargs)
        assert took_s < 60
    run(folder, num, **kwargs)
    assert_same_run(folder, unbroken)
    runs = [json.loads(r) for r in (folder / "runs.jsonl").read_text().splitlines()]
    assert len(runs) == num + 1


@pytest.mark.slow
@pytest.mark.parametrize("num", [2, 4])
def test_a_signal_to_any_process_saves_on_all_and_resumes_exactly(tmp_path, num):
    kwargs = {"steps": 400, "train.eval_every": 150}
    unbroken = run(tmp_path / "unbroken", num, **kwargs)
    folder = tmp_path / "stopped"
    for which in range(num):
        step = stop_one(folder, num, which, **kwargs)
        assert digest(folder)[0] == step < 400
    run(folder, num, **kwargs)
    assert_same_run(folder, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("writers", [1, 2])
def test_a_step_from_one_checkpoint_is_the_same_in_all_layouts(tmp_path, writers):
    # One or two processes write the checkpoint; 1, 2 and 4 processes resume from it.
    written = run(tmp_path / "written", writers, steps=8)
    before = metric_lines(written)
    losses = []
    for num in (1, 2, 4):
        folder = tmp_path / f"by_{num}"
        shutil.copytree(written, folder)
        run(folder, num, steps=9, **{"train.log_every": 1})
        lines = metric_lines(folder)
        assert lines[: len(before)] == before
        assert lines[-1]["step"] == 9
        losses.append([lines[-1][f"train/{k}"] for k in ("loss", "grad_norm")])
    for ours in losses[1:]:
        assert ours == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.slow
def test_two_processes_evaluate_with_refill_and_search_as_one(tmp_path):
    folder = run(tmp_path / "run", 1, steps=2)

    def report(num, devices, *flags):
        line = command("eval.py", f"--workdir={folder}", *flags)
        logs = tmp_path / f"logs_of_{num}"
        with ProcessGroup(line, num, logs, devices=devices) as group:
            assert group.codes(LIMIT_S) == [0] * num, group.outputs()
        (path,) = (folder / "eval").glob("*.json")
        text = path.read_text()
        path.unlink()
        return json.loads(text)

    for flags in (["--refill=0.5"], ["--search=restarts", "--budget=800"]):
        one, two = report(1, 2, *flags), report(2, 1, *flags)
        for found in (one, two):
            found.pop("rows_per_s", None)
        assert one == two
