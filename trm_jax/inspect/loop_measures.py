# SPDX-License-Identifier: Apache-2.0
"""What a loop does to its latents, in numbers, and a verdict on how it ends.

The quantities and the verdict are definitions of ours: the reports of "cognitive
static" in recursive Mamba loops come without any. All are computed in float64.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

# The thresholds of `verdict`. They are choices, and every report prints them.
THRESHOLDS = {
    "collapsed_exact": 0.5,  # static: the last exactness is at most this share of best
    "rising_entropy": 0.8,  # static, drift: share of later loops in which entropy rises
    "alike_inputs": 0.9,  # static: cosine between inputs; drift: below it
    "collapsed_rank": 0.5,  # static: the last rank is at most this share of the best's
    "still": 0.01,  # settled: relative motion in the last loop
    "same_exact": 0.01,  # settled: at most this much less exact than the best loop
}

Curves = Mapping[str, Any]  # one number per loop


def probabilities(logits: np.ndarray, *, loss: str) -> np.ndarray:
    """The float64 softmax or stablemax probabilities over the last axis."""
    logits = logits.astype(np.float64)
    if loss == "stablemax":
        size = np.log1p(np.abs(logits))
        logits = np.where(logits >= 0, size, -size)
    logits = logits - logits.max(-1, keepdims=True)
    p = np.exp(logits)
    return p / p.sum(-1, keepdims=True)


def entropy(logits: np.ndarray, *, loss: str) -> np.ndarray:
    """Entropy in nats over the last axis, of softmax or of stablemax probabilities."""
    p = probabilities(logits, loss=loss)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)


def mean_cosine(vectors: np.ndarray) -> Any:
    """Mean cosine over all pairs of different vectors `... n d`, n >= 2."""
    units = unit(vectors)
    n = units.shape[-2]
    square_of_sum = (units.sum(-2) ** 2).sum(-1)
    return (square_of_sum - (units**2).sum((-2, -1))) / (n * (n - 1))


def effective_rank(matrix: np.ndarray) -> float:
    """Exp of the entropy of the normalised singular values of `n d`, not centred."""
    matrix = matrix.astype(np.float64)
    squares = np.linalg.eigvalsh(matrix.T @ matrix)
    values = np.sqrt(np.maximum(squares, 0))
    p = values / max(values.sum(), np.finfo(np.float64).tiny)
    return float(np.exp(-(p * np.log(np.where(p > 0, p, 1))).sum()))


def state_measures(z: np.ndarray) -> dict[str, float]:
    """Norm, cosines and rank of the latents `b l d` of one loop, b >= 2, l >= 2.

    `input_cosine` compares the same position of two inputs. Pooled over positions, the
    latents of two Sudokus are alike (0.9 and more) in a model that solves them, too.
    """
    z = z.astype(np.float64)
    _, l, d = z.shape
    return {
        "norm": float((np.linalg.norm(z, axis=(1, 2)) / np.sqrt(l * d)).mean()),
        "input_cosine": float(mean_cosine(z.swapaxes(0, 1)).mean()),
        "input_cosine_pooled": float(mean_cosine(z.mean(1))),
        "token_cosine": float(mean_cosine(z).mean()),
        "effective_rank": effective_rank(z.reshape(-1, d)),
    }


def motion_measures(z: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Relative motion, and cosine between the latents `b l d` of two loops."""
    flat, later = (v.reshape(len(v), -1).astype(np.float64) for v in (z, after))
    norm = np.linalg.norm(flat, axis=-1)
    moved = np.linalg.norm(later - flat, axis=-1)
    return {
        "motion": float((moved / np.maximum(norm, np.finfo(np.float64).tiny)).mean()),
        "cosine": float((unit(flat) * unit(later)).sum(-1).mean()),
    }


def answer_measures(
    logits: np.ndarray, labels: np.ndarray, mask: np.ndarray, *, loss: str
) -> dict[str, float]:
    """Entropy, exactness and cell accuracy over the labelled cells.

    `logits` is `b m v`, `labels` and `mask` are `b m`. Every row has a label.
    """
    num = mask.sum(-1)
    right = (logits.argmax(-1) == labels) & mask
    of_row = np.where(mask, entropy(logits, loss=loss), 0).sum(-1) / num
    return {
        "entropy": float(of_row.mean()),
        "exact": float((right.sum(-1) == num).mean()),
        "cell_accuracy": float((right.sum(-1) / num).mean()),
    }


def overthinking(exact: np.ndarray) -> tuple[int, float]:
    """The first most exact loop (from 0), and how much less exact the last one is."""
    best = int(exact.argmax())
    return best, float(exact[best] - exact[-1])


def verdict(curves: Curves) -> dict[str, Any]:
    """How the loops end: static, drift, settled or undecided, with the best loop.

    `curves` holds one value per loop for exact, entropy, input_cosine, effective_rank
    and motion. static: answers are lost, entropy rises and the latents of different
    inputs become alike; drift: answers are lost and entropy rises, but inputs stay
    apart; settled: the latents stop moving at (nearly) the best exactness.
    """
    at = {name: np.asarray(values, np.float64) for name, values in curves.items()}
    limits, exact = THRESHOLDS, at["exact"]
    best, lost = overthinking(exact)
    later = np.diff(at["entropy"][best:])
    rises = bool(len(later)) and (later > 0).mean() >= limits["rising_entropy"]
    alike = at["input_cosine"][-1] >= limits["alike_inputs"]
    rank = at["effective_rank"]
    flat = rank[-1] <= limits["collapsed_rank"] * rank[best]
    collapsed = lost > 0 and exact[-1] <= limits["collapsed_exact"] * exact[best]
    if collapsed and rises and (alike or flat):
        name = "static"
    elif lost > limits["same_exact"] and rises and not alike:
        name = "drift"
    elif at["motion"][-1] < limits["still"] and lost <= limits["same_exact"]:
        name = "settled"
    else:
        name = "undecided"
    return {"verdict": name, "best_loop": best + 1, "overthink": lost}


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; a zero vector stays zero."""
    vectors = vectors.astype(np.float64)
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1)
