# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from data_pipeline.spec import BLANK_PUZZLE_ID, PuzzleSet, array_digest


@pytest.fixture
def puzzles():
    """Groups of 2, 1 and 2 puzzles; puzzles of 1, 2, 3, 1 and 2 examples."""
    rows = np.arange(9, dtype=np.uint8)
    return PuzzleSet(
        inputs=np.stack([rows, rows + 10], 1),
        labels=np.stack([rows + 20, rows + 30], 1),
        puzzle_starts=np.array([0, 1, 3, 6, 7, 9]),
        group_starts=np.array([0, 2, 3, 5]),
        puzzle_ids=np.array([5, 6, 7, 8, 9], np.int32),
        attributes={"rating": np.arange(100, 109)},
    )


def test_subset_takes_whole_groups_in_the_order_given(puzzles):
    chosen = puzzles.subset(np.array([2, 0]))
    rows = [6, 7, 8, 0, 1, 2]
    assert chosen.inputs.tolist() == puzzles.inputs[rows].tolist()
    assert chosen.labels.tolist() == puzzles.labels[rows].tolist()
    assert chosen.attributes["rating"].tolist() == [106, 107, 108, 100, 101, 102]
    assert chosen.puzzle_ids.tolist() == [8, 9, 5, 6]
    assert chosen.puzzle_starts.tolist() == [0, 1, 3, 4, 6]
    assert chosen.group_starts.tolist() == [0, 2, 4]


def test_subset_of_all_groups_changes_nothing(puzzles):
    everything = puzzles.subset(np.arange(3))
    assert everything.digests() == puzzles.digests()
    for name in ("puzzle_starts", "group_starts", "puzzle_ids", "inputs"):
        assert getattr(everything, name).dtype == getattr(puzzles, name).dtype


def test_first_groups_are_a_subset_and_zero_means_all(puzzles):
    assert puzzles.first(2).digests() == puzzles.subset(np.array([0, 1])).digests()
    assert puzzles.first(0) is puzzles


def test_single_examples_are_puzzles_and_groups_of_their_own():
    grids = np.ones((3, 4), np.uint8)
    puzzles = PuzzleSet.of_single_examples(grids, grids, clues=np.arange(3))
    assert len(puzzles) == 3
    assert puzzles.puzzle_starts.tolist() == [0, 1, 2, 3]
    assert puzzles.group_starts.tolist() == [0, 1, 2, 3]
    assert puzzles.puzzle_ids.tolist() == [BLANK_PUZZLE_ID] * 3
    assert puzzles.subset(np.array([1])).attributes["clues"].tolist() == [1]


def test_digest_ignores_byte_order_and_memory_layout():
    array = np.arange(6, dtype="<i4").reshape(2, 3)
    assert array_digest(array.astype(">i4")) == array_digest(array)
    assert array_digest(np.asfortranarray(array)) == array_digest(array)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.reshape(3, 2),
        lambda a: a.astype(np.int64),
        lambda a: a + (a == 5),
    ],
    ids=["shape", "dtype", "one value"],
)
def test_digest_sees_shape_dtype_and_values(change):
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert array_digest(change(array)) != array_digest(array)


def test_digest_is_the_same_in_every_release():
    # Results record digests: a new value here means that old records name other data.
    expected = "6dbfa661f92b4bffd7cb2ea7e83c24ad44681b06d5cc1edd6f144af02fe540e4"
    assert array_digest(np.arange(6, dtype=np.uint8).reshape(2, 3)) == expected
