# SPDX-License-Identifier: Apache-2.0
"""Several at once, or in each other's way, for the lock of one workdir."""

import shutil
import subprocess
import sys
import time

import pytest

from tests.helpers.runs import ROOT
from tests.runtime.workdir_lock_test import (
    MINUTE,
    a_dead_pid,
    age,
    files,
    lock_of,
    take,
)
from trm_jax.errors import ConfigError
from trm_jax.runtime import lock as workdir_lock


def test_the_owner_of_the_right_to_replace_may_die_as_well(tmp_path):
    dead_pid = a_dead_pid()
    lock_of(tmp_path, pid=dead_pid)
    guard = tmp_path / f"lock.json.after-{'0' * 32}"
    lock_of(tmp_path / "b", pid=dead_pid, token="1" * 32)
    shutil.move(tmp_path / "b" / "lock.json", guard)
    (tmp_path / "b").rmdir()
    take(tmp_path)
    lock_of(tmp_path, pid=dead_pid)
    alive = lock_of(tmp_path / "b", token="1" * 32)
    shutil.move(tmp_path / "b" / "lock.json", guard)
    (tmp_path / "b").rmdir()
    with pytest.raises(ConfigError, match=f"process {alive['pid']} on"):
        take(tmp_path)


def test_a_sign_of_life_at_the_last_moment_is_seen(tmp_path, monkeypatch):
    lock_of(tmp_path, machine="another", seconds=11 * MINUTE)
    name = workdir_lock._guard

    def beat(path, token):
        age(tmp_path / "lock.json", 0)  # just when it is to be taken over
        return name(path, token)

    monkeypatch.setattr(workdir_lock, "_guard", beat)
    with pytest.raises(ConfigError, match="is writing"):
        take(tmp_path)
    assert files(tmp_path) == ["lock.json"]


RACE = """
import sys, time
from pathlib import Path
from trm_jax.errors import ConfigError
from trm_jax.runtime.lock import WorkdirLock
root, start, rounds, gap = Path(sys.argv[1]), *map(float, sys.argv[2:])
won = []
for i in range(int(rounds)):
    time.sleep(max(start + i * gap - time.time(), 0))
    try:
        won.append((i, WorkdirLock(root / str(i)).__enter__()))
    except ConfigError as error:
        assert "is writing" in str(error), error
print(*(i for i, _ in won), flush=True)
sys.stdin.read()  # until all have tried
for _, lock in won:
    lock.check()
"""


def test_of_many_at_once_exactly_one_wins(tmp_path):
    dead_pid = a_dead_pid()
    rounds, racers, gap = 80, 8, 0.06
    for i in range(rounds):
        folder = tmp_path / str(i)
        folder.mkdir()
        path = folder / "lock.json"
        match i % 4:  # 0: there is no lock
            case 1:
                lock_of(folder, pid=dead_pid)
            case 2:
                lock_of(folder, seconds=11 * MINUTE, pid=1.5)
            case 3:
                lock_of(folder, pid=dead_pid)
                text = path.read_text().replace("0" * 32, "1" * 32)
                (folder / f"lock.json.after-{'0' * 32}").write_text(text)
    settings = [str(tmp_path), str(time.time() + 2), str(rounds), str(gap)]
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, *settings],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(racers)
    ]
    wins = [process.stdout.readline().split() for process in racing]
    for process in racing:
        process.communicate(timeout=60)
    assert [process.returncode for process in racing] == [0] * racers
    assert sorted(map(int, sum(wins, []))) == list(range(rounds))
    assert sum(map(bool, wins)) > 1  # it was a race
    for i in range(rounds):
        assert files(tmp_path / str(i)) == ["lock.json"]
