# SPDX-License-Identifier: Apache-2.0
"""4x4 Sudoku, the smallest task that tells networks apart.

Command:  python train.py --config=configs/sudoku_4x4.py:VARIANT --workdir=runs/4x4
          (mlp_t, attention, mamba2_mlp_t, mamba2_attn, mamba2_attn_bidir)
Hardware: one CPU core for each variant.
Time:     74 s (mlp_t), 86 s (attention), 209 to 246 s (hybrids).
Result:   exact on 512 unseen puzzles 100 % (mlp_t, mamba2_mlp_t), 99.8 % (mamba2_attn),
          99.2 % (attention), 98.2 % (mamba2_attn_bidir): seed 0, docs/hybrids.md.
"""

from ml_collections import ConfigDict

from . import demo


def get_config(variant: str = "mamba2_mlp_t") -> ConfigDict:
    """The demo with boxes of 2x2 and the hardest kind of 4x4 puzzles."""
    config = demo.get_config(variant)
    config.data.update(train_puzzles=1_000, test_puzzles=512, num_augmentations=1_000)
    config.data.sudoku.update(box_rows=2, box_cols=2, clues=(4, 8))
    config.train.update(steps=2_000, eval_every=200)
    config.eval.batch_size = 256
    return config
