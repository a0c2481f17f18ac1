# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.questions import EvalSet
from data_pipeline.variants import SingleForm
from tests.data_pipeline.loader_test import GROUPS, Echo, digest, examples, make_puzzles

PUZZLES = make_puzzles(GROUPS)
SINGLE = EvalSet(PUZZLES, SingleForm(13))
FORMS = EvalSet(PUZZLES, Echo(np.arange(1, 14), has_ids=True))
PUZZLE_OF = np.repeat(np.arange(13), np.diff(PUZZLES.puzzle_starts))


def joined(questions, batch_size, **options):
    """All batches joined, and the numbers of their rows."""
    batches, numbers = zip(*questions.batches(batch_size, **options), strict=True)
    assert {len(batch["weight"]) for batch in batches} == {batch_size}
    batch = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    return batch, np.concatenate(numbers)


@pytest.mark.parametrize("batch_size", [1, 5, 11, 29, 30])
def test_evaluation_takes_every_row_once_in_order(batch_size):
    questions = SINGLE.questions()
    batch, numbers = joined(questions, batch_size)
    count = questions.num_rows
    assert count == len(PUZZLES)
    assert len(numbers) == -(-count // batch_size) * batch_size
    assert numbers.dtype == np.int32
    assert numbers.tolist() == list(range(len(numbers)))  # padding is numbered too
    assert examples(batch)[:count].tolist() == list(range(count))
    ids = PUZZLES.puzzle_ids[PUZZLE_OF]
    np.testing.assert_array_equal(batch["puzzle_id"][:count], ids)
    assert (batch["weight"][:count] == 1).all()
    for name, padded in batch.items():
        assert not padded[count:].any(), name


@pytest.mark.parametrize("votes", [0, 1, 3])
def test_each_example_is_shown_in_its_first_forms_in_order(votes):
    questions = FORMS.questions(votes=votes)
    counts = np.minimum(PUZZLE_OF + 1, votes or 99)
    expected = [
        (example, PUZZLE_OF[example], index)
        for example, count in enumerate(counts)
        for index in range(count)
    ]
    rows = questions.example, questions.puzzle, questions.form
    assert list(zip(*rows, strict=True)) == expected
    batch, _ = joined(questions, 8)
    real = batch["weight"] > 0
    assert real.sum() == len(expected) == questions.num_rows
    assert examples(batch)[real].tolist() == questions.example.tolist()
    ids = questions.puzzle + 1 + questions.form
    assert batch["puzzle_id"][real].tolist() == ids.tolist()


def test_a_start_skips_rows_and_changes_no_other():
    questions = FORMS.questions(votes=3)
    whole, later = (list(questions.batches(8, start=start)) for start in (0, 8))
    assert [digest(b) for b, _ in later] == [digest(b) for b, _ in whole[1:]]
    assert later[0][1].tolist() == list(range(8, 16))
    first, numbers = next(questions.batches(8, start=3))
    assert numbers[0] == 3
    assert examples(first)[0] == questions.example[3]


def test_ablations_hide_only_the_puzzle():
    questions = SINGLE.questions()
    own, blank, random = (
        next(questions.batches(32, puzzle_ids=ids, num_puzzles=1000))[0]
        for ids in ("own", "blank", "random")
    )
    real = own["weight"] > 0
    assert own["puzzle_id"][real].all()
    assert not blank["puzzle_id"].any()
    drawn = random["puzzle_id"][real]
    assert drawn.min() >= 1
    assert drawn.max() < 1000
    assert len(set(drawn)) > 20
    for name in ("inputs", "labels", "weight"):
        np.testing.assert_array_equal(own[name], random[name])


def test_predictions_are_turned_back_form_by_form():
    questions = FORMS.questions(votes=2)
    answers = np.zeros((questions.num_rows, 2), np.uint8)
    expected = np.stack([questions.puzzle, questions.form], 1)
    assert questions.turned_back(answers).tolist() == expected.tolist()


def test_the_first_groups_can_be_taken():
    questions = FORMS.questions(votes=0, max_puzzles=2)
    chosen = PUZZLES.first(2)
    assert questions.digests() == chosen.digests()
    np.testing.assert_array_equal(questions.inputs, chosen.inputs)
    assert questions.group_of_example().tolist() == chosen.group_of_example().tolist()
    assert set(questions.puzzle) == {0, 1, 2, 3}


def test_hidden_answers_are_seen():
    for hidden, expected in ((0, True), (1, False)):
        labels = PUZZLES.labels + 1
        labels[3] *= 1 - hidden
        puzzles = dataclasses.replace(PUZZLES, labels=labels)
        assert EvalSet(puzzles, SINGLE.variants).questions().has_solutions == expected


@pytest.mark.parametrize("votes", [-1, 14])
def test_more_votes_than_forms_are_refused(votes):
    with pytest.raises(DataError, match=rf"votes = {votes}, .* 13 form\(s\)"):
        FORMS.questions(votes=votes)
