# SPDX-License-Identifier: Apache-2.0
"""How votes spread over candidates, and the report that `eval.py` writes about it.

In shapes, n counts questions (test inputs) and c counts candidates; see voting.py.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from trm_jax.evaluation.voting import Ballots, pass_at_k, right_ranks, with_interval

HARD_BELOW = 0.15  # a test input is hard if a smaller share of its votes is correct
_DIGITS = 6  # decimals of the values per test input in a report


class Coverage(NamedTuple):
    """One value per question; a question without votes has zeros and right_rank -1."""

    unique: Int64[np.ndarray, " n"]  # number of candidates
    votes: Int64[np.ndarray, " n"]
    entropy_nats: Float64[np.ndarray, " n"]  # entropy of the candidates' vote shares
    top1_share: Float64[np.ndarray, " n"]
    top1_margin: Float64[np.ndarray, " n"]  # (first - second) / votes
    right_share: Float64[np.ndarray, " n"]
    right_rank: Int64[np.ndarray, " n"]  # rank of the best correct candidate, or -1


def coverage(
    ballots: Ballots, is_right: Bool[np.ndarray, " c"], question_count: int
) -> Coverage:
    """Compute the statistics of every question."""

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(ballots.question, values, minlength=question_count)

    votes = total(ballots.votes).astype(np.int64)
    share = ballots.votes / votes[ballots.question]
    top1, top2 = (total(share * (ballots.rank == rank)) for rank in (0, 1))
    return Coverage(
        unique=np.bincount(ballots.question, minlength=question_count),
        votes=votes,
        entropy_nats=total(-share * np.log(share)),
        top1_share=top1,
        top1_margin=top1 - top2,
        right_share=total(share * is_right),
        right_rank=right_ranks(ballots, is_right, question_count),
    )


def coverage_table(cover: Coverage, label: str) -> dict[str, Any]:
    """Mean statistics of all, of the hard and of the easy questions, with a label.

    A question is hard if the share of its correct votes is below HARD_BELOW. A part
    without questions has None for its means.
    """
    hard = cover.right_share < HARD_BELOW
    parts = {"overall": np.full(len(hard), True), "hard": hard, "easy": ~hard}
    return {"label": label} | {name: _means(cover, p) for name, p in parts.items()}


def _means(cover: Coverage, part: np.ndarray) -> dict[str, Any]:
    columns = {
        "unique": cover.unique,
        "entropy_nats": cover.entropy_nats,
        "entropy_bits": cover.entropy_nats / math.log(2),
        "top1_share": cover.top1_share,
        "top1_margin": cover.top1_margin,
        "right_share": cover.right_share,
        "right_first": cover.right_rank == 0,
        "right_found": cover.right_rank >= 0,
    }
    means = {
        name: float(values[part].mean()) if part.any() else None
        for name, values in columns.items()
    }
    return {"test_inputs": int(part.sum()), **means}


def vote_report(
    ballots: Ballots,
    is_right: Bool[np.ndarray, " c"],
    task_of_question: Int[np.ndarray, " n"],
    *,
    weights: str,
    votes: int,
    pooled_steps: Sequence[int],
    ks: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Return what eval/step_N.json holds about a vote; `vote_plots` reads it.

    step: N, the last of pooled_steps.    weights: "ema" or "raw".
    tasks, test_inputs: counts.    votes: forms per test input, 0 for all.
    pooled_steps: checkpoints whose votes are counted together; one if not pooled.
    pass_at: K as text, at most the votes for a question -> {"value", "ci95": [low,
    high]}, a Wilson interval over tasks.
    coverage: "overall", "hard", "easy" -> count and means; also a "label".
    per_input: the fields of Coverage except `votes` -> list, rounded to 6 decimals.
    """
    cover = coverage(ballots, is_right, len(task_of_question))
    tasks = len(np.unique(task_of_question))
    shares = pass_at_k(ballots, is_right, task_of_question, ks)
    label = f"step {pooled_steps[-1]}"
    if len(pooled_steps) > 1:
        first, last = pooled_steps[0], pooled_steps[-1]
        label = f"{len(pooled_steps)} steps pooled, {first} to {last}"
    return {
        "step": pooled_steps[-1],
        "weights": weights,
        "tasks": tasks,
        "test_inputs": len(task_of_question),
        "votes": votes,
        "pooled_steps": list(pooled_steps),
        "pass_at": {str(k): with_interval(v, tasks) for k, v in shares.items()},
        "coverage": coverage_table(cover, label),
        "per_input": {
            name: np.round(values, _DIGITS).tolist()
            for name, values in cover._asdict().items()
            if name != "votes"
        },
    }


def as_text(report: dict[str, Any]) -> str:
    """The report as lines for a terminal: the headline, pass@K, coverage."""
    table = report["coverage"]
    forms = f"{report['votes']} forms" if report["votes"] else "all forms"
    lines = [
        f"{table['label']}, {report['weights']} weights, {report['tasks']} tasks, "
        f"{report['test_inputs']} test inputs, {forms} of each",
        f"\n{'pass@':<8}{'%':>8}   95 %, over tasks",
    ]
    for k, share in report["pass_at"].items():
        low, high = (100 * end for end in share["ci95"])
        lines.append(f"{k:<8}{100 * share['value']:>8.2f}   {low:.2f} to {high:.2f}")
    columns = (  # title, key and factor of each mean
        ("unique", "unique", 1),
        ("nats", "entropy_nats", 1),
        ("bits", "entropy_bits", 1),
        ("top-1 %", "top1_share", 100),
        ("margin %", "top1_margin", 100),
        ("right %", "right_share", 100),
        ("first %", "right_first", 100),
        ("found %", "right_found", 100),
    )
    heads = "".join(f"{title:>9}" for title, _, _ in columns)
    lines.append(f"\n{'coverage':<8}{'inputs':>8}{heads}")
    for name in ("overall", "hard", "easy"):
        row = table[name]
        cells = [f"{row['test_inputs']:>8}"]
        for _, key, factor in columns:
            text = "-" if row[key] is None else f"{factor * row[key]:.2f}"
            cells.append(f"{text:>9}")
        lines.append(f"{name:<8}" + "".join(cells))
    lines += [
        f"hard: under {100 * HARD_BELOW:.0f} % of the votes are right",
        "first, found: the right answer is the first candidate, or among them",
    ]
    return "\n".join(lines)
