# SPDX-License-Identifier: Apache-2.0
import gzip
import hashlib
import itertools
import json
import pathlib
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.arc.grids import decode, encode
from data_pipeline.arc.variants import ArcVariants
from data_pipeline.variants import Visit, undone
from tests.data_pipeline.arc import one_grid

ARC = pathlib.Path(__file__).parents[4] / "shared" / "data" / "arc"


class Rows:
    """Rows of random grids in random forms, and the oracle of each form."""

    def __init__(self, side, seed, count=40, most=None):
        rng = np.random.default_rng(seed)
        self.side = side
        shapes = rng.integers(1, (most or side) + 1, (count, 2, 2))
        self.grids = [
            [rng.integers(0, 10, shape).astype(np.uint8) for shape in pair]
            for pair in shapes
        ]
        for pair in self.grids[::7]:
            pair[1] = None
        self.inputs, self.labels = (self.tokens(half) for half in (0, 1))
        sizes = rng.integers(1, 6, 9)
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self.codes = rng.integers(0, 8 * 362880, self.starts[-1]).astype(np.uint32)
        self.codes[self.starts[:-1]] = 0
        self.puzzle = rng.integers(0, 9, count)
        self.form = rng.integers(0, sizes[self.puzzle])
        self.variants = ArcVariants(self.codes, self.starts, side, 5)

    def tokens(self, half, change=lambda i, grid: grid):
        empty = np.zeros(self.side**2, np.uint8)
        halves = [pair[half] for pair in self.grids]
        return np.stack(
            [
                empty if grid is None else encode(change(i, grid), self.side)
                for i, grid in enumerate(halves)
            ]
        )

    def code(self, i):
        forms = self.codes[self.starts[self.puzzle[i]] :]
        return int(forms[self.form[i]])

    def turned(self, i, grid):
        return one_grid.apply(grid, self.code(i))

    def visit(self, slot, position, rows=slice(None)):
        example = np.arange(len(self.grids))
        fields = (example, self.puzzle, self.form, slot, position)
        visit = Visit(*(field[rows] for field in fields))
        return self.variants.visit(visit, self.inputs[rows], self.labels[rows])


@settings(max_examples=100, deadline=None, database=None)
@given(side=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_forms_are_turned_and_renamed_and_undone(side, seed):
    rows = Rows(side, seed)
    forms = rows.puzzle, rows.form
    found = rows.variants.apply(*forms, rows.inputs, rows.labels)
    for half, stored in enumerate((rows.inputs, rows.labels)):
        assert found[half].dtype == np.uint8
        np.testing.assert_array_equal(found[half], rows.tokens(half, rows.turned))
        back = undone(rows.variants, *forms, found[half])
        assert back.dtype == np.uint8
        np.testing.assert_array_equal(back, stored)


def test_forms_are_counted_and_form_0_is_the_stored_puzzle():
    rows = Rows(9, 0)
    assert rows.variants.has_ids is True
    np.testing.assert_array_equal(rows.variants.num_forms, np.diff(rows.starts))
    same = np.zeros_like(rows.form)
    found = rows.variants.apply(rows.puzzle, same, rows.inputs, rows.labels)
    np.testing.assert_array_equal(found, [rows.inputs, rows.labels])


@settings(max_examples=100, deadline=None, database=None)
@given(side=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_any_prediction_is_read_and_undone(side, seed):
    rows = Rows(side, seed)
    rng = np.random.default_rng(seed)
    wrong = rng.random(rows.inputs.shape) < rng.choice([0.02, 0.3, 1.0])
    answers = np.where(wrong, rng.integers(0, 12, wrong.shape), rows.inputs)
    answers = answers.astype(np.uint8)
    found = rows.variants.undo(rows.puzzle, rows.form, answers)
    for i, answer in enumerate(answers):
        grid = one_grid.invert(decode(answer, side), rows.code(i))
        np.testing.assert_array_equal(found[i], encode(grid, side))


def test_an_answer_without_a_grid_becomes_pad():
    rows = Rows(6, 0)
    answers = np.random.default_rng(0).integers(0, 12, (40, 36)).astype(np.uint8)
    answers[:, 0] = np.arange(40) % 2  # PAD or end marker in the corner
    assert not rows.variants.undo(rows.puzzle, rows.form, answers).any()


def offsets(rows, slot, position):
    """For each row, the common offset of its grids (else None) and the room for it."""
    found = rows.visit(slot, position)
    places = []
    for i, pair in enumerate(rows.grids):
        drawn = [None if grid is None else rows.turned(i, grid) for grid in pair]
        room = np.min(
            [rows.side - np.array(grid.shape) for grid in drawn if grid is not None], 0
        )
        matches = []
        for place in itertools.product(range(room[0] + 1), range(room[1] + 1)):
            expected = [
                np.zeros(rows.side**2) if g is None else encode(g, rows.side, place)
                for g in drawn
            ]
            if np.array_equal(expected, [half[i] for half in found]):
                matches.append(place)
        places.append((matches[0] if len(matches) == 1 else None, tuple(room)))
    return places


@settings(max_examples=40, deadline=None, database=None)
@given(side=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_visits_move_both_grids_by_one_offset_that_fits(side, seed):
    rows = Rows(side, seed)
    slot = np.arange(40) % 3
    for i, (place, _) in enumerate(offsets(rows, slot, seed + np.arange(40))):
        assert place is not None
        assert slot[i] or place == (0, 0)


def test_visits_on_the_largest_canvas():
    rows = Rows(30, 0, count=12)
    places = offsets(rows, np.ones(12, int), np.arange(12))
    assert None not in [place for place, _ in places]


def test_all_places_that_fit_are_equally_likely():
    rows = Rows(6, 1, count=12, most=4)
    visits = [
        offsets(rows, np.ones(12, int), 12 * k + np.arange(12)) for k in range(300)
    ]
    for drawn in zip(*visits, strict=True):
        _, room = drawn[0]
        allowed = list(itertools.product(range(room[0] + 1), range(room[1] + 1)))
        counts = [sum(place == found for found, _ in drawn) for place in allowed]
        assert sum(counts) == 300
        expected = 300 / len(allowed)
        np.testing.assert_allclose(counts, expected, atol=5 * np.sqrt(expected))


def test_visits_follow_from_seed_and_position_alone():
    rows = Rows(20, 3, most=5)
    slot, position = np.ones(40, int), 1000 + np.arange(40)
    whole = rows.visit(slot, position)
    for part in (slice(7, 8), slice(None, None, -3)):
        found = rows.visit(slot, position, part)
        np.testing.assert_array_equal(found, [half[part] for half in whole])
    np.testing.assert_array_equal(rows.visit(slot + 4, position), whole)
    shifted = rows.visit(slot, position + 1)
    rows.variants = ArcVariants(rows.codes, rows.starts, 20, 0)
    reseeded = rows.visit(slot, position)
    for other in (shifted, reseeded):
        assert (other[0] == whole[0]).all(axis=1).sum() < 5


def test_visits_are_the_same_in_every_release():
    # New values would mean that a resumed run sees other batches. Never update them.
    row = np.arange(40)
    grids = [np.arange(n, n + 12).reshape(-1, 2 + n % 2) % 10 for n in row]
    tokens = np.stack([encode(grid.astype(np.uint8), 12) for grid in grids])
    codes = (7919 * np.arange(90) * np.arange(90) % (8 * 362880)).astype(np.uint32)
    variants = ArcVariants(codes, np.array([0, 40, 90]), 12, 5)
    found = variants.visit(Visit(row, row % 2, row, row % 3, row), tokens, tokens[::-1])
    digest = hashlib.sha256(np.stack(found).tobytes()).hexdigest()
    assert digest[:16] == "3b7c1b0896b7ffde"


@pytest.fixture(scope="module")
def published():
    """The pairs of ARC-AGI-1 evaluation, one puzzle each, in eight turns."""
    file = ARC / "arc-agi_evaluation_challenges.json.gz"
    if not file.is_file():
        pytest.skip(f"{file} is absent")
    tasks = json.loads(gzip.decompress(file.read_bytes())).values()
    pairs = [pair for task in tasks for pair in task["train"]]
    tokens = [
        np.stack([encode(np.array(pair[half], np.uint8), 30) for pair in pairs])
        for half in ("input", "output")
    ]
    starts = 8 * np.arange(len(pairs) + 1)
    codes = np.arange(starts[-1]) % 8 * 362880 + 7919 * np.arange(starts[-1]) % 362880
    return *tokens, ArcVariants(codes.astype(np.uint32), starts, 30, 0)


@pytest.mark.parametrize(
    "least", [40_000, pytest.param(120_000, marks=pytest.mark.slow)]
)
def test_examples_per_second(published, least):
    # Other programs may share the machine: this takes the best of ten, in CPU seconds.
    inputs, labels, variants = published
    seconds, back = [], []
    for k in range(10):
        position = 768 * k + np.arange(768)
        example = position * 5 % len(inputs)
        rows = Visit(example, example, position % 8, np.ones(768, int), position)
        shown = inputs[example], labels[example]
        start = time.process_time()
        variants.visit(rows, *shown)
        seconds.append(time.process_time() - start)
        _, answers = variants.apply(rows.puzzle, rows.form, *shown)
        start = time.process_time()
        found = variants.undo(rows.puzzle, rows.form, answers)
        back.append(time.process_time() - start)
        np.testing.assert_array_equal(found, shown[1])
    assert 768 / min(seconds) > least
    assert 768 / min(back) > least
