# SPDX-License-Identifier: Apache-2.0
"""ARC-AGI-2: the recipe of arc_agi_1 on the sets of the second version.

Command:  python train.py --config=configs/arc_agi_2.py --workdir=runs/arc2
          --config.data.train=FOLDER, then python eval.py --workdir=runs/arc2 --votes=0
          (other networks and levers as in arc_agi_1.py and _levers.py: urm, flow)
Hardware: one 80 GB GPU or more (not run).
Result:   pass@2 is 7.8 % in the paper. Not run here.
Data:     JSON bundles training2, evaluation2 and concept. A model trained on these must
          not be scored on ARC-AGI-1: 376 of its 400 evaluation tasks are in training2.
"""

from ml_collections import ConfigDict

from . import _levers, arc_agi_1


def get_config(variant: str = "attention") -> ConfigDict:
    """The paper's recipe with the network named by `variant`."""
    config = arc_agi_1.get_config(variant)
    config.data.arc.train_subsets = ("training2", "evaluation2", "concept")
    config.data.arc.test_subset = "evaluation2"
    if _levers.innermost(config) == "flow":
        config.rule.flow.update(gamma=1.0, pseudo_steps=20_000)
        config.eval.supervision_steps = 32
    # As many epochs, of 5,573 pairs in the place of 3,988: by default 725,651 updates.
    config.train.steps = round(config.train.steps * 5_573 / 3_988)
    return config
