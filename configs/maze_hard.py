# SPDX-License-Identifier: Apache-2.0
"""Maze-Hard, 1,000 training mazes of 30x30: the recipe of TRM (arXiv 2510.04871).

Command:  python train.py --config=configs/maze_hard.py --workdir=runs/maze
          (the hybrid: --config=configs/maze_hard.py:mamba2_attn)
Hardware: one 80 GB GPU (not run).
Result:   exact accuracy in the papers 85.3 % (attention; 60.8 % when run again for
          arXiv 2602.12078), 80.6 % (mamba2_attn). Here not run.
Data:     from the hub; or --config.data.source=csv --config.data.train=train.csv
          --config.data.test=test.csv. Turned mazes are solved again: the published
          augmentation turns the path too, which then breaks the rule of the labels.
"""

from ml_collections import ConfigDict

from . import default


def get_config(variant: str = "attention") -> ConfigDict:
    """The paper's recipe with the network named by `variant`."""
    config = default.get_config()
    default.set_network(config, variant)
    config.data.update(task="maze", source="hub", num_augmentations=7)
    config.rule.trm.l_cycles = 4
    config.train.micro_batches = 12  # 39 GB at 64 rows (docs/performance.md)
    return config
