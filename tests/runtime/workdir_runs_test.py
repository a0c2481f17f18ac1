# SPDX-License-Identifier: Apache-2.0
"""train.py and eval.py with the lock of a workdir."""

import re
import time

import pytest

from tests.helpers.process_group import ProcessGroup
from tests.helpers.runs import as_flags, call, call_here, command
from trm_jax.commands import eval as eval_command
from trm_jax.runtime.lock import WorkdirLock


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A run that goes on until the end of the module."""
    folder = tmp_path_factory.mktemp("locked") / "w"
    flags = as_flags("configs/smoke.py", **{"train.steps": 10**6})
    with ProcessGroup(
        command("train.py", f"--workdir={folder}", *flags), 1, folder.parent / "logs"
    ) as group:
        group.await_text(0, "saved step 50\n")
        yield folder, group, flags


def test_a_second_run_is_refused_within_5_seconds(training):
    folder, group, flags = training
    started = time.monotonic()
    result = call("train.py", f"--workdir={folder}", *flags)
    assert time.monotonic() - started < 5
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {folder}/lock.json: process ")
    assert f"process {group.processes[0].pid} on " in result.stderr
    assert "Traceback" not in result.stderr


def test_an_evaluation_goes_on_beside_the_run(training):
    folder, group, _ = training
    before = (folder / "lock.json").read_bytes()
    result = call_here(eval_command.main, f"--workdir={folder}")
    assert result.returncode == 0, result.stderr
    assert group.processes[0].poll() is None
    assert (folder / "lock.json").read_bytes() == before


def test_a_killed_run_frees_the_workdir_and_one_that_lost_it_saves_no_more(training):
    folder, group, flags = training
    group.send(0)
    group.processes[0].wait()
    path = folder / "lock.json"
    line = command("train.py", f"--workdir={folder}", *flags)
    with ProcessGroup(line, 1, folder.parent / "logs_again") as again:
        again.await_text(0, "saved step")
        path.unlink()
        with WorkdirLock(folder):
            time.sleep(2)  # for a save that had begun
            before = sorted((folder / "checkpoints").iterdir())
            assert again.codes(60) == [2]
            assert sorted((folder / "checkpoints").iterdir()) == before
    assert "has lost the workdir" in again.output(0)
    assert "Traceback" not in again.output(0)


@pytest.mark.slow
def test_a_second_run_of_two_processes_ends_with_the_reason(tmp_path):
    held = tmp_path / "w"
    flags = as_flags("configs/smoke.py", **{"train.steps": 20})
    line = command("train.py", f"--workdir={held}", *flags)
    with WorkdirLock(held), ProcessGroup(line, 2, tmp_path / "logs") as group:
        codes = group.codes(60)
    assert codes == [2, 2], group.outputs()  # no cluster starts it again and again
    assert re.search(r"error: .*lock.json: process \d+ on", group.output(0))
    assert "another process failed; its message says why" in group.output(1)
    assert "Traceback" not in group.outputs()
    assert [path.name for path in held.iterdir()] == ["lock.json"]
