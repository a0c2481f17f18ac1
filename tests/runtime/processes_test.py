# SPDX-License-Identifier: Apache-2.0
"""Processes join, agree and end together; group_member.py is what they run."""

import signal
import subprocess
import sys

import pytest
from absl import flags

from tests.helpers.process_group import ROOT, ProcessGroup, environment, free_port
from trm_jax.commands import shell
from trm_jax.errors import ConfigError
from trm_jax.runtime import processes

MEMBER = [sys.executable, "tests/helpers/group_member.py"]
ENDLESS = [*MEMBER, "--steps=100000", "--step_s=0.05"]


def group(command, folder, num=2, **kwargs):
    return ProcessGroup(command, num, folder, **kwargs)


def may_resume(code):
    """Whether a script requeues on this code: 75, or an abort by JAX (128 + 6)."""
    return code == 75 or code == -signal.SIGABRT or code > 127


def test_with_one_process_all_is_trivial():
    assert processes.is_first()
    assert processes.name() is None
    processes.barrier("a phase", timeout_s=0.0)
    processes.check_same("a", "config")
    processes.finish()
    with pytest.raises(SystemExit, match="3"):
        processes.leave(3)
    for answer in (True, False):
        assert processes.all_true(answer, "a phase") is answer

    def flag():
        return True

    assert processes.agreed(flag) is flag


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("host:1", None, None), "belong together"),
        ((None, 2, 0), "belong together"),
        (("host:1", 2, None), "belong together"),
        (("host", 2, 0), "HOST:PORT"),
        ((":12", 2, 0), "HOST:PORT"),
        (("host:0", 2, 0), "HOST:PORT"),
        (("host:99999", 2, 0), "HOST:PORT"),
        (("a..b:12", 2, 1), "HOST:PORT"),
        (("[::1]:12", 2, 2), "--process_id=2"),
        (("10.0.0.7:1", 2, 2), "--process_id=2"),
        (("host-1.pod:1", 2, -1), "--process_id=-1"),
        (("host:1", 0, 0), "--process_id=0"),
    ],
)
def test_wrong_flags_are_named(given, message):
    values = flags.FlagValues()
    shell.define_process_flags(values)
    names = ("coordinator", "num_processes", "process_id")
    pairs = zip(names, given, strict=True)
    values(["train.py", *(f"--{n}={v}" for n, v in pairs if v is not None)])
    with pytest.raises(ConfigError, match=message):
        shell.join_processes(values)


def test_an_unreachable_coordinator_is_named():
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError, match=f"{address}: process 0 does not answer"):
        processes.initialize(address, 2, 1, timeout_s=0.5)


@pytest.mark.slow
def test_processes_that_do_not_come_end_the_one_that_waits():
    address = f"127.0.0.1:{free_port()}"
    call = f"processes.initialize({address!r}, 2, 0, timeout_s=2)"
    result = subprocess.run(
        [sys.executable, "-c", f"from trm_jax.runtime import processes; {call}"],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env=environment(1),
        text=True,
        timeout=60,
    )
    assert may_resume(result.returncode)


def test_processes_add_agree_and_part(tmp_path):
    with group(MEMBER, tmp_path, devices=2) as members:
        assert members.codes(60) == [0, 0], members.outputs()
    for i in range(2):
        # Two devices each make 4 ones. In each of 5 steps, every one of them grows by a
        # thousandth of their sum.
        assert "sum 4.081 True False\n" in members.output(i)
        assert "error" not in members.output(i)
        assert "terminate" not in members.output(i)


@pytest.mark.slow
def test_a_signal_to_one_stops_all_at_the_same_step(tmp_path):
    with group(ENDLESS, tmp_path) as members:
        members.await_text(1, "step 3\n")
        members.send(1, signal.SIGTERM)
        assert members.codes(60) == [75, 75], members.outputs()
    last = [members.output(i).strip().splitlines()[-1] for i in range(2)]
    assert last[0].startswith("stopped after step")
    assert last[0] == last[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "difference", "found"),
    [
        ("command line", {"extra": {1: ["--steps=7"]}}, "'--steps=7', not"),
        (
            "config",
            {"env": {0: {"CONFIG": "same\nseed: 0"}, 1: {"CONFIG": "same\nseed: 1"}}},
            "'seed: 1', not 'seed: 0'",
        ),
    ],
)
def test_what_must_be_the_same_on_all_ends_all(tmp_path, what, difference, found):
    with group(ENDLESS, tmp_path, **difference) as members:
        assert members.codes(60) == [2, 2], members.outputs()
    for i in range(2):
        told = f"error: a process has another {what} than process 0: process 1 of 2 has"
        assert f"{told} {found}" in members.output(i)
    assert "Traceback" not in members.outputs()


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize(
    ("deed", "code", "message"),
    [
        ("be wrong 3", 2, "error: a wrong value on one process"),
        ("crash 3", 1, "LookupError: a bug"),
    ],
)
def test_a_failure_of_one_ends_all(tmp_path, failing, deed, code, message):
    with group(ENDLESS, tmp_path, env={failing: {"DEED": deed}}) as members:
        codes = members.codes(60)
    assert codes[failing] == code, members.outputs()
    assert may_resume(codes[1 - failing]), members.outputs()
    assert message in members.output(failing)
    assert ("Traceback" in members.output(failing)) == (code == 1)


@pytest.mark.parametrize("num", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_closed_stdout_changes_no_exit_code(tmp_path, num):
    env = {0: {"DEED": "lose stdout 3", "PYTHONUNBUFFERED": ""}}
    with group(MEMBER, tmp_path, num=num, env=env) as members:
        assert members.codes(60) == [0] * num, members.outputs()
    assert "step 3" not in members.output(0)
    assert "Traceback" not in members.outputs()


@pytest.mark.slow
def test_a_barrier_names_its_phase(tmp_path):
    with group(ENDLESS, tmp_path, env={0: {"DEED": "meet 3"}}) as members:
        codes = members.codes(60)
    assert codes[0] == 75
    assert may_resume(codes[1])
    expected = "process 0 of 2 waited for the others at 'save of step 3', and not all"
    assert expected in members.output(0)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_whichever_process_dies_or_hangs_the_others_end(tmp_path, lost, number):
    with group(ENDLESS, tmp_path, num=3) as members:
        for i in range(3):
            members.await_text(i, "step 3\n")
        members.send(lost, number)
        codes = members.codes(60, but=[lost])
    others = [i for i in range(3) if i != lost]
    assert all(may_resume(codes[i]) for i in others), members.outputs()


@pytest.mark.slow
def test_a_slow_process_is_waited_for(tmp_path):
    with group(MEMBER, tmp_path, env={1: {"DEED": "be slow 2"}}) as members:
        assert members.codes(120) == [0, 0], members.outputs()
