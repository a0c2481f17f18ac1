# SPDX-License-Identifier: Apache-2.0
"""ARC-AGI-1: the recipe of TRM (arXiv 2510.04871).

Command:  python train.py --config=configs/arc_agi_1.py --workdir=runs/arc1
          --config.data.train=FOLDER, then python eval.py --workdir=runs/arc1 --votes=0
          (the hybrid: --config=configs/arc_agi_1.py:mamba2_attn; levers as in
          _levers.py: urm, flow)
Hardware: one 80 GB GPU or more (not run); the paper used four H100 for three days.
Result:   pass@2 is 44.6 % in TRM's paper. arXiv 2602.12078 reports 43.88 % (attention)
          and 45.88 % (mamba2_attn). urm has a pass@1 of 53.8 % (arXiv 2512.14693),
          flow has 58.8 % (arXiv 2609.11801). Not run here. muon has the values of
          jvdillon/sic for Sudoku, with urm too (docs/optimisers.md).
Data:     JSON bundles of training, evaluation and ConceptARC. The model trains on all
          pairs of training and ConceptARC and on the demonstrations of evaluation. A
          task has up to 1,000 augmentations, each with its own puzzle id.
"""

from typing import Any

from ml_collections import ConfigDict

from . import _levers, default

# 200,000 epochs. Gradients pass 48 sublayers, not 20 as in TRM: fewer rows fit.
PUBLISHED: dict[str, dict[str, Any]] = {
    "urm": {
        "model.prefix_len": 1,
        "train.steps": 1_038_542,
        "train.micro_batches": 24,
    },
    "flow": {
        "rule.flow.order": "random_start",
        "rule.flow.gamma": 5.0,
        "rule.flow.project_question": True,
        "optim.clip_norm": 1.0,
        "optim.table_lr": 1e-4,
        "optim.table_weight_decay": 1.0,
        "eval.supervision_steps": 64,
    },
}


def get_config(variant: str = "attention") -> ConfigDict:
    """The paper's recipe with the network and the levers that `variant` names."""
    config = default.get_config()
    network, pulled = _levers.split(variant, "attention")
    default.set_network(config, network)
    config.data.update(task="arc", source="json", num_augmentations=1_000)
    config.rule.trm.l_cycles = 4
    config.optim.update(weight_decay=0.1, table_lr=1e-2, table_weight_decay=0.1)
    # 100,000 epochs of 3,988 pairs.
    config.train.update(steps=519_271, micro_batches=12, eval_every=10_000)
    config.eval.update(votes=8, max_puzzles=0)
    _levers.pull(config, pulled, PUBLISHED)
    return config
