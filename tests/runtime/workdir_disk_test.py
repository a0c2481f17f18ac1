# SPDX-License-Identifier: Apache-2.0
"""The small files of a workdir on a disk that is full or read-only."""

import contextlib
import os
import subprocess

import pytest

from tests.helpers.compiled_once import run_commands_here
from tests.helpers.runs import call_here, short_flags
from tests.runtime.workdirs_test import CONFIG, DATASET
from trm_jax.commands import train
from trm_jax.errors import CheckpointError, ConfigError
from trm_jax.files import check_target, write_whole
from trm_jax.runtime import workdir as workdirs
from trm_jax.runtime.metric_writer import MetricWriter


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, "old", ConfigError)

    def full(number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ConfigError) as info:
            write_whole(path, b"new", ConfigError)
    assert str(info.value) == f"{path} cannot be written: No space left on device"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"
    write_whole(path, b"new", ConfigError)
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is a folder; expected a file"),
        ("file/report.json", "cannot be written: File exists"),
        ("new/folder/report.json", None),
    ],
)
def test_a_target_is_refused_before_the_work_if_no_file_can_be_there(
    tmp_path, name, problem
):
    (tmp_path / "file").touch()
    path = tmp_path / name
    if problem is None:
        check_target(path, ConfigError)
        assert [*path.parent.iterdir()] == []
        return
    with pytest.raises(ConfigError) as info:
        check_target(path, ConfigError)
    assert str(info.value) == f"{path} {problem}"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, and a function that makes it read-only."""
    path = tmp_path / "disk"
    path.mkdir()

    def mount(*args):
        line = ["mount", "-t", "tmpfs", *args, str(path)]
        done = subprocess.run(line, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting is not permitted: {done.stderr.strip()}")

    mount("-o", "size=1m", "tmpfs")
    yield path, lambda: mount("-o", "remount,ro", "tmpfs")
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(folder):
    file = (folder / "big").open("wb", buffering=0)
    with file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def write_many(writer):
    for step in range(2, 10_000):
        writer.write({"step": step})


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_disk_that_cannot_be_written_is_one_error(small_disk, trouble):
    folder, make_read_only = small_disk
    workdirs.claim(folder, CONFIG, DATASET)
    workdirs.record_run(folder, 0)
    writer = MetricWriter(folder, step=0)
    writer.write({"step": 1})
    if trouble == "full":
        fill(folder)
        with pytest.raises(CheckpointError, match="metrics.jsonl cannot be written"):
            write_many(writer)
        writer.close()
        reason = "No space left on device"
    else:
        writer.close()
        make_read_only()
        reason = "Read-only file system"
    before = {p: p.read_bytes() for p in folder.glob("*.json*")}
    for act in (
        lambda: workdirs.claim(folder, CONFIG, DATASET),
        lambda: workdirs.record_run(folder, 1),
        lambda: MetricWriter(folder, step=1),
    ):
        with pytest.raises((ConfigError, CheckpointError), match=f"cannot.*{reason}"):
            act()
    assert {p: p.read_bytes() for p in folder.glob("*.json*")} == before


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_the_command_ends_with_code_2(small_disk, trouble, monkeypatch):
    run_commands_here(monkeypatch)
    folder, make_read_only = small_disk
    fill(folder) if trouble == "full" else make_read_only()
    flags = short_flags(**{"train.steps": 2})
    result = call_here(train.main, f"--workdir={folder}", *flags)
    assert result.returncode == 2, result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert str(folder) in line
    reasons = {"full": "No space left", "read-only": "Read-only file system"}
    assert reasons[trouble] in line
