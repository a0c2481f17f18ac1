# SPDX-License-Identifier: Apache-2.0
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trm_jax.evaluation.coverage import (
    Coverage,
    as_text,
    coverage,
    coverage_table,
    vote_report,
)
from trm_jax.evaluation.voting import Ballots, wilson_interval

# For five questions: the votes per candidate and the rank of the correct one.
VOTES = [[4, 3, 2, 1], [5], [], [1] * 8, [17, 3]]
RIGHT = [1, 0, -1, 5, 1]
NATS = [1.2798542258336676, 0.0, 0.0, math.log(8), 0.4227090878059909]


def ballots_of(votes, right):
    """Ballots with these votes, and which candidates are correct."""
    question = np.repeat(np.arange(len(votes)), [len(v) for v in votes])
    rank = np.array([r for v in votes for r in range(len(v))], np.int64)
    counts = np.array([c for v in votes for c in v], np.int64)
    ballots = Ballots(question, np.arange(len(rank)), counts, 0.5 + 0 * rank, rank)
    return ballots, rank == np.array(right)[question]


@pytest.fixture
def cover():
    return coverage(*ballots_of(VOTES, RIGHT), len(VOTES))


def test_statistics_are_those_worked_by_hand(cover):
    assert cover.unique.tolist() == [4, 1, 0, 8, 2]
    assert cover.votes.tolist() == [10, 5, 0, 8, 20]
    np.testing.assert_allclose(cover.entropy_nats, NATS, rtol=1e-12)
    np.testing.assert_allclose(cover.top1_share, [0.4, 1, 0, 0.125, 0.85])
    # A missing second candidate counts as one without votes.
    np.testing.assert_allclose(cover.top1_margin, [0.1, 1, 0, 0, 0.7], atol=1e-15)
    np.testing.assert_allclose(cover.right_share, [0.3, 1, 0, 0.125, 0.15])
    assert cover.right_rank.tolist() == RIGHT


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.integers(1, 50), max_size=6).map(lambda v: sorted(v, reverse=True)),
        min_size=1,
        max_size=5,
    )
)
def test_statistics_are_those_of_the_formulae(votes):
    cover = coverage(*ballots_of(votes, [-1] * len(votes)), len(votes))
    for i, counts in enumerate(votes):
        shares = [count / sum(counts) for count in counts]
        first, second = [*shares, 0.0, 0.0][:2]
        entropy = sum(share * math.log(1 / share) for share in shares)
        assert cover.entropy_nats[i] == pytest.approx(entropy, abs=1e-12)
        assert cover.top1_share[i] == first
        assert cover.top1_margin[i] == pytest.approx(first - second, abs=1e-15)
        assert (cover.unique[i], cover.votes[i]) == (len(counts), sum(counts))
    assert not cover.right_share.any()


def test_votes_for_every_right_candidate_count():
    ballots, _ = ballots_of([[5, 3, 2]], [-1])
    cover = coverage(ballots, np.array([False, True, True]), 1)
    assert cover.right_share.tolist() == [0.5]
    assert cover.right_rank.tolist() == [1]


def test_nobody_voting_is_no_error():
    cover = coverage(*ballots_of([[], []], [-1, -1]), 2)
    assert all(not values.any() for values in cover[:-1])
    assert coverage_table(cover, "")["overall"]["entropy_nats"] == 0


def test_hard_inputs_are_those_below_fifteen_percent(cover):
    table = coverage_table(cover, "a label")
    assert table["label"] == "a label"
    # 0 and 0.125 are hard; 0.15 is not.
    assert [table[part]["test_inputs"] for part in ("overall", "hard", "easy")] == [
        *(5, 2, 3)
    ]
    assert table["hard"] == pytest.approx(
        {
            "test_inputs": 2,
            "unique": 4.0,
            "entropy_nats": math.log(8) / 2,
            "entropy_bits": 1.5,
            "top1_share": 0.0625,
            "top1_margin": 0.0,
            "right_share": 0.0625,
            "right_first": 0.0,
            "right_found": 0.5,
        }
    )
    assert table["easy"]["unique"] == pytest.approx(7 / 3)
    assert table["easy"]["right_first"] == pytest.approx(1 / 3)
    assert table["overall"]["entropy_nats"] == pytest.approx(sum(NATS) / 5)
    assert table["overall"]["right_found"] == pytest.approx(4 / 5)


def test_a_part_without_inputs_has_no_means():
    table = coverage_table(coverage(*ballots_of([[2]], [0]), 1), "")
    hard = table["hard"]
    assert hard.pop("test_inputs") == 0
    assert set(hard.values()) == {None}


def report_of(**changes):
    arguments = {"weights": "ema", "votes": 0, "pooled_steps": [40], **changes}
    ballots, right = ballots_of(VOTES, RIGHT)
    return vote_report(ballots, right, np.array([0, 0, 1, 1, 2]), **arguments)


def test_report_survives_json_and_holds_what_plots_read():
    report = report_of(ks=(1, 2, 10))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    head = ("step", "weights", "tasks", "test_inputs", "votes", "pooled_steps")
    assert [report[key] for key in head] == [40, "ema", 3, 5, 0, [40]]
    # Correct answers rank 1 and 0 in task 0, nowhere and 5 in task 1, 1 in task 2.
    shares = {"1": 0.5 / 3, "2": 2 / 3, "10": 2.5 / 3}
    assert {k: s["value"] for k, s in report["pass_at"].items()} == pytest.approx(
        shares
    )
    for k, share in shares.items():
        assert report["pass_at"][k]["ci95"] == pytest.approx(wilson_interval(share, 3))
    rows = report["per_input"]
    assert set(rows) == {*Coverage._fields} - {"votes"}
    assert rows["unique"] == [4, 1, 0, 8, 2]
    assert rows["right_rank"] == RIGHT
    assert rows["entropy_nats"] == pytest.approx(NATS, abs=1e-6)
    assert rows["top1_share"] == [0.4, 1, 0, 0.125, 0.85]
    assert rows["top1_margin"] == [0.1, 1, 0, 0, 0.7]
    assert rows["right_share"] == [0.3, 1, 0, 0.125, 0.15]


def test_pooled_votes_say_so():
    report = report_of(pooled_steps=[20, 30, 40], votes=8)
    assert report["step"] == 40
    assert report["pooled_steps"] == [20, 30, 40]
    assert "3 steps pooled, 20 to 40" in as_text(report).splitlines()[0]
    assert "8 forms of each" in as_text(report)
    assert "pooled" not in as_text(report_of())


def test_text_has_the_numbers_of_the_report():
    lines = {
        line.split(" ")[0]: line.split() for line in as_text(report_of()).split("\n")
    }
    low, high = (f"{100 * end:.2f}" for end in wilson_interval(2 / 3, 3))
    assert lines["2"] == ["2", "66.67", low, "to", high]
    means = ["4.00", "1.04", "1.50", "6.25", "0.00", "6.25", "0.00", "50.00"]
    assert lines["hard"] == ["hard", "2", *means]
    titles = "inputs unique nats bits top-1 % margin % right % first % found %"
    assert lines["coverage"] == ["coverage", *titles.split()]
    assert max(map(len, as_text(report_of()).splitlines())) <= 88


def test_text_of_an_empty_part_has_dashes():
    ballots, right = ballots_of([[1]], [0])
    report = vote_report(
        ballots, right, np.zeros(1, int), weights="raw", votes=0, pooled_steps=[1]
    )
    rows = [line.split() for line in as_text(report).splitlines()]
    assert ["hard", "0", *["-"] * 8] in rows
