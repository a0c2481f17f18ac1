# SPDX-License-Identifier: Apache-2.0
"""Cell cross-entropy (stablemax or softmax), halting loss, and their sum per row."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from trm_jax.types import Batch

LOSSES = ("stablemax", "softmax")


class RowLosses(NamedTuple):
    """Losses and scores of each row, for one supervision step."""

    total: Float[Array, " b"]  # what is minimised
    cell_loss: Float[Array, " b"]  # mean over the labelled cells
    halt_loss: Float[Array, " b"]
    cells_right: Float[Array, " b"]  # share of the labelled cells
    all_right: Bool[Array, " b"]
    has_labels: Bool[Array, " b"]
    extra: dict[str, Array] = {}  # `b` each: the metrics that the rule names itself


def log_stablemax(logits: Float[Array, "... v"]) -> Float[Array, "... v"]:
    """log(s / sum s), s(v) = v + 1 for v >= 0 and 1 / (1 - v) below (arXiv 2501.04697).

    log s(v) is log1p(v) or -log1p(-v), so this is a log-softmax of log s. Each branch
    sees only values of its own sign, so that the gradient is finite everywhere.
    """
    rising = jnp.where(logits >= 0, logits, 0)
    falling = jnp.where(logits < 0, -logits, 0)
    return jax.nn.log_softmax(jnp.log1p(rising) - jnp.log1p(falling))


def cross_entropy(
    logits: Float[Array, "... v"],
    labels: Int[Array, "..."],
    *,
    loss: str,
    label_smoothing: float = 0.0,
) -> Float[Array, "..."]:
    """Negative log-probability of the label, in float32 or wider.

    `label_smoothing` is the share of the label that is spread evenly over all tokens.
    """
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    log_probs = log_stablemax(wide) if loss == "stablemax" else jax.nn.log_softmax(wide)
    of_label = -jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    if not label_smoothing:
        return of_label
    return (1 - label_smoothing) * of_label - label_smoothing * log_probs.mean(-1)


def row_losses(
    logits: Float[Array, "b m v"],
    q_halt: Float[Array, " b"],
    rows: Batch,
    *,
    loss: str,
    label_smoothing: float,
    halt_weight: float,
) -> RowLosses:
    """Cell cross-entropy, and the loss of a halting logit for "all cells are correct".

    A row without labels has a cell loss of 0 and counts as correct.
    """
    mask = rows.label_mask
    num_labels = mask.sum(-1)
    divisor = jnp.maximum(num_labels, 1)
    labels = jnp.where(mask, rows.labels, 0)
    entropy = cross_entropy(logits, labels, loss=loss, label_smoothing=label_smoothing)
    right = mask & (logits.argmax(-1) == labels)
    all_right = right.sum(-1) == num_labels
    cell_loss = jnp.where(mask, entropy, 0).sum(-1) / divisor
    target = all_right.astype(q_halt.dtype)
    halt_loss = optax.sigmoid_binary_cross_entropy(q_halt, target)
    return RowLosses(
        total=cell_loss + halt_weight * halt_loss,
        cell_loss=cell_loss,
        halt_loss=halt_loss,
        cells_right=right.sum(-1) / divisor,
        all_right=all_right,
        has_labels=num_labels > 0,
    )
