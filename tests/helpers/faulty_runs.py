# SPDX-License-Identifier: Apache-2.0
"""Short runs with batches that make a step non-finite."""

import numpy as np

from data_pipeline import loader
from tests.helpers.compiled_once import share_compilations
from tests.helpers.runs import digest, metric_lines, short_config
from trm_jax.commands import stop_signal, train

STEPS, ROWS = 16, 8
NOWHERE = 10**6  # a puzzle id outside of any table: its vector is NaN


def config_of(policy, **kwargs):
    config = short_config(on_non_finite=policy, **{"steps": STEPS} | kwargs).unlock()
    config.halting.max_supervision_steps = 1  # every row of every batch is used
    return config.lock()


TRAIN_LOADER = loader.TrainLoader


def runner(monkeypatch):
    """A function that trains in a folder and spoils the batches `bad`."""
    share_compilations(monkeypatch)

    def start(folder, config, *, bad=(), stop=lambda: False):
        class Loader(TRAIN_LOADER):
            def __call__(self, k):
                batch = super().__call__(k)
                if k in bad:
                    batch["puzzle_id"][:] = NOWHERE
                return batch

        monkeypatch.setattr(loader, "TrainLoader", Loader)
        monkeypatch.setattr(stop_signal, "StopSignal", lambda: stop)
        return train.train(config, str(folder))

    return start


def assert_same_run(folder, other):
    assert digest(folder) == digest(other)
    assert digest(folder)[0] == STEPS
    assert metric_lines(folder) == metric_lines(other)


def assert_all_finite(folder):
    for record in metric_lines(folder):
        assert all(np.isfinite(v) for v in record.values() if isinstance(v, float))
