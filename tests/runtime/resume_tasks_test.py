# SPDX-License-Identifier: Apache-2.0
"""Every task with every mixer: a stop after any step resumes exactly."""

import pytest

from configs import arc_small, default, maze_small
from tests.helpers.compiled_once import share_compilations
from tests.helpers.runs import ROOT, digest, metric_lines, short_config
from trm_jax.commands import shell, stop_signal, train
from trm_jax.errors import EXIT_STOPPED

STEPS = 8  # saved after 3 and 6, evaluated after 4
MIXERS = ("attention", "mlp_t", "mamba2_attn")
SIZES = {
    "attention": {"num_heads": 2},
    "swiglu": {"width": 32},
    "token_mlp": {"width": 16},
    "mamba2": {"head_dim": 8, "d_state": 8, "chunk_size": 16},
}


def config_of(task, mixer):
    match task:
        case "sudoku":
            config = short_config(mixer).unlock()
        case "maze":
            config = maze_small.get_config(mixer)
            config.data.update(train_puzzles=12, test_puzzles=8)
            config.data.maze.update(side=5, min_moves=3)
        case "arc":
            config = arc_small.get_config(mixer)
            config.data.train = str(ROOT / "tests/data_pipeline/bad/arc_ok")
            config.data.update(test_puzzles=2, num_augmentations=3)
    config.model.update(d_model=16, prefix_len=1, dtype="float32")
    default.set_sizes(config, **SIZES)
    config.rule.trm.update(h_cycles=1, l_cycles=1)
    config.halting.max_supervision_steps = 3
    config.eval.update(batch_size=8, max_puzzles=8, votes=1)
    config.train.update(batch_size=8, log_every=2, eval_every=4, checkpoint_every=3)
    config.train.steps = STEPS
    return config.lock()


def run(monkeypatch, folder, config, stop_after=None):
    done = []
    with monkeypatch.context() as patch:
        share_compilations(patch)
        patch.setattr(shell.BAR, "update", lambda k, *_: done.append(k))
        patch.setattr(stop_signal, "StopSignal", lambda: lambda: stop_after in done)
        return train.train(config, str(folder))


def assert_resumes_exactly(tmp_path, monkeypatch, task, mixer, stops):
    config, unbroken = config_of(task, mixer), tmp_path / "unbroken"
    assert run(monkeypatch, unbroken, config) == 0
    expected = digest(unbroken), metric_lines(unbroken)
    assert expected[0][0] == STEPS
    for step in stops:
        folder = tmp_path / f"stopped_{step}"
        assert run(monkeypatch, folder, config, stop_after=step) == EXIT_STOPPED
        assert digest(folder)[0] == step
        assert run(monkeypatch, folder, config) == 0
        assert (digest(folder), metric_lines(folder)) == expected


@pytest.mark.slow
def test_a_stop_on_a_save_and_between_two_resumes_exactly(tmp_path, monkeypatch):
    assert_resumes_exactly(tmp_path, monkeypatch, "maze", "mlp_t", [3, 5])


@pytest.mark.slow
@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("task", ["sudoku", "maze", "arc"])
def test_a_stop_after_any_step_resumes_exactly(tmp_path, monkeypatch, task, mixer):
    assert_resumes_exactly(tmp_path, monkeypatch, task, mixer, range(1, STEPS))
