# SPDX-License-Identifier: Apache-2.0
"""Rank the answers to the forms of a question by votes, and compute pass@K.

Axes: r answers (one per form), m cells, c candidates, n questions. Answers are encoded
canonically, so that equal answers have equal rows. Solutions use the same encoding.
"""

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, Integer, UInt8, UInt64

KS = (1, 2, 5, 10, 100, 1000)
_CHUNK = 4096  # candidates compared at once


class Ballots(NamedTuple):
    """The candidates of all questions, sorted by (question, rank)."""

    question: Int64[np.ndarray, " c"]
    row: Int64[np.ndarray, " c"]  # its first row among the answers
    votes: Int64[np.ndarray, " c"]
    mean_q: Float[np.ndarray, " c"]  # mean sigmoid(q_halt) of its votes
    rank: Int64[np.ndarray, " c"]  # 0 is the majority


def count_votes(
    question: Int[np.ndarray, " r"],
    answers: UInt8[np.ndarray, "r m"],
    q_halt: Float[np.ndarray, " r"],
) -> Ballots:
    """Rank the answers of each question by (votes, mean q), both descending.

    Ties are broken by first appearance. The rows may be in any order. To pool the
    votes of several evaluations, concatenate their rows.
    """
    keys = _row_keys(answers)
    # The sorts are stable: equal answers stay in order of appearance.
    order = np.lexsort((keys[:, 1], keys[:, 0], question))
    starts = _run_starts(question[order], keys[order, 0], keys[order, 1])
    votes = np.diff(starts, append=len(order))
    candidate = np.repeat(np.arange(len(starts)), votes)
    logits = np.maximum(q_halt[order].astype(np.float64), -700)  # keeps exp finite
    q = 1 / (1 + np.exp(-logits))
    mean_q = np.bincount(candidate, weights=q, minlength=len(starts)) / votes
    asked, first = question[order[starts]].astype(np.int64), order[starts]

    # Equal means may differ in their last bits, since their sums differ in order.
    best = np.lexsort((first, -np.round(mean_q, 12), -votes, asked))
    asked = asked[best]
    starts = _run_starts(asked)
    rank = np.arange(len(asked)) - np.repeat(starts, np.diff(starts, append=len(asked)))
    return Ballots(asked, first[best], votes[best], mean_q[best], rank)


def right_candidates(
    ballots: Ballots,
    answers: UInt8[np.ndarray, "r m"],
    solutions: UInt8[np.ndarray, "n m"],
) -> Bool[np.ndarray, " c"]:
    """Whether a candidate equals the solution of its question in every cell."""
    is_right = np.zeros(len(ballots.row), bool)
    for start in range(0, len(is_right), _CHUNK):
        part = slice(start, start + _CHUNK)
        expected = solutions[ballots.question[part]]
        is_right[part] = (answers[ballots.row[part]] == expected).all(-1)
    return is_right


def right_ranks(
    ballots: Ballots, is_right: Bool[np.ndarray, " c"], question_count: int
) -> Int64[np.ndarray, " n"]:
    """Rank of the best correct candidate of each question, -1 if there is none."""
    ranks = np.full(question_count, -1)
    worst_first = np.flatnonzero(is_right)[::-1]  # the best is written last
    ranks[ballots.question[worst_first]] = ballots.rank[worst_first]
    return ranks


def pass_at_k(
    ballots: Ballots,
    is_right: Bool[np.ndarray, " c"],
    task_of_question: Int[np.ndarray, " n"],
    ks: Sequence[int] | None = None,
) -> dict[int, float]:
    """Share of questions with a correct answer among the first k candidates.

    The share is averaged over the questions of a task, then over tasks. A question
    without candidates counts as wrong. By default, k takes those of KS that do not
    exceed the votes for any question: no more candidates can exist.
    """
    if ks is None:
        most = np.bincount(ballots.question, ballots.votes).max(initial=1)
        ks = [k for k in KS if k <= most]
    ranks = right_ranks(ballots, is_right, len(task_of_question))
    _, task, sizes = np.unique(
        task_of_question, return_inverse=True, return_counts=True
    )
    solved = {k: (ranks >= 0) & (ranks < k) for k in ks}
    return {k: float((np.bincount(task, s) / sizes).mean()) for k, s in solved.items()}


def top_answers(
    ballots: Ballots, question_count: int, k: int = 2
) -> Int64[np.ndarray, "n k"]:
    """Rows of the first k candidates of each question, -1 if there are fewer."""
    rows = np.full((question_count, k), -1)
    top = ballots.rank < k
    rows[ballots.question[top], ballots.rank[top]] = ballots.row[top]
    return rows


def vote_gain(
    ballots: Ballots,
    is_right: Bool[np.ndarray, " c"],
    single_is_right: Bool[np.ndarray, " n"],
) -> dict[str, Any]:
    """Compare the majority with the single pass, which answers only form 0.

    `single_is_right` says where the single pass is correct. The shares are of all
    questions, with 95 % intervals. `gained` counts the questions that only the majority
    answers correctly, and `lost` those that only the single pass answers correctly.
    """
    count = len(single_is_right)
    majority = right_ranks(ballots, is_right, count) == 0
    return {
        "questions": count,
        "single_pass": with_interval(float(single_is_right.mean()), count),
        "majority": with_interval(float(majority.mean()), count),
        "gained": int((majority & ~single_is_right).sum()),
        "lost": int((single_is_right & ~majority).sum()),
    }


def with_interval(share: float, trials: int) -> dict[str, Any]:
    """A share and its 95 % interval, as reports hold them."""
    return {"value": share, "ci95": wilson_interval(share, trials)}


def wilson_interval(share: float, trials: int) -> list[float]:
    """95 % interval of a share (Wilson 1927); share * trials need not be whole."""
    z = 1.959964
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return [(centre + sign * half) / (1 + z * z / trials) for sign in (-1, 1)]


def _row_keys(answers: UInt8[np.ndarray, "r m"]) -> UInt64[np.ndarray, "r 2"]:
    """A BLAKE2b hash of 128 bits per row, which is compared instead of the row.

    The chance that any two of a million different rows share a hash is below 1e-26, so
    the answers themselves need never be sorted or copied.
    """
    keys = bytearray()
    for row in answers:
        keys += blake2b(row.tobytes(), digest_size=16).digest()
    return np.frombuffer(keys, np.uint64).reshape(-1, 2)


def _run_starts(*columns: Integer[np.ndarray, " r"]) -> Int64[np.ndarray, " s"]:
    """Indices of the rows that differ from the previous row, and of the first row."""
    changed = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return np.flatnonzero(np.append(True, changed)[: len(columns[0])])
