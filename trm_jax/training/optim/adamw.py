# SPDX-License-Identifier: Apache-2.0
"""AdamW (arXiv 1711.05101), as optax has it."""

import dataclasses

import optax

from trm_jax.settings import knob
from trm_jax.training.optim.base import Groups, by_update


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """config.optim.adamw."""

    b1: float = knob(0.9, "Decay of the first moment.", low=0.0, below=1.0)
    b2: float = knob(0.95, "Decay of the second moment.", low=0.0, below=1.0)
    eps: float = knob(1e-8, "Added to the root of the second moment.", low=0.0)

    def build(
        self, lr: float, factor: optax.Schedule, weight_decay: float, groups: Groups
    ) -> optax.GradientTransformation:
        """Adam with decoupled decay: p (1 - lr wd) - lr u."""
        return optax.chain(
            optax.scale_by_adam(self.b1, self.b2, self.eps),
            optax.add_decayed_weights(weight_decay, groups.decayed),
            optax.scale_by_learning_rate(by_update(lr, factor)),
        )
