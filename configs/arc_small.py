# SPDX-License-Identifier: Apache-2.0
"""20 tasks of ARC-AGI-1 with small grids, which a CPU can train on.

Command:  python train.py --config=configs/arc_small.py --workdir=runs/arc_small
          --config.data.train=FOLDER, then python eval.py --workdir=runs/arc_small
          (the hybrid: --config=configs/arc_small.py:mamba2_attn
          --config.train.steps=1200; levers as in _levers.py)
Hardware: one CPU core.
Time:     under an hour with other work on the machine.
Result:   pass@2 21.7 % (attention) and 12.5 % (mamba2_attn; 1,200 updates) on 20
          training tasks with 24 test inputs, of which only the demonstrations are
          trained on: seed 0, docs/arc.md. This is not a score on ARC-AGI.
Data:     tasks with grids up to 10x10 on a canvas of 12x12, 32 augmentations each.
"""

from ml_collections import ConfigDict

from . import _levers, arc_agi_1, default

# Of the published recipes: what belongs to the rule, and not to the size.
RULES = {
    lever: {k: v for k, v in values.items() if k.startswith(("rule.", "eval."))}
    for lever, values in arc_agi_1.PUBLISHED.items()
}


def get_config(variant: str = "attention") -> ConfigDict:
    """The paper's recipe on small grids, with a narrower network and fewer cycles."""
    network, pulled = _levers.split(variant, "attention")
    config = arc_agi_1.get_config(network)
    config.data.update(test_puzzles=20, num_augmentations=32)
    config.data.arc.update(
        train_subsets=("training",), test_subset="training", side=12, max_grid=10
    )
    config.model.update(d_model=64, prefix_len=1, dtype="float32")
    default.set_sizes(
        config,
        attention={"num_heads": 4},
        swiglu={"width": 128},
        mamba2={"head_dim": 16, "d_state": 32},
    )
    config.rule.trm.update(h_cycles=2, l_cycles=2)
    config.optim.update(
        lr=2e-3,
        warmup_steps=100,
        decay_start=0.6,
        min_ratio=0.1,
        ema_decay=0.99,
        ema_ramp=True,
    )
    config.train.update(
        steps=2_500,
        batch_size=64,
        micro_batches=1,
        log_every=50,
        eval_every=500,
        checkpoint_every=100,
    )
    config.eval.update(batch_size=132, votes=0)
    _levers.pull(config, pulled, RULES)
    return config
