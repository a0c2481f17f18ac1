# SPDX-License-Identifier: Apache-2.0
"""Why a search helps or not: the diagnostics of PTRM and guided exploration.

See arXiv 2605.19943 and 2605.25230. "Solved" puzzles are those that the plain
evaluation, one chain without noise, answers correctly. A value is None where it is not
defined, for instance a mean over no puzzles.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from trm_jax.evaluation.report import probability
from trm_jax.evaluation.search import Found


def diagnostics(rows: Found, plain: Found) -> dict[str, Any]:
    """tube_stability, guide_alignment, residual_alignment and cloud_token_entropy.

    `rows` are the chains of a search, `plain` one row for each puzzle.
    """
    num_puzzles = len(plain.example)
    solved = np.zeros(num_puzzles, bool)
    solved[plain.example] = plain.is_right
    answers = np.empty_like(plain.answers)
    answers[plain.example] = plain.answers
    # A chain returns if it ends in the answer of the plain evaluation.
    others = rows.chain > 0
    returns = (rows.answers == answers[rows.example]).all(-1)
    entropy = token_entropy(rows, num_puzzles)
    return {
        "tube_stability": {
            "solved": _mean(returns[others & solved[rows.example]]),
            "unsolved": _mean(returns[others & ~solved[rows.example]]),
        },
        "guide_alignment": alignment(rows, probability(rows.q_halt.astype(np.float64))),
        "residual_alignment": alignment(rows, -rows.residual.astype(np.float64)),
        "cloud_token_entropy_nats": {
            "solved": _mean(entropy[solved]),
            "unsolved": _mean(entropy[~solved]),
        },
    }


def alignment(rows: Found, guide: Float[np.ndarray, " r"]) -> dict[str, float | None]:
    """How well a guide tells correct rows from wrong ones.

    correlation: with correctness, over all rows. within: the probability that a correct
    row has a larger guide than a wrong row of the same puzzle, as a mean over the
    puzzles that have both; equals count half.
    """
    right = rows.is_right
    defined = np.isfinite(guide).all() and guide.std() > 0 and right.std() > 0
    of_puzzle = []
    for one in np.split(
        np.arange(len(guide)), np.flatnonzero(np.diff(rows.example)) + 1
    ):
        good, bad = guide[one][right[one]], guide[one][~right[one]]
        if len(good) and len(bad):
            larger = (good[:, None] > bad) + 0.5 * (good[:, None] == bad)
            of_puzzle.append(float(larger.mean()))
    return {
        "correlation": float(np.corrcoef(guide, right)[0, 1]) if defined else None,
        "within": _mean(np.array(of_puzzle)),
    }


def token_entropy(rows: Found, num_puzzles: int) -> Float[np.ndarray, " n"]:
    """Entropy in nats of the tokens that chains give a cell, averaged over cells."""
    total = np.bincount(rows.example, minlength=num_puzzles)
    entropy = np.zeros(num_puzzles)
    for token in np.unique(rows.answers):
        counts = np.zeros((num_puzzles, rows.answers.shape[1]))
        np.add.at(counts, rows.example, rows.answers == token)
        shares = counts / np.maximum(total, 1)[:, None]
        logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
        entropy -= (shares * logs).mean(1)
    return entropy


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
