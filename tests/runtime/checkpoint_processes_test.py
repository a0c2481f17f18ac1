# SPDX-License-Identifier: Apache-2.0
"""A failure on one of two processes ends both, or both recover from it."""

import re
import sys

import pytest

from tests.helpers.process_group import ProcessGroup
from tests.helpers.states import like, make_state
from trm_jax.runtime.checkpoint import Checkpoints
from trm_jax.training.digest import state_digest

SCRIPT = """
import functools, os, resource, sys, time
import tests.conftest
from tests.helpers.process_group import run_member
from trm_jax.runtime import processes

def main(values):
    import jax
    import jax.numpy as jnp
    from tests.helpers.states import init_fn, like
    from trm_jax.runtime.checkpoint import Checkpoints, SaveError
    from trm_jax.errors import CheckpointError
    from trm_jax.training.digest import state_digest
    from trm_jax.training.sharding import make_mesh, state_shardings

    folder, first = os.environ["FOLDER"], processes.is_first()
    mesh = make_mesh(1, 2)  # parameters lie on both

    def state_of(step):
        init = init_fn()
        shapes = jax.eval_shape(init, jax.random.key(0))
        init = jax.jit(init, out_shardings=state_shardings(shapes, mesh))
        number = jax.jit(
            lambda: jnp.array(step, jnp.int32),
            out_shardings=state_shardings(shapes, mesh).step,
        )()
        return init(jax.random.key(step))._replace(step=number)

    states = {step: state_of(step) for step in (1, 2, 3)}
    assert not states[1].params["embed_tokens"].is_fully_addressable
    assert int(states[3].step) == 3
    spec = like(states[1])
    saved = Checkpoints(folder, keep=9)
    assert saved.restore_newest(spec) is None
    for step in (1, 2):
        saved.save(states[step])
        while saved._save:
            saved.poll()
    assert saved.steps() == [1, 2]
    assert state_digest(saved.restore_newest(spec)) == state_digest(states[2])
    print("digest", state_digest(states[2]))

    # Process 1 may write no large file.
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    if not first:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    saved.save(states[3])
    try:
        while saved._save:
            saved.poll()
        raise AssertionError("no error")
    except SaveError as error:
        print("told:", error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert sorted(os.listdir(saved.folder)) == ["1", "2"]
    saved.save(states[3])
    saved.wait()
    assert saved.steps() == [1, 2, 3]

    # Process 1 is short of memory: no damage.
    restore = saved._reader.restore

    def failing(error, *args, **kwargs):
        saved._reader.restore = restore
        raise error

    for kind in (MemoryError, ValueError):
        if not first:
            saved._reader.restore = functools.partial(failing, kind("on process 1"))
        try:
            saved.restore_newest(spec)
            raise AssertionError("no error")
        except CheckpointError as error:
            print("stopped:", type(error).__name__, error)
        assert saved.steps() == [1, 2, 3]

    # A damaged file is damage for both.
    processes.barrier("before the damage")
    if first:
        os.truncate(saved.folder / "3" / "state" / "manifest.ocdbt", 5)
    processes.barrier("after the damage")
    assert state_digest(saved.restore_newest(spec)) == state_digest(states[2])
    assert saved.steps() == [1, 2]
    saved.close()
    print("done")
    return 0

run_member(main)
"""


@pytest.mark.slow
def test_trouble_of_one_process_is_trouble_of_both(tmp_path):
    line = [sys.executable, "-c", SCRIPT]
    env = {i: {"FOLDER": str(tmp_path / "run")} for i in range(2)}
    with ProcessGroup(line, 2, tmp_path / "logs", env=env) as group:
        codes = group.codes(120)
    assert codes == [0, 0], group.outputs()
    first, second = group.output(0), group.output(1)
    assert re.search("told: step 3 was not saved .*File too large", second)
    assert re.search("told: step 3 was not saved .*another process failed", first)
    assert re.findall("(?<=saved step )[0-9]", first) == ["1", "2", "3"]
    assert "is whole, but cannot be read: MemoryError: on process 1" in second
    assert "stopped: CheckpointError another process failed" in first
    for text in (first, second):
        assert "DAMAGED CHECKPOINT, step 3" in text
    # One process, on another mesh, reads what two processes wrote.
    spec = like(make_state(0, devices=2))
    found = Checkpoints(tmp_path / "run").restore_step(spec, 2)
    assert f"digest {state_digest(found)}" in first
