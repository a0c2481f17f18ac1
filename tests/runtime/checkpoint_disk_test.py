# SPDX-License-Identifier: Apache-2.0
"""Saves on a full or read-only disk, and when a save is reported as done."""

import contextlib
import errno
import gc
import itertools
import logging
import os
import resource
import subprocess
import threading

import chex
import jax
import jax.numpy as jnp
import pytest

from tests.helpers.states import like, make_state
from trm_jax.errors import CheckpointError, SaveError
from trm_jax.runtime import background_save, checkpoint
from trm_jax.runtime.background_save import BackgroundSave
from trm_jax.runtime.checkpoint import Checkpoints
from trm_jax.runtime.processes import ProcessError

# Orbax leaves tasks of failed writes behind, which warn when garbage-collected.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def _logged(caplog):
    caplog.set_level(logging.INFO, "trm_jax")


@pytest.fixture(autouse=True, scope="module")
def _collected_here():
    yield
    gc.collect()


@pytest.fixture(scope="module")
def base():
    return make_state()


@pytest.fixture
def state(base):
    """A function from steps to states of about 1 MB, too random to be compressed."""

    def make(step):
        key = jax.random.key(step)
        noise = jax.tree.map(lambda x: jax.random.normal(key, x.shape), base.params)
        return base._replace(step=jnp.array(step, jnp.int32), params=noise)

    return make


def mount(*args):
    done = subprocess.run(["mount", *args], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not permitted: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A file system of 8 MB, for a test to fill."""
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path))
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill(disk, leave):
    """Fill the disk with a file of another program, except for `leave` bytes."""
    found = os.statvfs(disk)
    with open(disk / "filler", "ab", buffering=0) as file:
        file.write(bytes(max(0, found.f_bavail * found.f_frsize - leave)))


def empty(disk):
    (disk / "filler").unlink()


def read_only(disk):
    mount("-o", "remount,ro", str(disk))


def writable(disk):
    mount("-o", "remount,rw", str(disk))


def no_large_files(_):
    """Limit the size of files: like a quota, this does not show in statvfs."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))


def large_files(_):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


MOMENT = {
    "make": (background_save, "make_draft"),
    "commit": (BackgroundSave, "_commit"),
}


def after(monkeypatch, moment, act):
    """Call `act` after the next call of the function of this moment."""
    owner, name = MOMENT[moment]
    whole = getattr(owner, name)

    def once(*args):
        monkeypatch.setattr(owner, name, whole)
        whole(*args)
        act()

    monkeypatch.setattr(owner, name, once)


def before(monkeypatch, moment, act):
    owner, name = MOMENT[moment]
    whole = getattr(owner, name)

    def once(*args):
        monkeypatch.setattr(owner, name, whole)
        act()
        return whole(*args)

    monkeypatch.setattr(owner, name, once)


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def assert_restores(checkpoints, state):
    found = checkpoints.restore_newest(like(state))
    chex.assert_trees_all_equal(found, state)
    chex.assert_trees_all_equal_dtypes(found, state)


def poll_until_it_ends(checkpoints):
    checkpoints._save.join()
    checkpoints.poll()


TROUBLE = {
    "full": (lambda disk: fill(disk, 100_000), empty, "No space left on device"),
    "read-only": (read_only, writable, "Read-only file system"),
    "quota": (no_large_files, large_files, "File too large"),
}


WHILE_WRITTEN, BEFORE_COMMIT = "while arrays are written", "before the commit"
MOMENTS = [*itertools.product(TROUBLE, [WHILE_WRITTEN, BEFORE_COMMIT])]
MOMENTS.remove(("quota", BEFORE_COMMIT))  # the manifest is a small file


@pytest.mark.slow
@pytest.mark.parametrize(("trouble", "moment"), MOMENTS)
def test_a_save_that_fails_on_its_way_is_told_and_costs_nothing_else(
    disk, state, monkeypatch, caplog, trouble, moment
):
    begin, end, reason = TROUBLE[trouble]
    if moment == BEFORE_COMMIT:
        begin = read_only if trouble == "read-only" else lambda disk: fill(disk, 0)
        at = before, "commit"
    else:
        at = after, "make"
    checkpoints = Checkpoints(disk, keep=2)
    for step in (1, 2):
        checkpoints.save(state(step))
    checkpoints.wait()
    at[0](monkeypatch, at[1], lambda: begin(disk))
    try:
        checkpoints.save(state(3))
        with pytest.raises(SaveError, match=f"step 3 was not saved .*{reason}") as told:
            poll_until_it_ends(checkpoints)
        assert str(disk / "checkpoints") in str(told.value)
        assert "saved step 3" not in caplog.text
        assert checkpoints.steps() == [1, 2]
        checkpoints.poll()  # it raises only once
        assert_restores(checkpoints, state(2))
    finally:
        end(disk)
    for step in (3, 4):  # the same step, and another
        checkpoints.save(state(step))
        checkpoints.wait()
        assert f"saved step {step}" in caplog.text
    assert names(disk) == ["3", "4"]
    assert_restores(checkpoints, state(4))
    checkpoints.close()


def test_what_a_failed_save_left_is_removed(disk, state, monkeypatch):
    checkpoints = Checkpoints(disk, keep=9)
    checkpoints.save(state(1))
    checkpoints.wait()
    after(monkeypatch, "make", lambda: fill(disk, 100_000))
    checkpoints.save(state(2))
    with pytest.raises(SaveError):
        checkpoints.wait()
    assert names(disk) == ["1"]
    checkpoints.close()


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (
            lambda disk: fill(disk, 400_000),
            r"0.000\d+ GiB are free, a save needs 0.00",
        ),
        (read_only, "Read-only file system"),
    ],
)
def test_a_save_that_cannot_start_is_told_at_once(disk, state, trouble, reason, caplog):
    checkpoints = Checkpoints(disk, keep=9)
    checkpoints.save(state(1))
    checkpoints.wait()
    trouble(disk)
    with pytest.raises(SaveError, match=f"step 2 was not saved .*{reason}.*intact"):
        checkpoints.save(state(2))
    checkpoints.poll()
    checkpoints.close()
    assert names(disk) == ["1"]
    assert_restores(Checkpoints(disk), state(1))
    assert "saved step 2" not in caplog.text


def test_a_disk_that_is_full_from_the_start_is_no_traceback(disk):
    read_only(disk)
    with pytest.raises(CheckpointError, match="checkpoints: Read-only file system"):
        Checkpoints(disk, keep=2)


def test_the_next_save_raises_the_failure_of_the_one_before(disk, state, monkeypatch):
    checkpoints = Checkpoints(disk, keep=9)
    after(monkeypatch, "make", lambda: fill(disk, 100_000))
    checkpoints.save(state(1))
    checkpoints._save.join()
    empty(disk)
    with pytest.raises(SaveError, match="step 1 was not saved"):
        checkpoints.save(state(2))
    checkpoints.save(state(2))
    checkpoints.close()
    assert names(disk) == ["2"]


def test_closing_tells_of_a_failure_and_hides_no_other(
    disk, state, monkeypatch, caplog
):
    after(monkeypatch, "make", lambda: fill(disk, 100_000))

    def run():
        with contextlib.closing(Checkpoints(disk, keep=9)) as checkpoints:
            checkpoints.save(state(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert "step 1 was not saved" in caplog.text


def test_a_save_that_hangs_ends_the_wait(tmp_path, state, monkeypatch):
    go_on = threading.Event()
    before(monkeypatch, "commit", lambda: go_on.wait(30))
    monkeypatch.setattr(checkpoint, "SAVE_LIMIT_S", 0.2)
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.save(state(7))
    with pytest.raises(ProcessError, match=r"step 7 is not in .* after 0\.2 s"):
        checkpoints.wait()
    go_on.set()


def test_processes_that_do_not_meet_in_a_save_are_no_failed_save(
    tmp_path, state, monkeypatch
):
    def apart():
        raise ProcessError("not all came")

    before(monkeypatch, "commit", apart)
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.save(state(7))
    with pytest.raises(ProcessError, match="not all came"):
        checkpoints.wait()


def test_what_must_come_before_a_save_does(tmp_path, state, monkeypatch):
    order = []
    before(monkeypatch, "make", lambda: order.append("make"))
    checkpoints = Checkpoints(tmp_path, keep=9)

    def fail():
        order.append("before")
        raise SaveError("the log cannot be written")

    with pytest.raises(SaveError, match="step 7 was not saved.*the log cannot"):
        checkpoints.save(state(7), before=fail)
    checkpoints.save(state(7), before=lambda: order.append("before") or {})
    checkpoints.wait()
    checkpoints.save(state(7), before=fail)  # it exists already
    assert order == ["before", "before", "make"]
    assert checkpoints.steps() == [7]


def test_saved_is_said_only_after_the_commit_and_polling_does_not_wait(
    tmp_path, state, monkeypatch, caplog
):
    go_on = threading.Event()
    before(monkeypatch, "commit", lambda: go_on.wait(30))
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.save(state(7))
    for _ in range(3):
        checkpoints.poll()
        assert checkpoints.steps() == []
    assert "saved" not in caplog.text
    go_on.set()
    poll_until_it_ends(checkpoints)
    assert checkpoints.steps() == [7]
    assert caplog.text.count("saved step 7") == 1
    checkpoints.close()


def test_closing_waits_for_the_commit(tmp_path, state, monkeypatch):
    go_on = threading.Event()
    before(monkeypatch, "commit", lambda: go_on.wait(30))
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.save(state(7))
    threading.Timer(0.3, go_on.set).start()
    checkpoints.close()
    assert names(tmp_path) == ["7"]


def test_a_commit_that_lost_bytes_is_no_commit(tmp_path, state, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=9)

    def lose():
        (draft,) = (tmp_path / "checkpoints").iterdir()
        (draft / "state" / "_METADATA").write_bytes(b"")

    before(monkeypatch, "commit", lose)
    checkpoints.save(state(1))
    with pytest.raises(SaveError, match="not all that was written is there"):
        checkpoints.wait()
    assert names(tmp_path) == []
    checkpoints.close()


def test_a_step_that_exists_is_not_saved_again(tmp_path, state):
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.save(state(3))
    checkpoints.save(state(3))  # waits for the first
    checkpoints.wait()
    path = tmp_path / "checkpoints" / "3"
    made = path.stat().st_mtime_ns
    checkpoints.save(state(3))
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=9)
    again.save(state(3))
    again.close()
    assert path.stat().st_mtime_ns == made
    assert names(tmp_path) == ["3"]


def test_an_old_step_that_cannot_be_removed_is_no_failure(
    tmp_path, state, monkeypatch, caplog
):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state(1))
    checkpoints.wait()

    def refuse(_):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", lambda *args, **kwargs: refuse(args))
    checkpoints.save(state(2))
    checkpoints.wait()
    assert "old checkpoints were not removed: [Errno 13]" in caplog.text
    assert checkpoints.steps() == [2]
    monkeypatch.undo()
    Checkpoints(tmp_path, keep=1).close()
    assert names(tmp_path) == ["2"]


def test_a_file_that_does_not_reach_the_disk_fails_its_save(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse(number):
        if os.readlink(f"/proc/self/fd/{number}").endswith("_METADATA"):
            raise OSError(errno.EIO, "Input/output error")
        fsync(number)

    monkeypatch.setattr(os, "fsync", refuse)
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.save(make_state(3))
    with pytest.raises(SaveError, match="step 3 was not saved .*Input/output error"):
        checkpoints.wait()
    assert checkpoints.steps() == []
    checkpoints.close()
