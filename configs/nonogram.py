# SPDX-License-Identifier: Apache-2.0
"""Generated 5x5 nonograms, small enough for 2 CPU cores: which networks learn them?

Command:  python train.py --config=configs/nonogram.py:VARIANT --workdir=runs/nonogram
          (mlp_t, attention or mamba2_attn; with _4 appended, such as mlp_t_4, the
          layers are repeated once more: 4 layers of TRM, or 2 of the hybrid's blocks)
          python eval.py --workdir=runs/nonogram --votes=0
Hardware: 2 CPU cores.
Time:     mlp_t 11 minutes for 1,400 updates, beside other work.
Result:   mlp_t 10.45, mlp_t_4 23.44, attention 3.32, attention_4 0.00 % of 1,024 unseen
          5x5 puzzles (seed 0, commit 30e065a; docs/nonograms.md).
Data:     from the generator; no test puzzle is a turned form of a training puzzle.
          Larger grids: --config.data.nonogram.rows=10 --config.data.nonogram.cols=10
"""

from ml_collections import ConfigDict

from . import default, demo


def get_config(variant: str = "mlp_t") -> ConfigDict:
    """The demo's network on nonograms; `_4` after its name doubles the layers."""
    config = demo.get_config(variant.removesuffix("_4"))
    if variant.endswith("_4"):
        config.model.layers *= 2
    config.data = default.get_config().data
    config.data.update(
        task="nonogram",
        source="generator",
        train_puzzles=4_000,
        test_puzzles=1_024,
        num_augmentations=7,
    )
    config.train.eval_every = 350
    return config
