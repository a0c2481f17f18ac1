# SPDX-License-Identifier: Apache-2.0
"""The config trains, evaluates and solves, with a grid that is no square."""

import json

import jax
import numpy as np
import pytest

import trm_jax
from configs import nonogram
from data_pipeline import tasks
from data_pipeline.loader import TrainLoader
from tests.helpers.compiled_once import run_commands_here
from tests.helpers.runs import call_here
from trm_jax.commands import eval as eval_command
from trm_jax.commands import train as train_command
from trm_jax.training.build import build
from trm_jax.training.sharding import put_batch

SMALL = {
    "data.train_puzzles": 12,
    "data.test_puzzles": 4,
    "data.num_augmentations": 3,
    "data.nonogram.cols": 6,
    "model.d_model": 16,
    "model.swiglu.width": 16,
    "model.token_mlp.width": 16,
    "rule.trm.h_cycles": 1,
    "rule.trm.l_cycles": 1,
    "halting.max_supervision_steps": 2,
    "optim.warmup_steps": 1,
    "train.steps": 2,
    "train.batch_size": 4,
    "train.log_every": 1,
    "eval.batch_size": 8,
}


@pytest.mark.slow
def test_two_steps_change_every_weight():
    config = nonogram.get_config("mlp_t")
    config.update_from_flattened_dict(SMALL)
    config.model.layers = config.model.layers[:2]
    config.mesh.data = 1
    data = tasks.load(config.data.to_dict())
    built = build(config.to_dict(), data.spec.sizes)
    loader = TrainLoader(data.train, batch_size=4, seed=0, variants=data.train_variants)
    state = built.init()
    before = jax.device_get(state.params)
    for k in range(2):
        state = built.train_step(state, put_batch(loader(k), built.mesh))
    after = jax.device_get(state.params)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert all(jax.tree.leaves(changed))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    assert int(state.step) == 2


@pytest.mark.slow
def test_the_config_trains_evaluates_and_solves(tmp_path, monkeypatch):
    run_commands_here(monkeypatch)
    workdir = f"--workdir={tmp_path}"
    flags = [f"--config.{key}={value}" for key, value in SMALL.items()]
    config = "--config=configs/nonogram.py:mlp_t"
    done = call_here(train_command.main, config, workdir, *flags)
    assert done.returncode == 0, done.stderr
    records = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert [record["step"] for record in records] == [1, 2]
    done = call_here(eval_command.main, workdir, "--votes=0")
    assert done.returncode == 0, done.stderr
    (result,) = (tmp_path / "eval").glob("*.json")
    assert 0 <= json.loads(result.read_text())["exact_accuracy"] <= 1
    model = trm_jax.load(str(tmp_path))
    solution = model.solve("1/1/1/1/1|1/1/1/1/1/0", votes=4)
    assert [len(line) for line in solution.answer.split("\n")] == [6] * 5
    assert solution.is_valid in (True, False)


def test_the_suffix_doubles_the_layers():
    for name in ("mlp_t", "attention", "mamba2_attn"):
        once, twice = (nonogram.get_config(name + end) for end in ("", "_4"))
        assert twice.model.layers == once.model.layers * 2
    message = "variant 'mlp'; expected a network first .mlp_t"
    with pytest.raises(ValueError, match=message):
        nonogram.get_config("mlp_4")
