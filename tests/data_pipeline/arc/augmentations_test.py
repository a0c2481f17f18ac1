# SPDX-License-Identifier: Apache-2.0
import gzip
import hashlib
import itertools
import json
import math
import pathlib
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.arc.augmentations import (
    decode_augmentation,
    encode_augmentation,
    sample_codes,
)
from tests.data_pipeline.arc import one_grid

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "arc_encoding.npz"
ARC = pathlib.Path(__file__).parents[4] / "shared" / "data" / "arc"
CODES = st.integers(0, 8 * math.factorial(9) - 1)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def grid(*rows):
    return np.array([[int(cell) for cell in row] for row in rows], np.uint8)


def digest(pairs):
    """SHA-256 of the sorted pairs: the published builder compares puzzles this way."""
    halves = [[] if half is None else half.tolist() for pair in pairs for half in pair]
    keys = sorted(map(repr, zip(halves[::2], halves[1::2], strict=True)))
    return hashlib.sha256("|".join(keys).encode()).digest()


def transformed(pairs, change):
    return [
        tuple(half if half is None else change(half) for half in pair) for pair in pairs
    ]


def orbit(pairs):
    """The digests of all puzzles that turns and renamed colours make of this one.

    This is the oracle of sample_codes. It repeats four changes, which generate all
    others, until no new puzzle appears.
    """
    swap, cycle = np.arange(10), np.array([0, 2, 3, 4, 5, 6, 7, 8, 9, 1])
    swap[[1, 2]] = 2, 1
    changes = [np.rot90, np.transpose, lambda g: swap[g], lambda g: cycle[g]]
    seen, waiting = {digest(pairs)}, [pairs]
    while waiting:
        start = waiting.pop()
        for change in changes:
            reached = transformed(start, change)
            if (key := digest(reached)) not in seen:
                seen.add(key)
                waiting.append(reached)
    return seen


def forms(pairs, codes):
    """The digests of the puzzles that the codes stand for."""
    return [
        digest(transformed(pairs, lambda g, c=c: one_grid.apply(g, c)))
        for c in codes.tolist()
    ]


TASKS = {  # pairs, and how many puzzles they stand for
    "black, square": ([(grid("00", "00"), grid("0"))], 1),
    "black": ([(grid("000"), grid("0"))], 2),
    "one colour, symmetric": ([(grid("11", "11"), grid("1"))], 9),
    "one colour": ([(grid("110", "000"), grid("01"))], 9 * 8),
    "one colour, mirrored": ([(grid("100", "100"), grid("10"))], 9 * 4),
    "two colours, one turn": ([(grid("12", "21"), grid("1"))], 9 * 8 * 2),
    "three colours": ([(grid("112", "000"), grid("3"))], 9 * 8 * 7 * 8),
    "mirrored when renamed": ([(grid("12", "00"), grid("3"))], 9 * 8 * 7 * 8 // 2),
    "pairs swap when turned": ([(grid("50"), grid("5")), (grid("05"), grid("5"))], 18),
    "pairs swap when renamed": ([(grid("1"), grid("3")), (grid("2"), grid("3"))], 252),
    "halves differ": ([(grid("1"), grid("2")), (grid("2"), grid("1"))], 36),
    "halves of two pairs": ([(grid("1"), grid("1")), (grid("2"), grid("2"))], 36),
    "a pair twice": ([(grid("1"), grid("2"))] * 2 + [(grid("2"), grid("1"))], 72),
    "six of a kind": ([(grid("0"), grid(str(i))) for i in range(1, 7)], 84),
    "no output": ([(grid("10"), grid("1")), (grid("20"), None)], 9 * 8 * 4),
}


def test_named_augmentations_are_those_of_the_published_builder(golden):
    for i in range(6):
        text = bytes(golden[f"aug/{i}/name"]).decode()
        code = one_grid.code_of(text)
        moved = one_grid.apply(golden["grid"], code)
        np.testing.assert_array_equal(moved, golden[f"aug/{i}/grid"])
        back = one_grid.invert(golden[f"aug/{i}/grid"], code)
        np.testing.assert_array_equal(back, golden[f"aug/{i}/inverse"])
        assert moved.dtype == back.dtype == np.uint8


def test_turns_are_those_of_the_published_builder(golden):
    for t in golden["dihedral_ids"].tolist():
        code = t * math.factorial(9)
        turned = golden[f"dihedral/{t}"]
        found = one_grid.apply(golden["grid"], code)
        np.testing.assert_array_equal(found, turned)
        back = one_grid.invert(turned, code)
        np.testing.assert_array_equal(back, golden[f"dihedral_inverse_of/{t}"])


def test_codes_count_the_permutations_in_order():
    size = math.factorial(9)
    listed = np.array(list(itertools.permutations(range(1, 10))))
    for t in (0, 7):
        codes = (t * size + np.arange(size)).astype(np.uint32)
        transform, colours = decode_augmentation(codes)
        assert (transform == t).all()
        assert colours.dtype == np.uint8
        assert not colours[:, 0].any()
        np.testing.assert_array_equal(colours[:, 1:], listed)
        found = encode_augmentation(transform, colours)
        assert found.dtype == np.uint32
        np.testing.assert_array_equal(found, codes)


@settings(max_examples=200, deadline=None, database=None)
@given(
    code=CODES,
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    seed=st.integers(0, 2**32),
)
def test_grids_come_back(code, shape, seed):
    before = np.random.default_rng(seed).integers(0, 10, shape).astype(np.uint8)
    after = one_grid.apply(before, code)
    np.testing.assert_array_equal(one_grid.invert(after, code), before)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("count", [0, 5, 60, 1000, 5000])
def test_all_distinct_forms_are_found_up_to_the_count(task, count):
    pairs, exist = TASKS[task]
    codes = sample_codes(pairs, count, 0, task)
    assert codes.dtype == np.uint32
    assert codes[0] == 0
    assert len(codes) == len(set(forms(pairs, codes))) == min(exist, count + 1)


@pytest.mark.parametrize("task", TASKS)
def test_the_numbers_of_forms_above_are_right(task):
    pairs, exist = TASKS[task]
    assert len(orbit(pairs)) == exist


def small_grids():
    side = st.integers(1, 3)
    cells = st.lists(st.integers(0, 3), min_size=9, max_size=9)
    return st.builds(
        lambda r, c, values: np.array(values[: r * c], np.uint8).reshape(r, c),
        side,
        side,
        cells,
    )


@settings(max_examples=40, deadline=None, database=None)
@given(
    pairs=st.lists(
        st.tuples(small_grids(), st.none() | small_grids()), min_size=1, max_size=3
    ),
    count=st.sampled_from([30, 300, 1000]),
)
def test_forms_of_random_tasks_are_distinct_and_complete(pairs, count):
    codes = sample_codes(pairs, count, 7, "x")
    found = forms(pairs, codes)
    assert len(set(found)) == len(found)
    if len(found) <= count:
        assert set(found) == orbit(pairs)


def test_codes_follow_from_seed_and_task_alone():
    pairs, _ = TASKS["three colours"]
    first = sample_codes(pairs, 100, 0, "a")
    sample_codes(pairs, 100, 5, "b")
    np.testing.assert_array_equal(sample_codes(pairs, 100, 0, "a"), first)
    np.testing.assert_array_equal(sample_codes(pairs[::-1], 100, 0, "a"), first)
    np.testing.assert_array_equal(sample_codes(pairs, 40, 0, "a")[:40], first[:40])
    for other in (sample_codes(pairs, 100, 1, "a"), sample_codes(pairs, 100, 0, "b")):
        assert len(np.intersect1d(other, first)) < 10


def test_codes_are_the_same_in_every_release():
    # New values would mean that the ids of saved puzzle vectors stand for other forms.
    # Never update them.
    drawn = sample_codes(TASKS["three colours"][0], 1000, 0, "a")
    listed = sample_codes(TASKS["one colour"][0], 71, 0, "a")
    found = [hashlib.sha256(c.tobytes()).hexdigest()[:16] for c in (drawn, listed)]
    assert found == ["981f6ae41e963544", "36212171186d82f1"]


def test_turns_and_colours_are_drawn_uniformly():
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 10, (5, 6)), rng.integers(0, 10, (5, 6)))]
    transform, colours = decode_augmentation(sample_codes(pairs, 20_000, 3, "u")[1:])
    assert len(transform) == 20_000
    np.testing.assert_allclose(np.bincount(transform), 2500, rtol=0.1)
    for colour in range(1, 10):
        counts = np.bincount(colours[:, colour])[1:]
        np.testing.assert_allclose(counts, 20_000 / 9, rtol=0.1)


def test_none_is_preferred_where_most_forms_are_taken():
    # These are 65 of the 71 other forms. Random draws do not find so many, so the rest
    # comes from the full list.
    pairs, _ = TASKS["one colour"]
    taken = [
        forms(pairs, sample_codes(pairs, 65, seed, "a"))[1:] for seed in range(300)
    ]
    _, counts = np.unique([key.hex() for f in taken for key in f], return_counts=True)
    assert len(counts) == 71
    expected = 300 * 65 / 71
    assert abs(counts - expected).max() < 5 * np.sqrt(expected * 6 / 71)


def test_colours_that_do_not_occur_are_renamed_too():
    # They may occur in a hidden output.
    pairs, _ = TASKS["one colour"]
    for count in (20, 71):  # 20 are drawn; 71 need the full list
        _, colours = decode_augmentation(sample_codes(pairs, count, 0, "a")[1:])
        assert (np.sort(colours, axis=1) == np.arange(10)).all()
        others = colours[:, 2:].astype(int)
        assert len({tuple(row) for row in others.tolist()}) == count
        assert (np.diff(others) < 0).any(axis=1).all()


def read_pairs(subset):
    """All pairs of every task of a published subset."""
    if not ARC.is_dir():
        pytest.skip(f"{ARC} is absent")
    challenges, solutions = (
        json.loads(
            gzip.decompress((ARC / f"arc-agi_{subset}_{part}.json.gz").read_bytes())
        )
        for part in ("challenges", "solutions")
    )
    for task, parts in challenges.items():
        tests = zip(parts["test"], solutions[task], strict=True)
        pairs = [(pair["input"], pair["output"]) for pair in parts["train"]]
        pairs += [(pair["input"], output) for pair, output in tests]
        yield task, [tuple(np.array(g, np.uint8) for g in pair) for pair in pairs]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subsets", "ids", "published"),
    [
        (("training", "evaluation", "concept"), 876_420, 876_407),
        (("training2", "evaluation2", "concept"), 1_191_741, 1_191_732),
    ],
)
def test_number_of_ids_of_the_published_sets(subsets, ids, published):
    # The published builder draws 5,000 times. Of tasks with 576 forms it therefore
    # misses about one form in 6,000: with seeds 42, 0 and 1, it misses 10 to 18 in all.
    tasks = [task for subset in subsets for task in read_pairs(subset)]
    start = time.process_time()
    codes = [sample_codes(pairs, 1000, 0, task) for task, pairs in tasks]
    assert time.process_time() - start < 30
    assert 1 + sum(map(len, codes)) == ids
    assert 0 <= ids - published < 20
    fewer = [i for i, c in enumerate(codes) if len(c) < 1001]
    assert len(fewer) == (164 if subsets[0] == "training" else 175)
    for i in fewer[::20] + list(range(0, len(tasks), 100)):
        assert len(set(forms(tasks[i][1], codes[i]))) == len(codes[i])
