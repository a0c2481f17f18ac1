# SPDX-License-Identifier: Apache-2.0
"""Generated 7x7 mazes, small enough for 2 CPU cores: does attention find paths?

Command:  python train.py --config=configs/maze_small.py --workdir=runs/maze_small
          python eval.py --workdir=runs/maze_small --votes=0
Hardware: 2 CPU cores.
Time:     12 minutes with other work on the machine.
Result:   of 512 unseen mazes, 40.0 % are exact and 43.2 % a shortest path; with votes
          over all 8 turns 42.8 % and 74.4 % (attention, seed 0; jax 0.10.2;
          docs/mazes.md). Runs of later commits: 22.3, 42.6
          and 37.5 % exact (seeds 0 to 2).
          maze_small.py:mamba2_attn: not run.
"""

from ml_collections import ConfigDict

from . import default, demo


def get_config(variant: str = "attention") -> ConfigDict:
    """The demo's network on generated mazes."""
    config = demo.get_config(variant)
    config.data = default.get_config().data
    config.data.update(
        task="maze",
        source="generator",
        train_puzzles=4_000,
        test_puzzles=512,
        num_augmentations=7,
    )
    config.data.maze.update(side=7, min_moves=6)
    config.optim.update(lr=2e-3, table_lr=2e-3, warmup_steps=100)
    config.train.update(steps=4_000, batch_size=64, eval_every=500)
    config.eval.update(batch_size=256)
    return config
