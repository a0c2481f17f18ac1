# SPDX-License-Identifier: Apache-2.0
"""One writer per workdir: refusals, dead holders, files that were removed."""

import fcntl
import json
import os
import subprocess
import sys

import pytest

from tests.helpers.runs import ROOT
from trm_jax.errors import ConfigError
from trm_jax.runtime import processes
from trm_jax.runtime.lock import WorkdirLock

HOLD = """
import sys
from trm_jax.runtime.lock import WorkdirLock
with WorkdirLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def take(folder):
    with WorkdirLock(folder) as lock:
        lock.check()
        assert json.loads((folder / "lock.json").read_text())["pid"] == os.getpid()


def test_the_second_is_refused_by_name(tmp_path, holder):
    for _ in range(2):
        with pytest.raises(ConfigError) as info:
            take(tmp_path)
    told = str(info.value)
    assert f"process {holder.pid} on {os.uname().nodename}, since 20" in told
    assert "another --workdir" in told


def test_a_process_that_ends_or_is_killed_frees_it_at_once(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / "lock.json").read_text()  # the note of the dead process
    take(tmp_path)
    assert (tmp_path / "lock.json").read_text() == ""
    take(tmp_path)


def test_it_is_released_after_an_exception(tmp_path):
    with pytest.raises(KeyError), WorkdirLock(tmp_path / "a" / "b"):
        raise KeyError
    take(tmp_path / "a" / "b")


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": 7}', "\x00\xff"])
def test_a_note_that_cannot_be_read_changes_nothing(tmp_path, note, holder):
    (tmp_path / "lock.json").write_text(note, encoding="latin1")
    with pytest.raises(ConfigError, match="another process is writing"):
        take(tmp_path)
    holder.kill()
    holder.wait()
    take(tmp_path)


@pytest.mark.parametrize("by", ["removal", "replacement"])
def test_a_lock_that_was_taken_away_is_noticed(tmp_path, by):
    with WorkdirLock(tmp_path) as lock:
        lock.check()
        lock.path.unlink()
        if by == "replacement":
            lock.path.write_text("")
        with pytest.raises(ConfigError, match="has lost the workdir"):
            lock.check()


def test_only_the_first_process_takes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "is_first", lambda: False)
    with WorkdirLock(tmp_path / "run") as lock:
        lock.check()
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_locked_is_one_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file: "):
        take(tmp_path / "file")

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    expected = "lock.json cannot be locked: Operation not supported"
    with pytest.raises(ConfigError, match=expected):
        take(tmp_path)
