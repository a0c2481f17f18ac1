# SPDX-License-Identifier: Apache-2.0
"""Every kind of damage to every file and folder of a checkpoint, one test for each.

Two steps are saved, and step 2 is damaged. A run survives if it restores the state of
step 2 or of step 1 to the bit. If it restores step 1, it must have set step 2 aside.
"""

import gc
import os
import shutil

import chex
import jax
import numpy as np
import pytest

from tests.helpers.states import like, make_state
from tests.runtime.checkpoint_test import flip_bit
from trm_jax.errors import CheckpointError
from trm_jax.runtime.checkpoint import Checkpoints

# Orbax leaves tasks of failed reads behind, which warn when garbage-collected.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
NEWEST, BEFORE = 2, 1


@pytest.fixture(autouse=True, scope="module")
def _collected_here():
    yield
    gc.collect()


@pytest.fixture(scope="module")
def states():
    return {step: make_state(step) for step in (BEFORE, NEWEST)}


@pytest.fixture(scope="module")
def whole(states, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    checkpoints = Checkpoints(folder, keep=9)
    for state in states.values():
        checkpoints.save(state)
    checkpoints.close()
    return folder


@pytest.fixture
def copies(whole, tmp_path):
    """A function that makes a fresh copy of the workdir."""

    def copy():
        number = len(list(tmp_path.iterdir()))
        return shutil.copytree(whole, tmp_path / str(number))

    return copy


@pytest.fixture
def workdir(copies):
    return copies()


def step_folder(workdir, step=NEWEST):
    return workdir / "checkpoints" / str(step)


def halve(path, _):
    os.truncate(path, path.stat().st_size // 2)


def cut(path, _):
    os.truncate(path, path.stat().st_size - 1)


def grow(path, rng):
    with path.open("ab") as file:
        file.write(rng.bytes(64))


def noise(path, rng):
    path.write_bytes(rng.bytes(path.stat().st_size))


def zero(path, _):
    path.write_bytes(bytes(path.stat().st_size))


def to_folder(path, _):
    path.unlink()
    path.mkdir()


FILE_DAMAGE = {
    "delete": lambda path, _: path.unlink(),
    "flip": flip_bit,
    "cut": cut,
    "halve": halve,
    "empty": lambda path, _: path.write_bytes(b""),
    "zero": zero,
    "noise": noise,
    "grow": grow,
    "folder": to_folder,
}
# The number of data files varies: the last index of a folder stands for all further
# files.
FILES = {
    "manifest/metadata": None,
    "state/_METADATA": None,
    "state/_sharding": None,
    "state/array_metadatas/process_0": None,
    "state/manifest.ocdbt": None,
    "state/d": (0, 1),
    "state/ocdbt.process_0/manifest.ocdbt": None,
    "state/ocdbt.process_0/d": (0, 3),
}
FOLDERS = (
    "manifest",
    "state",
    "state/array_metadatas",
    "state/d",
    "state/ocdbt.process_0",
    "state/ocdbt.process_0/d",
)


# A step cannot be restored without these. Orbax does not need all of the others, and
# a data file may hold bytes that nothing refers to: then the digests show that every
# value is correct.
NEEDED = (
    ("manifest/metadata", None),
    ("state/_METADATA", None),
    ("state/manifest.ocdbt", None),
    ("state/d", 0),
    ("state/ocdbt.process_0/d", 0),
)
HARMLESS = ("state/array_metadatas",)  # folders


def slow(*values):
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def damages():
    first, second, *rest = FILE_DAMAGE
    return [first, second, *slow(*rest)]


def slots():
    for name, indices in FILES.items():
        if indices is None:
            yield name, None
        else:
            yield from ((name, index) for index in range(*indices))


def named(slot, folder):
    """The files of a slot; data files are sorted by decreasing size."""
    name, index = slot
    if index is None:
        return [folder / name]
    found = sorted((folder / name).iterdir(), key=lambda p: (-p.stat().st_size, p.name))
    is_last = index == FILES[name][1] - 1
    return found[index:] if is_last else found[index : index + 1]


def assert_survived(workdir, states):
    """Check that a run survives the damage; return the step that it restored."""
    like_newest = like(states[NEWEST])
    damaged = sorted(workdir.rglob("*"))
    try:  # an evaluation gets correct values or an error, and changes nothing
        found = Checkpoints(workdir).restore_step(like_newest, NEWEST)
    except CheckpointError as error:
        found, reason = None, str(error)
    else:
        chex.assert_trees_all_equal(found, states[NEWEST])
    assert found or str(step_folder(workdir)) in reason
    assert sorted(workdir.rglob("*")) == damaged
    checkpoints = Checkpoints(workdir, keep=9)
    restored = checkpoints.restore_newest(like_newest)
    step = int(restored.step)
    assert (step == NEWEST) == (found is not None)
    chex.assert_trees_all_equal(restored, states[step])
    chex.assert_trees_all_equal_dtypes(restored, states[step])
    aside = workdir / "checkpoints" / f"damaged-{NEWEST}"
    assert os.path.lexists(aside) == (step == BEFORE)
    # The run goes on and saves what it lost.
    checkpoints.save(states[NEWEST])
    checkpoints.close()
    assert checkpoints.steps() == [BEFORE, NEWEST]
    return step


def test_the_matrix_knows_every_file_and_folder(whole):
    folder = step_folder(whole)
    found = {p for p in folder.rglob("*") if p.is_file()}
    assert {path for slot in slots() for path in named(slot, folder)} == found
    assert {folder / name for name in FOLDERS} == {
        p for p in folder.rglob("*") if p.is_dir()
    }


def slot_id(slot):
    name, index = slot
    return name if index is None else f"{name}/{index}"


@pytest.mark.parametrize("damage", damages())
@pytest.mark.parametrize("slot", list(slots()), ids=slot_id)
def test_file(whole, copies, states, slot, damage):
    for seed, path in enumerate(named(slot, step_folder(whole))):
        workdir = copies()
        victim = workdir / path.relative_to(whole)
        FILE_DAMAGE[damage](victim, np.random.default_rng(seed))
        step = assert_survived(workdir, states)
        if slot in NEEDED and damage not in ("grow", "cut"):
            assert step == BEFORE


@pytest.mark.parametrize("seed", [*range(3), *slow(*range(3, 20))])
def test_bit_anywhere(workdir, states, seed):
    rng = np.random.default_rng(seed)
    files = sorted(p for p in step_folder(workdir).rglob("*") if p.is_file())
    sizes = np.array([p.stat().st_size for p in files])
    flip_bit(files[rng.choice(len(files), p=sizes / sizes.sum())], rng)
    assert_survived(workdir, states)


def replace(path):
    shutil.rmtree(path)
    path.write_bytes(b"a file")


def drain(path):
    shutil.rmtree(path)
    path.mkdir()


@pytest.mark.parametrize("damage", [shutil.rmtree, *slow(drain, replace)])
@pytest.mark.parametrize("name", FOLDERS)
def test_folder(workdir, states, name, damage):
    damage(step_folder(workdir) / name)
    step = assert_survived(workdir, states)
    assert (step == BEFORE) == (name not in HARMLESS)


@pytest.mark.parametrize("damage", [drain, replace])
def test_folder_of_the_step(workdir, states, damage):
    damage(step_folder(workdir))
    assert assert_survived(workdir, states) == BEFORE


def test_manifest_of_another_step(workdir, states):
    name = "manifest/metadata"
    shutil.copy(step_folder(workdir, BEFORE) / name, step_folder(workdir) / name)
    assert assert_survived(workdir, states) == BEFORE


def test_arrays_of_another_step(workdir, states):
    shutil.rmtree(step_folder(workdir) / "state")
    shutil.copytree(
        step_folder(workdir, BEFORE) / "state", step_folder(workdir) / "state"
    )
    assert assert_survived(workdir, states) == BEFORE


@pytest.mark.parametrize("damage", damages())
def test_all_steps(workdir, states, damage):
    rng = np.random.default_rng(0)
    for step in states:
        FILE_DAMAGE[damage](step_folder(workdir, step) / "manifest" / "metadata", rng)
    for _ in range(2):  # no silent fresh start, not even the second time
        with pytest.raises(CheckpointError, match="no intact checkpoint is left"):
            Checkpoints(workdir, keep=9).restore_newest(like(states[NEWEST]))
    aside = sorted(p.name for p in (workdir / "checkpoints").iterdir())
    assert aside == ["damaged-1", "damaged-2"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_other_names_are_no_steps_and_stay(workdir, states, kind):
    names = "12.tmp", "abc", "-3", "007", "1e3", "2.5", "\u0661\u0662", ".nfs01", " 9"
    others = [workdir / "checkpoints" / name for name in names]
    for other in others:
        other.mkdir() if kind == "folder" else other.write_text("mine")
    checkpoints = Checkpoints(workdir, keep=2)
    found = checkpoints.restore_newest(like(states[NEWEST]))
    checkpoints.save(found._replace(step=found.step + 1))
    checkpoints.close()
    assert checkpoints.steps() == [2, 3]
    assert all(other.exists() for other in others)


@pytest.mark.parametrize("kind", ["file", "empty folder", "broken link"])
def test_what_has_the_name_of_a_step_and_is_none_is_set_aside(workdir, states, kind):
    path = workdir / "checkpoints" / "12"
    if kind == "file":
        path.write_text("mine")
    elif kind == "broken link":
        path.symlink_to("nowhere")
    else:
        path.mkdir()
    checkpoints = Checkpoints(workdir, keep=9)
    found = checkpoints.restore_newest(like(states[NEWEST]))
    chex.assert_trees_all_equal(found, states[NEWEST])
    assert checkpoints.steps() == [BEFORE, NEWEST]
    assert os.path.lexists(workdir / "checkpoints" / "damaged-12")


@pytest.fixture
def nobody(tmp_path):
    """Run the rest of the test without the rights of root."""
    if os.geteuid():
        yield
        return
    for folder in (tmp_path, *tmp_path.parents):
        if "pytest-of" in str(folder):
            folder.chmod(0o711)
    os.seteuid(65534)
    reachable = os.access(tmp_path, os.X_OK, effective_ids=True)
    if reachable:
        yield
    os.seteuid(0)
    if not reachable:
        pytest.skip("the folder of the tests lies where root alone may look")


@pytest.mark.parametrize(
    "name", ["manifest/metadata", "state/_METADATA", "state/d", ""]
)
def test_a_file_that_may_not_be_read_is_no_damage(
    workdir, states, name, request, caplog
):
    workdir.chmod(0o711)
    (step_folder(workdir) / name).chmod(0)
    request.getfixturevalue("nobody")
    checkpoints = Checkpoints(workdir)
    with pytest.raises(CheckpointError, match="cannot be read: .*Permission denied"):
        checkpoints.restore_newest(like(states[NEWEST]))
    assert "DAMAGED" not in caplog.text
    assert checkpoints.steps() == [BEFORE, NEWEST]


def test_a_disk_that_does_not_answer_is_no_damage(workdir, states, monkeypatch):
    checkpoints = Checkpoints(workdir)

    def restore(*args, **kwargs):
        raise TimeoutError("no answer")

    monkeypatch.setattr(checkpoints._reader, "restore", restore)
    with pytest.raises(CheckpointError, match="cannot be read: TimeoutError"):
        checkpoints.restore_newest(like(states[NEWEST]))
    assert checkpoints.steps() == [BEFORE, NEWEST]


@pytest.mark.parametrize(
    "path",
    [
        "params/embed_tokens",
        "ema_params",
        "opt_state",
        "carry/state/y",
        "puzzle_table",
    ],
)
@pytest.mark.parametrize("change", ["dtype", "shape"])
def test_another_dtype_or_shape_is_refused_and_no_damage(workdir, states, path, change):
    def other(key, leaf):
        name = jax.tree_util.keystr(key, simple=True, separator="/")
        if not name.startswith(path) or not leaf.ndim:
            return leaf
        changes = {
            "dtype": {"dtype": "float16"},
            "shape": {"shape": leaf.shape[::-1] + (1,)},
        }
        kwargs = {"shape": leaf.shape, "dtype": leaf.dtype} | changes[change]
        return jax.ShapeDtypeStruct(**kwargs, sharding=leaf.sharding)

    spec = jax.tree_util.tree_map_with_path(other, like(states[NEWEST]))
    checkpoints = Checkpoints(workdir, keep=9)
    with pytest.raises(CheckpointError, match=f"{path}.* in the checkpoint, expected"):
        checkpoints.restore_newest(spec)
    assert checkpoints.steps() == [BEFORE, NEWEST]
