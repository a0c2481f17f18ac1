# SPDX-License-Identifier: Apache-2.0
"""What a non-finite step leaves behind, in one process and in two."""

import json
import re
import shutil
import sys

import pytest

from data_pipeline import tasks
from tests.helpers.faulty_runs import (
    NOWHERE,
    ROWS,
    STEPS,
    assert_all_finite,
    config_of,
    runner,
)
from tests.helpers.process_group import ProcessGroup
from tests.helpers.runs import digest, metric_lines, short_config, short_flags
from trm_jax.errors import ConfigError
from trm_jax.runtime.non_finite import (
    NonFiniteError,
)
from trm_jax.training.build import build


@pytest.fixture
def run(monkeypatch):
    return runner(monkeypatch)


def test_a_halt_leaves_what_replays_the_fault(tmp_path, run):
    config = config_of("halt", checkpoint_every=100, log_every=100)
    path = tmp_path / "non_finite" / "step_12.json"
    for _ in range(2):
        with pytest.raises(
            NonFiniteError, match=re.escape(f"at step 12 (to replay: {path}")
        ):
            run(tmp_path, config, bad={11})
        dump = json.loads(path.read_text())
        shutil.rmtree(path.parent)
    assert (dump["step"], dump["seed"], dump["batch"]) == (12, 0, 11)
    assert dump["puzzle_ids"] == [NOWHERE] * ROWS
    assert dump["batch_size"] == ROWS
    sums = dump["sums_and_counts_since_the_last_log_line"]
    assert sums["loss"] == ["nan", 12 * ROWS]
    assert sums["skipped"] == [0, 12]
    assert not list((tmp_path / "checkpoints").iterdir())


def test_unknown_policies_are_refused():
    sizes = tasks.spec_of(short_config().to_dict()["data"]).sizes
    for key in ("on_non_finite", "on_save_error"):
        config = short_config().to_dict()
        config["train"][key] = "rollback"
        with pytest.raises(
            ConfigError, match=f"train.{key} = 'rollback'; expected one of"
        ):
            build(config, sizes)


@pytest.mark.slow
def test_the_policy_may_change_when_a_run_resumes(tmp_path, run):
    bad = {6, 13}
    with pytest.raises(NonFiniteError, match="at step 7"):
        run(tmp_path, config_of("halt"), bad=bad)
    assert digest(tmp_path)[0] == 5
    assert run(tmp_path, config_of("skip"), bad=bad) == 0
    assert digest(tmp_path)[0] == STEPS
    assert_all_finite(tmp_path)


FAULTY = """
from data_pipeline import loader
from trm_jax.commands import train
class Loader(loader.TrainLoader):
    def __call__(self, k):
        batch = super().__call__(k)
        if k in (8, 13):
            batch["puzzle_id"][:] = 10**6
        return batch
loader.TrainLoader = Loader
train.run()
"""


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["halt", "skip"])
def test_two_processes_go_around_a_fault_as_one(tmp_path, policy):
    settings = {"train.steps": STEPS, "train.on_non_finite": policy}
    flags = short_flags(**settings, **{"halting.max_supervision_steps": 1})
    line = [sys.executable, "-c", FAULTY, f"--workdir={tmp_path / 'run'}", *flags]
    with ProcessGroup(line, 2, tmp_path / "logs") as group:
        codes = group.codes(240)
    if policy == "halt":  # both find it; the first to end may end the other
        assert codes[0] == 1, group.outputs()
        assert codes[1] in (1, -6), group.outputs()
    else:
        assert codes == [0, 0], group.outputs()
    dumps = (tmp_path / "run" / "non_finite").iterdir()
    found = {json.loads(p.read_text())["batch"] for p in dumps}
    assert found == ({8} if policy == "halt" else {8, 13})
    steps = [r["step"] for r in metric_lines(tmp_path / "run")]
    if policy == "halt":
        assert "at step 9" in group.output(0)
        assert steps == [3, 6, 8]
    else:
        assert steps == [3, 6, 8, 9, 12, 15, 16]
