# SPDX-License-Identifier: Apache-2.0
import itertools

import numpy as np
import pytest

from data_pipeline.hashing import random_below, random_bits, random_permutations


def chi_square(values, num_bins):
    """Distance from uniform, in standard deviations; below 4 for random values."""
    counts = np.bincount(values, minlength=num_bins)
    assert len(counts) == num_bins
    expected = len(values) / num_bins
    statistic = ((counts - expected) ** 2 / expected).sum()
    return (statistic - (num_bins - 1)) / np.sqrt(2 * (num_bins - 1))


def test_every_element_depends_on_its_own_keys_alone():
    keys = 7, np.arange(5)[:, None], np.array([3, 2**63 - 1, 0])
    found = random_bits(*keys)
    assert found.shape == (5, 3)
    assert found.dtype == np.uint64
    singly = [[random_bits(7, i, int(j)) for j in keys[2]] for i in range(5)]
    np.testing.assert_array_equal(found, singly)
    np.testing.assert_array_equal(found, random_bits(*keys))


def test_width_of_the_keys_does_not_matter():
    expected = random_bits(3, 200)
    for dtype in (np.uint8, np.int32, np.int64, np.uint64):
        assert random_bits(dtype(3), np.array(200, dtype)) == expected


def test_one_key_is_the_first_number_of_splitmix64():
    # These are published constants, so they do not depend on this package.
    assert random_bits(0) == 0xE220A8397B1DCDAF
    assert random_bits(1234567) == 6457827717110365317


def test_numbers_are_the_same_in_every_release():
    # These numbers decide the order of the data. New values would mean that a resumed
    # or repeated run sees other batches. Never update them.
    assert random_bits(0, 0) == 0xA706DD2F4D197E6F
    assert random_bits(1, 2, 3) == 0xD0734750FDE362B3
    expected = [979, 880, 141, 405, 893, 876]
    assert random_below(1000, 5, np.arange(6)).tolist() == expected
    expected = [[3, 5, 2, 4, 0, 1], [4, 2, 0, 5, 1, 3]]
    assert random_permutations(6, 5, np.arange(2)).tolist() == expected


def test_keys_do_not_commute_or_collide():
    a, b = np.arange(100)[:, None], np.arange(100)
    found = np.concatenate([random_bits(a, b).ravel(), random_bits(b)])
    assert len(np.unique(found)) == 100 * 100 + 100


@pytest.mark.parametrize("position", range(3))
def test_neighbouring_keys_differ_in_half_of_the_bits(position):
    keys = [5, 5, 5]
    keys[position] = np.arange(10_000)
    bits = np.unpackbits(random_bits(*keys).view(np.uint8)).reshape(-1, 64)
    assert abs(bits.mean(0) - 0.5).max() < 0.02  # 4 standard deviations
    flips = bits[1:] != bits[:-1]
    assert abs(flips.mean(0) - 0.5).max() < 0.02
    assert flips.sum(1).min() >= 10


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 1001])
def test_numbers_below_a_limit_are_uniform(limit):
    values = random_below(limit, 1, np.arange(100_000))
    assert values.dtype == int
    if limit > 1:
        assert abs(chi_square(values, limit)) < 4
    else:
        assert not values.any()


def test_limits_may_differ_by_element_and_be_large():
    limits = np.array([1, 2, 1000, 2**32 - 1])
    values = random_below(limits, np.arange(10_000)[:, None])
    assert (values < limits).all()
    assert (values >= 0).all()
    np.testing.assert_allclose(values[:, 1:].mean(0) / limits[1:], 0.5, atol=0.3)


@pytest.mark.parametrize("length", [1, 2, 9])
def test_permutations_are_permutations(length):
    found = random_permutations(length, 4, np.arange(60).reshape(20, 3))
    assert found.shape == (20, 3, length)
    assert (np.sort(found) == np.arange(length)).all()


def test_all_orders_are_equally_likely():
    for length in (3, 4):
        orders = list(itertools.permutations(range(length)))
        found = random_permutations(length, 2, np.arange(60_000)).tolist()
        places = [orders.index(tuple(order)) for order in found]
        assert abs(chi_square(places, len(orders))) < 4
