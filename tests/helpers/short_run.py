# SPDX-License-Identifier: Apache-2.0
"""configs/smoke.py for tests of runs: half the layers, few puzzles, frequent saves."""

from configs import smoke


def get_config(variant="mlp_t"):
    config = smoke.get_config(variant)
    if variant in ("mlp_t", "attention"):
        config.model.layers = config.model.layers[:2]
    config.halting.max_supervision_steps = 4
    config.data.update(train_puzzles=12, test_puzzles=8)
    config.eval.batch_size = 8
    config.train.update(
        batch_size=8, log_every=3, eval_every=8, checkpoint_every=5, steps=20
    )
    return config
