# SPDX-License-Identifier: Apache-2.0
import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trm_jax.evaluation import voting
from trm_jax.evaluation.voting import (
    KS,
    count_votes,
    pass_at_k,
    right_candidates,
    right_ranks,
    top_answers,
    vote_gain,
    wilson_interval,
)


def sigmoid(q):
    return 1 / (1 + math.exp(-q))


def vote(rows):
    """Count the votes of rows (question, answer, q_halt) with answers of one length."""
    question, texts, q_halt = zip(*rows, strict=True)
    answers = as_tokens(texts)
    return count_votes(np.array(question), answers, np.array(q_halt, float)), answers


def as_tokens(texts):
    return np.array([list(text.encode()) for text in texts], np.uint8)


def as_tuples(ballots, texts):
    """Candidates as (question, answer, row, votes, rank)."""
    question, row, votes, _, rank = (values.tolist() for values in ballots)
    answers = [texts[r] for r in row]
    return list(zip(question, answers, row, votes, rank, strict=True))


# -- ranking


def test_votes_rank_before_mean_q_and_ties_go_to_the_first_seen():
    texts = ["b", "c", "a", "d", "a", "e", "b"]
    q_halt = [3.0, 2.0, -9.0, 5.0, -9.0, 2.0, -3.0]
    ballots, _ = vote([(4, t, q) for t, q in zip(texts, q_halt, strict=True)])
    assert as_tuples(ballots, texts) == [
        (4, "b", 0, 2, 0),  # two votes; mean q decides between them
        (4, "a", 2, 2, 1),
        (4, "d", 3, 1, 2),  # one vote; the highest q
        (4, "c", 1, 1, 3),  # as good as e, and seen earlier
        (4, "e", 5, 1, 4),
    ]
    mean = (sigmoid(3.0) + sigmoid(-3.0)) / 2  # of sigmoids, not sigmoid of the mean
    np.testing.assert_allclose(ballots.mean_q[:2], [mean, sigmoid(-9.0)], rtol=1e-12)


def test_mean_q_is_of_sigmoids_not_the_sigmoid_of_the_mean():
    # The mean logit prefers "b" (1 > 0.9), the mean sigmoid prefers "a" (0.71 > 0.62).
    ballots, _ = vote([(0, "b", 8.0), (0, "a", 0.9), (0, "b", -6.0), (0, "a", 0.9)])
    assert ballots.row.tolist() == [1, 0]


def test_extreme_halting_logits_are_no_error():
    ballots, _ = vote([(0, "a", -1e4), (0, "b", 1e4), (0, "c", -np.inf)])
    assert ballots.row.tolist() == [1, 0, 2]
    assert ballots.mean_q.tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-300)


def test_answers_that_differ_in_one_cell_or_only_in_order_are_different():
    ballots, _ = vote([(0, "aab", 0.0), (0, "aac", 0.0), (0, "baa", 0.0)])
    assert ballots.votes.tolist() == [1, 1, 1]


def test_equal_answers_to_two_questions_are_two_candidates():
    ballots, _ = vote([(1, "a", 0.0), (0, "a", 0.0), (1, "a", 0.0)])
    assert as_tuples(ballots, "aaa") == [(0, "a", 1, 1, 0), (1, "a", 0, 2, 0)]


def test_no_rows_have_no_candidates():
    none = np.zeros(0, np.int64)
    ballots = count_votes(none, np.zeros((0, 5), np.uint8), np.zeros(0, np.float32))
    assert [len(values) for values in ballots] == [0] * 5
    assert right_candidates(ballots, np.zeros((0, 5), np.uint8), ANY).tolist() == []
    assert top_answers(ballots, 3).tolist() == [[-1, -1]] * 3
    right = np.zeros(0, bool)
    assert pass_at_k(ballots, right, np.array([0, 1, 1]), (1, 1000)) == {1: 0, 1000: 0}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_halting_logits_of_either_width_count(dtype):
    answers = np.array([[1], [2]], np.uint8)
    ballots = count_votes(np.array([0, 0]), answers, np.array([0, 1], dtype))
    assert ballots.row.tolist() == [1, 0]
    assert ballots.mean_q.dtype == np.float64


ANY = np.zeros((3, 5), np.uint8)
EXACT = {-1000.0: Fraction(0), 0.0: Fraction(1, 2), 1000.0: Fraction(1)}  # sigmoids
ANSWERS = ("aa", "ab", "ba", "bb", "cc")
ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(ANSWERS), st.sampled_from([*EXACT])),
    max_size=40,
    min_size=1,
)
SOLUTIONS = st.lists(st.sampled_from(ANSWERS), min_size=4, max_size=4)
TASKS = st.lists(st.sampled_from([0, 3, 7]), min_size=4, max_size=4)


def ranked_by_hand(rows):
    """question -> [(answer, first row, votes)], best first, with exact arithmetic."""
    seen = {}
    for row, (question, answer, q) in enumerate(rows):
        place = seen.setdefault(question, {}).setdefault(answer, [])
        place.append((row, EXACT[q]))

    def key(candidate):
        voters = candidate[1]
        return -len(voters), -sum(q for _, q in voters), voters[0][0]

    return {
        question: [
            (answer, voters[0][0], len(voters))
            for answer, voters in sorted(candidates.items(), key=key)
        ]
        for question, candidates in sorted(seen.items())
    }


@settings(deadline=None, max_examples=300)
@given(ROWS)
def test_ballots_are_those_counted_by_hand(rows):
    ballots, _ = vote(rows)
    assert as_tuples(ballots, [answer for _, answer, _ in rows]) == [
        (question, answer, first, votes, rank)
        for question, candidates in ranked_by_hand(rows).items()
        for rank, (answer, first, votes) in enumerate(candidates)
    ]


@settings(deadline=None, max_examples=300)
@given(ROWS, SOLUTIONS, TASKS, st.integers(1, 4))
def test_scores_are_those_counted_by_hand(rows, solutions, tasks, k):
    ballots, answers = vote(rows)
    right = right_candidates(ballots, answers, as_tokens(solutions))
    ranked = ranked_by_hand(rows)
    texts = [[answer for answer, *_ in ranked.get(i, [])] for i in range(4)]
    ranks = [
        t.index(s) if s in t else -1 for t, s in zip(texts, solutions, strict=True)
    ]
    assert right_ranks(ballots, right, 4).tolist() == ranks
    by_task = {}
    for task, rank in zip(tasks, ranks, strict=True):
        by_task.setdefault(task, []).append(0 <= rank < k)
    share = sum(sum(solved) / len(solved) for solved in by_task.values()) / len(by_task)
    score = pass_at_k(ballots, right, np.array(tasks), [k])
    assert score == {k: pytest.approx(share, abs=1e-12)}
    first_rows = [[row for _, row, _ in ranked.get(i, [])][:k] for i in range(4)]
    expected = [[*r, *[-1] * (k - len(r))] for r in first_rows]
    assert top_answers(ballots, 4, k).tolist() == expected


# -- scores


def test_tasks_weigh_the_same_however_many_questions_they_have():
    ballots, answers = vote([(0, "a", 0), (1, "b", 0), (2, "b", 0), (3, "a", 0)])
    right = right_candidates(ballots, answers, as_tokens("aaaaa"))
    # In task 8 one of three is correct. In task 5 one of two is; the other is missing.
    score = pass_at_k(ballots, right, np.array([8, 8, 8, 5, 5]), [1])
    assert score == {1: pytest.approx((1 / 3 + 1 / 2) / 2)}


def test_the_best_of_several_right_candidates_counts():
    ballots, _ = vote([(0, "a", 1), (0, "b", 0), (0, "c", -1)])
    assert right_ranks(ballots, np.array([False, True, True]), 1).tolist() == [1]
    assert pass_at_k(ballots, np.array([False, True, True]), np.zeros(1, int)) == {
        1: 0.0,
        2: 1.0,
    }


@pytest.mark.parametrize(
    ("forms", "expected"),
    [(1, [1]), (4, [1, 2]), (5, [1, 2, 5]), (999, [1, 2, 5, 10, 100]), (1000, [*KS])],
)
def test_k_never_exceeds_the_votes_for_a_question(forms, expected):
    ballots, _ = vote([(0, "a", 1)] + [(1, "b", 0)] * forms)
    shares = pass_at_k(ballots, np.array([True, True]), np.zeros(2, int))
    assert list(shares) == expected


def test_candidates_are_judged_alike_in_every_chunk(monkeypatch):
    rng = np.random.default_rng(0)
    question = rng.integers(0, 9, 200)
    answers = rng.integers(0, 2, (200, 3)).astype(np.uint8)
    solutions = rng.integers(0, 2, (9, 3)).astype(np.uint8)
    ballots = count_votes(question, answers, np.zeros(200))
    whole = right_candidates(ballots, answers, solutions)
    monkeypatch.setattr(voting, "_CHUNK", 7)
    np.testing.assert_array_equal(right_candidates(ballots, answers, solutions), whole)
    assert whole.sum() == 9  # about 22 answers of 8 kinds include each solution


def test_the_gain_of_voting_is_told_both_ways():
    ballots, answers = vote(
        [(0, "x", 0), (0, "a", 0), (0, "a", 0)]  # gained
        + [(1, "a", 0), (1, "x", 0), (1, "x", 0)]  # lost
        + [(2, "a", 0), (3, "x", 0)]  # right, wrong; question 4 has no answer
        + [(5, "y", 0), (5, "a", 0), (5, "a", 0)]  # gained
    )
    right = right_candidates(ballots, answers, as_tokens("aaaaaa"))
    single = np.array([False, True, True, False, False, False])
    gain = vote_gain(ballots, right, single)
    assert gain == {
        "questions": 6,
        "single_pass": {"value": 1 / 3, "ci95": wilson_interval(1 / 3, 6)},
        "majority": {"value": 1 / 2, "ci95": wilson_interval(1 / 2, 6)},
        "gained": 2,
        "lost": 1,
    }


@pytest.mark.parametrize(("share", "trials"), [(0.4075, 400), (0.0, 12), (1.0, 3)])
def test_interval_ends_are_just_not_refuted_by_the_share(share, trials):
    """At both ends p, |share - p| is 1.96 standard errors of p itself."""
    low, high = wilson_interval(share, trials)
    assert low <= share <= high
    for p in (low, high):
        error = 1.959964 * math.sqrt(max(p * (1 - p), 0) / trials)
        assert abs(share - p) == pytest.approx(error, abs=1e-9)


def test_interval_of_ten_in_twenty_is_the_tabulated_one():
    assert wilson_interval(0.5, 20) == pytest.approx([0.2993, 0.7007], abs=5e-5)


def test_answers_are_not_copied():
    answers = np.zeros((20_000, 900), np.uint8)
    answers[:, :2] = np.arange(20_000)[:, None] % (251, 250)
    question = np.arange(20_000) // 1000
    tracemalloc.start()
    ballots = count_votes(question, answers, np.zeros(20_000))
    right_candidates(ballots, answers, answers[::1000])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(ballots.row) == 20_000
    # This allows a chunk of candidates, its solutions, their comparison, and the keys.
    assert peak < 4096 * 900 * 3 + 20_000 * 200
    assert peak < answers.nbytes
