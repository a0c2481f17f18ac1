# SPDX-License-Identifier: Apache-2.0
"""Cell cross-entropy (stablemax or softmax), halting loss, and their sum per row."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from trm_jax.errors import ConfigError
from trm_jax.types import Batch, StepOutput

LOSSES = ("stablemax", "softmax")
HALT_WEIGHT = 0.5


class RowLosses(NamedTuple):
    """Losses and scores of each row, for one supervision step."""

    cell_loss: Float[Array, " b"]  # mean over the labelled cells
    halt_loss: Float[Array, " b"]
    cells_right: Float[Array, " b"]  # share of the labelled cells
    all_right: Bool[Array, " b"]
    has_labels: Bool[Array, " b"]

    @property
    def total(self) -> Float[Array, " b"]:
        """What is minimised, per row."""
        return self.cell_loss + HALT_WEIGHT * self.halt_loss


def log_stablemax(logits: Float[Array, "... v"]) -> Float[Array, "... v"]:
    """log(s / sum s), s(v) = v + 1 for v >= 0 and 1 / (1 - v) below (arXiv 2501.04697).

    log s(v) is log1p(v) or -log1p(-v), so this is a log-softmax of it. Each branch
    sees only values of its own sign: the gradient is finite everywhere.
    """
    rising = jnp.where(logits >= 0, logits, 0)
    falling = jnp.where(logits < 0, -logits, 0)
    return jax.nn.log_softmax(jnp.log1p(rising) - jnp.log1p(falling))


def unknown_loss(loss: str) -> ConfigError:
    """The error for a name that is not in LOSSES."""
    names = ", ".join(LOSSES)
    return ConfigError(f"train.loss = {loss!r}; expected one of {names}")


def cross_entropy(
    logits: Float[Array, "... v"], labels: Int[Array, "..."], *, loss: str
) -> Float[Array, "..."]:
    """Negative log-probability of the label, in float32 or wider."""
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    match loss:
        case "stablemax":
            log_probs = log_stablemax(wide)
        case "softmax":
            log_probs = jax.nn.log_softmax(wide)
        case _:
            raise unknown_loss(loss)
    return -jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]


def row_losses(output: StepOutput, batch: Batch, *, loss: str) -> RowLosses:
    """Losses of each row. A row without labels has no cell loss and counts as right."""
    mask = batch.label_mask
    num_labels = mask.sum(-1)
    divisor = jnp.maximum(num_labels, 1)
    labels = jnp.where(mask, batch.labels, 0)
    per_cell = jnp.where(mask, cross_entropy(output.logits, labels, loss=loss), 0)
    right = mask & (output.logits.argmax(-1) == labels)
    all_right = right.sum(-1) == num_labels
    target = all_right.astype(output.q_halt.dtype)
    return RowLosses(
        cell_loss=per_cell.sum(-1) / divisor,
        halt_loss=optax.sigmoid_binary_cross_entropy(output.q_halt, target),
        cells_right=right.sum(-1) / divisor,
        all_right=all_right,
        has_labels=num_labels > 0,
    )
