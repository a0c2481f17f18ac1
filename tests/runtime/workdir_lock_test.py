# SPDX-License-Identifier: Apache-2.0
"""One writer per workdir: refusals, stale locks, signs of life."""

import json
import os
import shutil
import subprocess
import threading
import time

import pytest

from trm_jax.errors import ConfigError
from trm_jax.runtime import lock as workdir_lock
from trm_jax.runtime import processes
from trm_jax.runtime.lock import WorkdirLock

MINUTE = 60


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def lock_of(folder, *, seconds=0, **changes):
    """Leave a lock as another run would, this machine's and of this process."""
    folder.mkdir(parents=True, exist_ok=True)
    with WorkdirLock(folder):
        text = (folder / "lock.json").read_text()
    changed = json.loads(text) | {"token": "0" * 32} | changes
    (folder / "lock.json").write_text(json.dumps(changed))
    age(folder / "lock.json", seconds)
    return changed


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def take(folder):
    with WorkdirLock(folder) as lock:
        lock.check()
        assert json.loads((folder / "lock.json").read_text())["pid"] == os.getpid()
        assert files(folder) == ["lock.json"]


def refusal(folder):
    try:
        take(folder)
    except ConfigError as error:
        return str(error)
    return ""


def a_dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def dead_pid():
    return a_dead_pid()


def test_the_second_is_refused_by_name_and_the_third_may(tmp_path):
    with WorkdirLock(tmp_path), pytest.raises(ConfigError) as info:
        WorkdirLock(tmp_path).__enter__()
    told = str(info.value)
    assert f"process {os.getpid()} on {os.uname().nodename}, since 20" in told
    assert "sign of life was 0 s ago" in told
    assert "another --workdir" in told
    assert files(tmp_path) == []
    take(tmp_path)


def test_it_is_released_after_an_exception_with_the_folders_it_made(tmp_path):
    with pytest.raises(KeyError), WorkdirLock(tmp_path / "a" / "b"):
        raise KeyError
    assert files(tmp_path) == []
    with WorkdirLock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").touch()
    assert files(tmp_path / "a") == ["kept"]


def test_a_dead_process_loses_its_lock_with_a_warning(tmp_path, dead_pid, caplog):
    lock_of(tmp_path, pid=dead_pid)
    take(tmp_path)
    assert f"taken over from process {dead_pid} on" in caplog.text


def test_a_killed_process_that_nobody_waited_for_is_dead(tmp_path):
    process = subprocess.Popen(["sleep", "60"])
    started = workdir_lock._started(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie
    lock_of(tmp_path, pid=process.pid, started=started)
    take(tmp_path)
    process.wait()


def test_a_process_number_used_again_is_told_by_its_start(tmp_path):
    lock_of(tmp_path, started="7")
    take(tmp_path)


def test_a_living_process_keeps_it_for_ever_on_its_machine(tmp_path):
    lock_of(tmp_path, seconds=300 * MINUTE)
    with pytest.raises(ConfigError, match="was 1[78]... s ago. Wait"):
        take(tmp_path)


@pytest.mark.parametrize("pid", [1, 2**30])
def test_another_machine_keeps_it_for_10_minutes(tmp_path, pid):
    lock_of(tmp_path, seconds=MINUTE, pid=pid, machine="m", host="far")
    with pytest.raises(
        ConfigError, match=rf"process {pid} on far.* try again in 5.. s"
    ):
        take(tmp_path)
    age(tmp_path / "lock.json", 9.8 * MINUTE)  # in doubt: a scheduler may try again
    with pytest.raises(processes.ProcessError, match="on far.* try again in 1[12] s"):
        take(tmp_path)
    age(tmp_path / "lock.json", 10.1 * MINUTE)
    take(tmp_path)


WRONG = [
    {"token": "../../x"},
    {"token": 7},
    {"pid": -1},
    {"pid": 1.5},
    {"pid": "1"},
    {"since": None},
    {"more": 1},
]


@pytest.mark.parametrize(
    "content", ["", "{", "7", "null", "\0" * 200, '{"pid": 1}', *WRONG]
)
def test_a_damaged_lock_is_that_of_an_unknown_machine(tmp_path, content):
    path = tmp_path / "lock.json"
    if isinstance(content, str):
        path.write_text(content)
    else:
        lock_of(tmp_path, **content)
    for error, minutes in ((ConfigError, 1), (processes.ProcessError, 9)):
        age(path, minutes * MINUTE)
        with pytest.raises(error, match="unknown process .* is writing"):
            take(tmp_path)
    age(path, 11 * MINUTE)
    take(tmp_path)


def test_a_lock_that_leads_nowhere_is_a_damaged_one(tmp_path):
    path = tmp_path / "lock.json"
    path.symlink_to("nowhere")
    with pytest.raises(ConfigError, match="unknown process .* is writing"):
        take(tmp_path)
    then = time.time() - 11 * MINUTE
    os.utime(path, (then, then), follow_symlinks=False)
    take(tmp_path)


def test_every_flipped_bit_of_a_lock_is_survived(tmp_path):
    lock_of(tmp_path)
    path = tmp_path / "lock.json"
    intact = path.read_bytes()
    for place in range(len(intact)):
        flipped = bytearray(intact)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        told = refusal(tmp_path)
        assert told == "" or "is writing in this workdir" in told


def test_where_there_is_no_proc_ps_tells(tmp_path, monkeypatch, dead_pid):
    if not shutil.which("ps"):
        pytest.skip("no ps on this machine")
    monkeypatch.setattr(workdir_lock, "_PROC", tmp_path / "none")
    folder = tmp_path / "w"
    lock_of(folder)
    with pytest.raises(ConfigError, match="is writing"):
        take(folder)
    lock_of(folder.with_name("v"), pid=dead_pid)
    take(folder.with_name("v"))
    lock_of(folder.with_name("u"), started="Mon Jan  1 00:00:00 2001")
    take(folder.with_name("u"))


def test_it_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir_lock, "BEAT_S", 0.02)
    path = tmp_path / "lock.json"
    with WorkdirLock(tmp_path):
        age(path, MINUTE)
        end = time.monotonic() + 10
        while time.time() - path.stat().st_mtime > MINUTE / 2:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert not [t for t in threading.enumerate() if "beat" in t.name]


def test_a_lost_lock_is_noticed_and_that_of_the_other_left_alone(tmp_path, monkeypatch):
    lock = WorkdirLock(tmp_path).__enter__()
    lock.check()
    path = tmp_path / "lock.json"
    text = json.loads(path.read_text()) | {"machine": "another"}  # as seen from far
    path.write_text(json.dumps(text))
    age(path, 11 * MINUTE)  # this process was suspended
    with WorkdirLock(tmp_path) as other:
        age(path, MINUTE)
        with pytest.raises(ConfigError, match=r"has lost the workdir \(process"):
            lock.check()
        assert time.time() - path.stat().st_mtime > MINUTE / 2  # no beat of ours
        lock.release()
        other.check()
        path.unlink()
        with pytest.raises(ConfigError, match="someone removed the file"):
            other.check()


def test_a_check_is_a_sign_of_life(tmp_path):
    with WorkdirLock(tmp_path) as lock:
        age(lock.path, MINUTE)
        lock.check()
        assert time.time() - lock.path.stat().st_mtime < MINUTE / 2


def test_a_check_that_cannot_read_leaves_it_to_the_save(tmp_path, monkeypatch, caplog):
    def stale(self):
        raise OSError(116, "Stale file handle", str(self))

    with WorkdirLock(tmp_path) as lock, monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "open", lambda self, *_: stale(self))
        patch.setattr(type(tmp_path), "stat", stale)
        lock.check()
    assert "lock.json: Stale file handle" in caplog.text


def test_it_is_released_where_the_others_do_not_come(tmp_path, monkeypatch):
    def fail(phase):
        raise processes.ProcessError(phase)

    monkeypatch.setattr(processes, "barrier", fail)
    with pytest.raises(processes.ProcessError, match="lock of the workdir"):
        WorkdirLock(tmp_path).__enter__()
    assert files(tmp_path) == []


def test_of_several_processes_the_first_takes_it(tmp_path, monkeypatch):
    meetings = []
    monkeypatch.setattr(processes, "barrier", meetings.append)
    with WorkdirLock(tmp_path), monkeypatch.context() as patch:
        patch.setattr(processes, "is_first", lambda: False)
        with WorkdirLock(tmp_path) as lock:
            lock.check()
        assert files(tmp_path) == ["lock.json"]
    assert len(meetings) == 2
