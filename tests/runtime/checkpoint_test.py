# SPDX-License-Identifier: Apache-2.0
import asyncio
import errno
import gc
import json
import logging
import os
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.helpers.states import like, make_state
from trm_jax.errors import CheckpointError, SaveError
from trm_jax.runtime import background_save, manifest
from trm_jax.runtime.checkpoint import Checkpoints
from trm_jax.training.digest import leaf_digests, state_digest

# Orbax leaves tasks of failed reads behind, which warn when garbage-collected.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True, scope="module")
def collected_here():
    yield
    gc.collect()


def save(folder, *steps):
    checkpoints = Checkpoints(folder, keep=9)
    for step in steps:
        checkpoints.save(make_state(step))
    checkpoints.close()


def restore(folder):
    checkpoints = Checkpoints(folder, keep=9)
    state = checkpoints.restore_newest(like(make_state()))
    checkpoints.close()
    return state


def files(folder, step):
    """All files of a step that are not empty."""
    root = folder / "checkpoints" / str(step)
    return sorted(p for p in root.rglob("*") if p.is_file() and p.stat().st_size)


def test_every_leaf_comes_back_to_the_bit(tmp_path):
    save(tmp_path, 3)
    state = make_state(3)
    found = restore(tmp_path)
    chex.assert_trees_all_equal(found, state)
    chex.assert_trees_all_equal_dtypes(found, state)
    assert type(found) is type(state)
    assert type(found.carry.batch) is type(state.carry.batch)


def test_what_is_saved_is_the_state_before_it_is_trained_on(tmp_path):
    state = make_state(1)._replace(puzzle_table=jnp.arange(2.0**23).reshape(2**15, -1))
    change = jax.jit(
        lambda s: jax.tree.map(lambda x: x ^ True if x.dtype == bool else x + 1, s),
        donate_argnums=0,
    )
    checkpoints = Checkpoints(tmp_path, keep=9)
    expected = jax.device_get(state)
    checkpoints.save(state)
    for _ in range(5):
        state = change(state)
    checkpoints.wait()
    found = checkpoints.restore_step(like(state), 1)
    chex.assert_trees_all_equal(jax.device_get(found), expected)
    checkpoints.close()


def test_the_newest_step_is_restored_and_a_step_by_name(tmp_path):
    save(tmp_path, 1, 2, 5)
    assert int(restore(tmp_path).step) == 5
    checkpoints = Checkpoints(tmp_path, keep=9)
    spec = like(make_state())
    assert int(checkpoints.restore_step(spec, 2).step) == 2
    assert int(checkpoints.restore_step(spec, None).step) == 5
    with pytest.raises(CheckpointError, match="step 4; found: 1, 2, 5"):
        checkpoints.restore_step(spec, 4)


def test_nothing_saved_is_no_error_but_a_step_asked_for_is(tmp_path):
    assert restore(tmp_path) is None
    with pytest.raises(CheckpointError, match="found: none"):
        Checkpoints(tmp_path).restore_step(like(make_state()), None)
    with pytest.raises(CheckpointError, match="nothing was saved yet"):
        Checkpoints(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_what_a_kill_left_of_a_save_is_removed_by_the_next_run_alone(tmp_path):
    save(tmp_path, 1)
    cut = tmp_path / "checkpoints" / "2.tmp-1"
    cut.mkdir()
    Checkpoints(tmp_path).close()
    assert cut.exists()  # readers change nothing: a run may be saving now
    Checkpoints(tmp_path, keep=9).close()
    assert not cut.exists()


TROUBLES = {
    "memory of a device": jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no memory"),
    "memory": MemoryError("no memory"),
    "threads": RuntimeError("can't start new thread"),
    "files": OSError(errno.EMFILE, "Too many open files"),
    "permission": PermissionError(errno.EACCES, "Permission denied"),
    "time": TimeoutError("the disk did not answer"),
    "anything": ValueError("no such thing"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_of_the_machine_sets_nothing_aside(tmp_path, monkeypatch, trouble):
    save(tmp_path, 1)
    checkpoints = Checkpoints(tmp_path, keep=9)

    def restore(*args, **kwargs):
        raise TROUBLES[trouble]

    monkeypatch.setattr(checkpoints._reader, "restore", restore)
    with pytest.raises(CheckpointError, match="1 is whole, but cannot be read: "):
        checkpoints.restore_newest(like(make_state()))
    assert names(tmp_path) == ["1"]


@pytest.mark.parametrize("trouble", ["permission", "files"])
@pytest.mark.parametrize("name", ["manifest", "file_digest"])
def test_what_cannot_be_read_now_is_not_called_damaged(
    tmp_path, monkeypatch, trouble, name
):
    save(tmp_path, 1)
    checkpoints = Checkpoints(tmp_path, keep=9)

    def fail(*args, **kwargs):
        raise TROUBLES[trouble]

    if name == "manifest":
        monkeypatch.setattr("pathlib.Path.read_bytes", fail)
    else:
        monkeypatch.setattr(checkpoints._reader, "restore", fail)
        monkeypatch.setattr(manifest, "file_digest", fail)
    with pytest.raises((CheckpointError, OSError)):
        checkpoints.restore_newest(like(make_state()))
    assert names(tmp_path) == ["1"]


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["params", "ema_params", "constants", "puzzle_table"])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, field, value):
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.save(make_state(1))
    state = make_state(2)
    leaves, tree = jax.tree.flatten(getattr(state, field))
    leaves[-1] = leaves[-1].at[(0,) * leaves[-1].ndim].set(value)
    checkpoints.save(state._replace(**{field: jax.tree.unflatten(tree, leaves)}))
    with pytest.raises(SaveError, match=rf"step 2 was not saved.*{field}.* not finite"):
        checkpoints.wait()
    assert names(tmp_path) == ["1"]
    checkpoints.close()


def test_a_trial_save_leaves_nothing(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.try_to_save(make_state(3))
    assert names(tmp_path) == []
    assert "saved" not in caplog.text
    checkpoints.save(make_state(3))
    checkpoints.try_to_save(make_state(3))
    checkpoints.close()
    assert names(tmp_path) == ["3"]


@pytest.mark.parametrize("fault", ["writes nothing", "reads back another step"])
def test_a_save_that_cannot_be_read_is_no_save(tmp_path, monkeypatch, fault):
    if fault == "writes nothing":
        finalize = ocp.StandardCheckpointHandler.finalize

        def lost(handler, folder):
            finalize(handler, folder)
            (folder / "manifest.ocdbt").unlink()

        monkeypatch.setattr(ocp.StandardCheckpointHandler, "finalize", lost)
    else:
        monkeypatch.setattr(background_save, "read_step", lambda folder: 7)
    checkpoints = Checkpoints(tmp_path, keep=9)
    with pytest.raises(CheckpointError, match="trial before the first step: .* not"):
        checkpoints.try_to_save(make_state(0))
    checkpoints.save(make_state(1))
    with pytest.raises(SaveError, match="step 1 was not saved"):
        checkpoints.wait()
    assert names(tmp_path) == []
    checkpoints.close()


def test_a_folder_whose_name_is_not_utf8_is_refused_at_once(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(CheckpointError, match="expected a folder name in UTF-8"):
        Checkpoints(folder, keep=9)
    assert list(tmp_path.iterdir()) == []


def test_records_come_back_with_the_step(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=9)
    for step in (1, 2):
        checkpoints.save(make_state(step), before=lambda step=step: {"at": step})
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=9)
    again.restore_newest(like(make_state()))
    assert again.records == {"at": 2}
    again.restore_step(like(make_state()), 1)
    assert again.records == {"at": 1}


@pytest.mark.parametrize("name", ["a[b]c", "a*?", "50 % of #1"])
def test_any_folder_name_will_do(tmp_path, name):
    save(tmp_path / name, 1, 2)
    chex.assert_trees_all_equal(restore(tmp_path / name), make_state(2))


def test_a_checkpoint_of_another_format_is_refused_not_aside(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "FORMAT", 1)
        save(tmp_path, 1)
    with pytest.raises(CheckpointError, match="format 1, expected 2"):
        restore(tmp_path)
    assert (tmp_path / "checkpoints" / "1").exists()


def test_old_steps_are_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(make_state(step))
    checkpoints.close()
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept == ["2", "3"]


def flip_bit(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(data))


def array_file(folder, step):
    """The largest of the files that hold array values."""
    arrays = [p for p in files(folder, step) if p.parent.name == "d"]
    return max(arrays, key=lambda p: p.stat().st_size)


def test_one_flipped_bit_in_the_arrays_is_always_seen(tmp_path, caplog):
    rng = np.random.default_rng(1)
    save(tmp_path, 1, *range(10, 18))
    for step in range(10, 18):
        flip_bit(array_file(tmp_path, step), rng)
    with caplog.at_level(logging.WARNING):
        assert int(restore(tmp_path).step) == 1
    assert "using the checkpoint of step 1 instead" in caplog.text
    aside = [p.name for p in (tmp_path / "checkpoints").glob("damaged-*")]
    assert len(aside) == 8


@pytest.mark.parametrize(
    "edit", [{"digest": "0" * 16}, {"dtype": "float32"}, {"shape": [2]}]
)
def test_a_manifest_that_was_edited_is_damage(tmp_path, edit):
    save(tmp_path, 1, 2)
    (path,) = (tmp_path / "checkpoints" / "2" / "manifest").glob("metadata")
    manifest = json.loads(path.read_text())
    manifest["leaves"]["step"] |= edit
    path.write_text(json.dumps(manifest))
    assert int(restore(tmp_path).step) == 1


def test_a_step_under_the_name_of_another_is_damage(tmp_path):
    save(tmp_path, 1, 2)
    root = tmp_path / "checkpoints"
    shutil.copytree(root / "1", root / "5")
    assert int(restore(tmp_path).step) == 2
    assert (root / "damaged-5").exists()


def test_digests_do_not_depend_on_the_mesh():
    one, two = make_state(devices=1), make_state(devices=2)
    assert len(two.carry.state.y.sharding.device_set) == 2
    assert leaf_digests(one) == leaf_digests(two)
    assert state_digest(one) == state_digest(two)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_digests_see_every_bit_and_every_swap(dtype):
    values = np.random.default_rng(0).integers(0, 2, (4, 6))
    x = jnp.asarray(values).astype(dtype)
    seen = {state_digest([x])}
    words = np.asarray(x).view(np.uint8).ravel()
    bits = 1 if dtype == "bool" else 8
    for byte in range(len(words)):
        for bit in range(bits):
            changed = words.copy()
            changed[byte] ^= 1 << bit
            array = changed.view(np.asarray(x).dtype).reshape(x.shape)
            seen.add(state_digest([jnp.asarray(array)]))
    assert len(seen) == 1 + bits * len(words)
    assert state_digest([x[::-1]]) not in seen
    if dtype in ("float32", "bfloat16"):  # changes that cancel in a plain sum
        assert state_digest([-x]) not in seen
    assert state_digest([x.T]) != state_digest([x])


def test_a_checkpoint_restores_on_another_mesh(tmp_path):
    save(tmp_path, 1)
    wide = make_state(1, devices=2)
    checkpoints = Checkpoints(tmp_path, keep=9)
    found = checkpoints.restore_newest(like(wide))
    assert found.carry.state.y.sharding == wide.carry.state.y.sharding
    chex.assert_trees_all_equal(jax.device_get(found), jax.device_get(wide))


def test_a_notebooks_own_event_loop_is_in_nobodys_way(tmp_path):
    async def cell():
        save(tmp_path, 3)
        return restore(tmp_path)

    chex.assert_trees_all_equal(asyncio.run(cell()), make_state(3))
