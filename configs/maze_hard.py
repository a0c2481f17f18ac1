# SPDX-License-Identifier: Apache-2.0
"""Maze-Hard, 1,000 training mazes of 30x30: the recipe of TRM (arXiv 2510.04871).

Command:  python train.py --config=configs/maze_hard.py --workdir=runs/maze
          (the hybrid: --config=configs/maze_hard.py:mamba2_attn)
Hardware: one 80 GB GPU (not run).
Result:   exact accuracy is 85.3 % in TRM's paper (attention). arXiv 2602.12078 reports
          60.8 % for its own run of it, and 80.6 % (mamba2_attn). Not run here.
Data:     from the hub; or --config.data.source=csv --config.data.train=train.csv
          --config.data.test=test.csv. Turned mazes are solved again: the published
          augmentation also turns the path, which then may not be the label.
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
