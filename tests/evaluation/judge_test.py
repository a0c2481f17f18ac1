# SPDX-License-Identifier: Apache-2.0
"""The Judge on puzzles whose forms rotate four cells, with results found by hand."""

import numpy as np
import pytest

from data_pipeline.questions import EvalSet
from data_pipeline.spec import PuzzleSet
from trm_jax.evaluation import report
from trm_jax.evaluation.evaluate import EvalOutput
from trm_jax.evaluation.judge import Judge


class Rolled:
    """Form i: the cells rolled by i."""

    has_ids = True

    def __init__(self, num_forms):
        self.num_forms = np.asarray(num_forms)

    def apply(self, puzzle, index, inputs, labels):
        return tuple(self._roll(tokens, index) for tokens in (inputs, labels))

    visit = None

    def undo(self, puzzle, index, answers):
        return self._roll(answers, -index)

    def _roll(self, tokens, index):
        return np.stack([np.roll(row, i) for row, i in zip(tokens, index, strict=True)])


INPUTS = np.array([[1, 2, 3, 4], [4, 3, 2, 1], [1, 1, 2, 2]], np.uint8)
LABELS = INPUTS + 1


def make_test(**changes):
    puzzles = PuzzleSet(
        INPUTS,
        LABELS,
        puzzle_starts=np.array([0, 2, 3]),
        group_starts=np.arange(3),
        puzzle_ids=np.array([1, 4], np.int32),
        attributes={},
    )
    return EvalSet(puzzles, Rolled([3, 3]), **changes)


def as_output(predictions, labels, q_halt):
    right = predictions == labels
    return EvalOutput(
        predictions=predictions.astype(np.uint8),
        q_halt=np.asarray(q_halt, np.float32)[None],
        wants_halt=np.asarray(q_halt)[None] > 0,
        cells_right=right.mean(-1)[None],
        all_right=right.all(-1)[None],
        cell_loss=np.zeros((1, len(right)), np.float32),
        residual=np.zeros((1, len(right)), np.float32),
        doubt=np.zeros((1, len(right)), np.float32),
        has_labels=np.ones(len(right), bool),
    )


def judge_of(test, votes):
    return Judge(test.questions(votes=votes), votes=votes)


def answered(judge, wrong=()):
    """Answers to all forms, correct except for the cells (row, cell) in `wrong`."""
    num_rows = judge.questions.num_rows
    ((batch, _),) = judge.questions.batches(num_rows)
    predictions = batch["labels"].copy()
    for row, cell in wrong:
        predictions[row, cell] += 7
    return as_output(predictions, batch["labels"], np.zeros(num_rows))


def test_answers_are_turned_back_before_they_are_counted():
    judge = judge_of(make_test(), votes=0)
    count = judge.count([answered(judge)])
    assert count.ballots.votes.tolist() == [3, 3, 3]
    assert count.is_right.all()
    # Question 1 is gained by voting: form 0 is wrong, its other two forms are correct.
    # Question 2 is lost: two of its answers are wrong in one way (cell 0 of form 0).
    output = answered(judge, wrong=[(3, 0), (7, 1), (8, 2)])
    report = judge.vote_report(judge.count([output]), [5], "ema")
    assert report["vote_gain"]["gained"] == 1
    assert report["vote_gain"]["lost"] == 1
    # Questions 0 and 1 form one task, question 2 another.
    assert report["pass_at"]["1"]["value"] == 0.5
    assert report["pass_at"]["2"]["value"] == 1
    assert report["voted_accuracy"] == 2 / 3
    assert report["voted_accuracy_95"][0] < 2 / 3 < report["voted_accuracy_95"][1]


def test_scores_of_a_run_are_those_of_form_0_and_of_the_votes():
    judge = judge_of(make_test(), votes=3)
    output = answered(judge, wrong=[(3, 0), (7, 1), (8, 2)])
    told = []
    scores = judge.scores([output], told.append)
    assert told == [9]
    assert scores["exact_accuracy"] == 2 / 3
    assert scores["puzzles"] == 3
    assert scores["pass@1"] == 0.5
    alone = judge_of(make_test(), votes=1)
    assert alone.questions.num_rows == 3
    assert "pass@1" not in alone.scores([answered(alone)], told.append)


def test_pooled_checkpoints_are_one_count():
    judge = judge_of(make_test(), votes=0)
    good, bad = answered(judge), answered(judge, wrong=[(r, 0) for r in range(9)])
    count = judge.count([good, bad])
    assert count.ballots.votes.sum() == 18
    report = judge.vote_report(count, [5, 6], "ema")
    assert report["pooled_steps"] == [5, 6]
    assert report["coverage"]["overall"]["right_share"] == 0.5
    # The single pass is taken from the last checkpoint.
    assert report["vote_gain"]["single_pass"]["value"] == 0


def test_answers_right_by_the_rules_are_counted_apart():
    def first_cell_is_right(inputs, answers):
        np.testing.assert_array_equal(inputs, INPUTS)
        return answers[:, 0] == inputs[:, 0] + 1

    test = make_test(is_valid=first_cell_is_right)
    judge = judge_of(test, votes=0)
    output = answered(judge, wrong=[(0, 1), (6, 0)])
    _, scores = judge.single_pass(output)
    assert scores["exact_accuracy"] == 1 / 3
    assert scores["valid_accuracy"] == 2 / 3
    report = judge.vote_report(judge.count([output]), [5], "ema")
    assert report["voted_valid_accuracy"] == 1


def test_a_submission_holds_the_two_best_answers(tmp_path):
    written = []
    test = make_test(write_submission=lambda path, answers: written.append(answers))
    judge = judge_of(test, votes=2)
    output = answered(judge, wrong=[(1, 0)])
    assert judge.write_submission(tmp_path, judge.count([output]))
    (answers,) = written
    assert answers.shape == (3, 2, 4)
    assert answers.dtype == np.uint8
    first = [*np.roll(LABELS[0], 1)]
    first[0] += 7
    assert answers[0].tolist() == [LABELS[0].tolist(), np.roll(first, -1).tolist()]
    assert answers[1].tolist() == [LABELS[1].tolist(), [0, 0, 0, 0]]
    assert not judge_of(make_test(), votes=2).write_submission(
        tmp_path, judge.count([output])
    )


def test_puzzles_without_answers_are_not_scored():
    test = make_test()
    labels = LABELS.copy()
    labels[2] = 0
    hidden = test._replace(
        puzzles=PuzzleSet(**{**vars(test.puzzles), "labels": labels})
    )
    assert judge_of(hidden, votes=1).scores([], print) == {}


def test_the_share_that_halts_is_the_rules_own_decision():
    output = as_output(LABELS, LABELS, [1.0, 1.0, -1.0])
    output = output._replace(wants_halt=np.array([[False, True, True]]))
    (row,) = report.by_step(output)
    assert row["halted"] == pytest.approx(2 / 3)
    output = output._replace(wants_halt=np.zeros((1, 3), bool))
    assert report.by_step(output)[0]["halted"] == 0
