# SPDX-License-Identifier: Apache-2.0
"""train.py and eval.py with the lock of a workdir."""

import re
import time

import pytest

from tests.helpers.process_group import ProcessGroup
from tests.helpers.runs import call, call_here, command, short_flags
from tests.helpers.timing import seconds_of_children
from trm_jax.commands import eval as eval_command
from trm_jax.runtime.lock import WorkdirLock


@pytest.mark.slow
def test_a_run_refuses_others_lets_evaluations_in_and_ends_without_its_lock(
    tmp_path,
):
    folder = tmp_path / "w"
    flags = short_flags(**{"train.steps": 10**6})
    line = command("train.py", f"--workdir={folder}", *flags)
    path = folder / "lock.json"
    with ProcessGroup(line, 1, tmp_path / "logs") as group:
        group.await_text(0, "saved step")
        # A second run is refused, after less than 5 CPU seconds.
        before = seconds_of_children()
        result = call("train.py", f"--workdir={folder}", *flags)
        assert seconds_of_children() - before < 5
        assert result.returncode == 2
        assert result.stderr.startswith(f"error: {path}: process ")
        assert f"process {group.processes[0].pid} on " in result.stderr
        assert "Traceback" not in result.stderr

        # An evaluation goes on beside the run.
        held = path.read_bytes()
        result = call_here(eval_command.main, f"--workdir={folder}")
        assert result.returncode == 0, result.stderr
        assert group.processes[0].poll() is None
        assert path.read_bytes() == held

        # A run that has lost its workdir saves no more.
        path.unlink()
        with WorkdirLock(folder):
            time.sleep(2)  # let a save that has begun finish
            saved = sorted((folder / "checkpoints").iterdir())
            assert group.codes(60) == [2]
            assert sorted((folder / "checkpoints").iterdir()) == saved
    assert "has lost the workdir" in group.output(0)
    assert "Traceback" not in group.output(0)


@pytest.mark.slow
def test_a_second_run_of_two_processes_ends_with_the_reason(tmp_path):
    held = tmp_path / "w"
    flags = short_flags(**{"train.steps": 20})
    line = command("train.py", f"--workdir={held}", *flags)
    with WorkdirLock(held), ProcessGroup(line, 2, tmp_path / "logs") as group:
        codes = group.codes(60)
    assert codes == [2, 2], group.outputs()  # a cluster does not restart it
    assert re.search(r"error: .*lock.json: process \d+ on", group.output(0))
    assert "another process failed; its message says why" in group.output(1)
    assert "Traceback" not in group.outputs()
    assert [path.name for path in held.iterdir()] == ["lock.json"]
