# SPDX-License-Identifier: Apache-2.0
"""A non-finite step changes no weight, and the run goes on."""

import json
import re
from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.faulty_runs import (
    NOWHERE,
    ROWS,
    assert_all_finite,
    assert_same_run,
    config_of,
    runner,
)
from tests.helpers.runs import digest, metric_lines
from tests.helpers.states import init_of, small_recipe
from trm_jax.commands import shell
from trm_jax.runtime.non_finite import (
    MAX_SKIPS,
    Guard,
    NonFiniteError,
    Seen,
)
from trm_jax.training.metrics import zero_metrics
from trm_jax.training.sharding import TABLE_UNIT, make_mesh, put_batch, state_shardings
from trm_jax.training.step import jit_train_step, make_train_step


@pytest.fixture
def run(monkeypatch):
    return runner(monkeypatch)


class Step:
    """A small network with a sharded puzzle table, and its step."""

    def __init__(self, *, devices=1, micro_batches=1, skips=True):
        self.config, self.mesh, first, shardings, self.jitted = program(
            devices, micro_batches, skips
        )
        self.state = jax.device_put(first, shardings)

    def __call__(self, state, batch):
        state = self.jitted(state, put_batch(batch._asdict(), self.mesh))
        return state, jax.device_get(state)


@cache
def program(devices, micro_batches, skips):
    """Config, mesh, first state on the host, its shardings, and the step."""
    recipe = small_recipe(num_puzzles=TABLE_UNIT, dtype="float32")
    mesh = make_mesh(devices)
    state = init_of(recipe, ROWS)(jax.random.key(0))
    step = make_train_step(
        recipe, seed=0, micro_batches=micro_batches, log_every=3, skips=skips
    )
    jitted = jit_train_step(step, state, mesh, micro_batches=micro_batches)
    shardings = state_shardings(state, mesh)
    return recipe.model.config, mesh, jax.device_get(state), shardings, jitted


SLOW = [(1, 1, "weight"), (2, 1, "id"), (2, 1, "weight"), (2, 2, "id")]


def spoilt(batch, how):
    if how == "id":
        batch.puzzle_id[3] = NOWHERE
    else:
        batch.weight[3] = np.inf
    return batch


@pytest.mark.parametrize(
    ("devices", "micro_batches", "how"),
    [
        (1, 1, "id"),
        (2, 2, "weight"),
        *(pytest.param(*v, marks=pytest.mark.slow) for v in SLOW),
    ],
)
def test_a_skipped_step_changes_no_weight(make_batch, devices, micro_batches, how):
    step = Step(devices=devices, micro_batches=micro_batches)
    batches = [make_batch(k, step.config, ROWS) for k in range(4)]
    state, first = step(step.state, batches[0])
    state, before = step(state, batches[1])
    # The next step replaces all rows by spoilt ones.
    state = state._replace(carry=state.carry._replace(halted=state.carry.halted | True))
    state, after = step(state, spoilt(batches[2], how))
    assert step.jitted._cache_size() <= 2  # the new `halted` has its own sharding
    for name in ("params", "ema_params", "opt_state", "puzzle_table", "constants"):
        chex.assert_trees_all_equal(getattr(after, name), getattr(before, name))
    assert after.step == 3
    assert after.carry.halted.all()
    chex.assert_tree_all_finite(after)
    np.testing.assert_array_equal(after.carry.batch.puzzle_id, batches[2].puzzle_id)
    good = before.metrics
    assert after.metrics["skipped"] == (1, 3)
    assert good["skipped"] == (0, 2)
    for name in good.keys() - {"skipped"}:
        chex.assert_trees_all_equal(after.metrics[name], good[name])
    _, last = step(state, batches[3])
    chex.assert_tree_all_finite(last)
    np.testing.assert_array_equal(last.carry.batch.inputs, batches[3].inputs)
    for name in ("params", "ema_params", "puzzle_table"):
        same = jax.tree.map(np.array_equal, getattr(last, name), getattr(after, name))
        assert not any(jax.tree.leaves(same))
    assert last.metrics["skipped"] == (0, 1)  # the count restarts after a log line
    assert last.opt_state[0].num_updates == 3


@pytest.mark.slow
def test_a_step_that_may_skip_is_otherwise_the_same(make_batch):
    found = []
    for skips in (False, True):
        step = Step(skips=skips)
        _, after = step(step.state, make_batch(0, step.config, ROWS))
        # The two programs differ by round-off, which Adam would amplify.
        found.append(after._replace(params=after.opt_state[0].m, ema_params=None))
    halting, skipping = found
    assert skipping.metrics["skipped"] == (0, 1)
    chex.assert_trees_all_close(skipping, halting, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("devices", [1, 2])
def test_the_table_is_not_copied_to_skip(make_batch, devices):
    counts = []
    for skips in (False, True):
        step = Step(devices=devices, skips=skips)
        batch = put_batch(make_batch(0, step.config, ROWS)._asdict(), step.mesh)
        text = step.jitted.lower(step.state, batch).compile().as_text()
        shape = rf"f32\[{TABLE_UNIT // devices},\d+\]"
        counts.append(len(re.findall(rf"= {shape}\S* (?:copy|select)\(", text)))
        assert re.search(shape, text)
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_a_run_skips_and_resumes_exactly(tmp_path, run, caplog):
    config = config_of("skip", keep_checkpoints=99)
    bad = {4, 5, 9}
    assert run(tmp_path / "run", config, bad=bad) == 0
    lines = [r for r in metric_lines(tmp_path / "run") if "train/skipped" in r]
    shares = {r["step"]: r["train/skipped"] for r in lines}
    expected = {3: 0, 6: 2 / 3, 9: 0, 12: 1 / 3, 15: 0, 16: 0}
    assert shares == pytest.approx(expected)
    assert_all_finite(tmp_path / "run")
    for step in (5, 6, 10):
        path = tmp_path / "run" / "non_finite" / f"step_{step}.json"
        assert f"at step {step}: SKIPPED (to replay: {path})" in caplog.text
        dump = json.loads(path.read_text())
        assert dump["puzzle_ids"] == [NOWHERE] * ROWS
        assert dump["batch"] == step - 1
    assert caplog.text.count("SKIPPED") == 3
    asked, folder = iter(range(99)), tmp_path / "stopped"
    stop = lambda: next(asked) >= 7  # noqa: E731
    assert run(folder, config, bad=bad, stop=stop) == shell.EXIT_STOPPED
    assert run(folder, config, bad=bad) == 0
    assert_same_run(folder, tmp_path / "run")


@pytest.mark.slow
def test_too_many_skips_in_a_row_end_the_run(tmp_path, run):
    config = config_of("skip")
    bad = set(range(2, 2 + MAX_SKIPS + 1))
    with pytest.raises(NonFiniteError, match="at step 13, after 10 skipped in a row"):
        run(tmp_path / "run", config, bad=bad)
    assert digest(tmp_path / "run")[0] == 10
    assert run(tmp_path / "less", config, bad={*bad, 13} - {7}) == 0


def sums(skipped, count):
    metrics = zero_metrics(())
    return metrics | {"skipped": (jnp.array(float(skipped)), jnp.array(float(count)))}


def test_a_step_is_counted_once_however_often_it_is_looked_at(tmp_path, caplog):
    guard = Guard(tmp_path, seed=0)
    ids, told = jnp.zeros(ROWS, jnp.int32), []
    # Sums restart after each log line, so a skip in a new window may have an old sum.
    window = [(1, 1), (2, 2), (2, 3), (1, 1), (1, 2), (2, 3)]
    for step, (skipped, count) in enumerate(window, start=1):
        for _ in range(2):
            guard.check(Seen(step, sums(skipped, count), ids))
        told.append(caplog.text.count("SKIPPED"))
    assert told == [1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["cell_loss", "grad_norm"])
def test_every_metric_is_watched(tmp_path, bad, name):
    guard, ids = Guard(tmp_path, seed=0), jnp.zeros(ROWS, jnp.int32)
    guard.check(Seen(3, sums(0, 1), ids))
    metrics = sums(0, 2) | {name: (jnp.array(bad), jnp.array(2.0))}
    with pytest.raises(NonFiniteError, match=f"{name} is .* at step 4"):
        guard.check(Seen(4, metrics, ids))
