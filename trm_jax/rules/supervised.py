# SPDX-License-Identifier: Apache-2.0
"""What the published rules share: how they are trained to fill cells and to halt."""

import dataclasses
from typing import Any, ClassVar

import jax
from jaxtyping import Array, Float

from trm_jax.model.config import ModelConfig
from trm_jax.rules.losses import LOSSES, RowLosses, row_losses
from trm_jax.rules.recursion import REMAT_POLICIES
from trm_jax.settings import knob
from trm_jax.types import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Supervised:
    """Settings and loss of a rule whose outputs have `logits` and `q`."""

    remat: str = knob(
        "none",
        "What the backward pass recomputes: nothing, all but matrix products "
        "(dots), everything (full).",
        choices=tuple(REMAT_POLICIES),
    )
    cell_loss: str = knob("stablemax", "Cross-entropy of the cells.", choices=LOSSES)
    label_smoothing: float = knob(
        0.0, "Share of the label given to all tokens.", low=0.0, below=1.0
    )
    halt_weight: float = knob(0.5, "Weight of the halting loss.", low=0.0)

    no_decay: ClassVar[tuple[str, ...]] = ()

    def module(self, config: ModelConfig) -> Any:
        """None: most rules have no parameters of their own."""

    def loss(self, outputs: Any, rows: Batch) -> RowLosses:
        """Cell cross-entropy, and a halting loss whose target is "all correct"."""
        return row_losses(
            outputs.logits,
            outputs.q[:, 0],
            rows,
            loss=self.cell_loss,
            label_smoothing=self.label_smoothing,
            halt_weight=self.halt_weight,
        )

    def cell_losses(
        self, each: Float[Array, "k b m v"], outputs: Any, rows: Batch
    ) -> Float[Array, "k b"]:
        """The cell cross-entropy of each of several predictions."""

        def of(logits: Array) -> Array:
            scored = outputs._replace(logits=logits)
            return Supervised.loss(self, scored, rows).cell_loss

        return jax.vmap(of)(each)
