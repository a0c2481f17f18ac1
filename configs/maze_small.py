# SPDX-License-Identifier: Apache-2.0
"""Placeholder.

Command: Hardware: Result:
"""

from ml_collections import ConfigDict

from configs import default, demo


def get_config(variant: str = "attention") -> ConfigDict:
    """The demo's network on mazes that are made at start."""
    config = demo.get_config(variant)
    config.data = default.get_config().data
    config.data.update(
        task="maze",
        source="generator",
        side=7,
        min_moves=6,
        train_puzzles=4_000,
        test_puzzles=512,
        num_augmentations=7,
    )
    config.model.update(d_model=64, h_cycles=2, l_cycles=2)
    config.optim.update(lr=1e-3, table_lr=1e-3, warmup_steps=100)
    config.train.update(steps=2_000, batch_size=64, eval_every=200)
    config.eval.update(batch_size=256)
    return config
