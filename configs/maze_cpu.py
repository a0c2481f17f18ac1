# SPDX-License-Identifier: Apache-2.0
"""maze_hard small enough for a CPU: does the whole pipeline run on real mazes?

Command:  python train.py --config=configs/maze_cpu.py --workdir=runs/maze_cpu
          --config.data.train=train.csv.gz --config.data.test=test.csv.gz
          (the hybrid: --config=configs/maze_cpu.py:mamba2_attn)
Hardware: one CPU core.
Time:     about 40 minutes with other work on the machine.
Result:   after 600 updates of 8 mazes no maze is solved, and 87.6 % of the cells are
          correct, which is what copying the question gives (both networks, seed 0;
          docs/mazes.md).
"""

from ml_collections import ConfigDict

from . import _levers, default, maze_hard


def get_config(variant: str = "attention") -> ConfigDict:
    """The paper's recipe, narrower, with fewer cycles and a higher learning rate."""
    network, pulled = _levers.split(variant, "attention")
    config = maze_hard.get_config(network)
    config.data.source = "csv"
    config.model.update(d_model=64, prefix_len=0, dtype="float32")
    default.set_sizes(
        config,
        attention={"num_heads": 2},
        swiglu={"width": 128},
        mamba2={"head_dim": 16, "d_state": 32},
    )
    config.rule.trm.update(h_cycles=2, l_cycles=2)
    config.optim.update(
        lr=1e-3,
        table_lr=1e-3,
        warmup_steps=100,
        decay_start=0.6,
        min_ratio=0.1,
        ema_decay=0.99,
        ema_ramp=True,
    )
    config.train.update(
        steps=600,
        batch_size=8,
        micro_batches=1,
        log_every=20,
        eval_every=200,
        checkpoint_every=50,
    )
    config.eval.update(batch_size=20, max_puzzles=100)
    _levers.pull(config, pulled)
    return config
