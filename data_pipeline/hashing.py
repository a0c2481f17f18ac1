# SPDX-License-Identifier: Apache-2.0
"""Random numbers as a pure function of integer keys, for whole arrays at once.

A generator object per puzzle would cost more than the augmentation itself. The streams
of NumPy's generators may also change between releases; these numbers cannot.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(h: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    h = (h ^ (h >> np.uint64(30))) * _MIX_1
    h = (h ^ (h >> np.uint64(27))) * _MIX_2
    return h ^ (h >> np.uint64(31))


def random_bits(*keys: int | np.ndarray) -> np.ndarray:
    """64 random bits for each element of the keys, broadcast against each other."""
    h = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64
        for key in keys:
            h = _mix((h ^ np.asarray(key).astype(np.uint64)) + _GOLDEN)
    return h


def random_below(limit: int | np.ndarray, *keys: int | np.ndarray) -> np.ndarray:
    """Integers in [0, limit), limit < 2**32; the bias is below limit / 2**32."""
    high = random_bits(*keys) >> np.uint64(32)
    return ((high * np.asarray(limit).astype(np.uint64)) >> np.uint64(32)).astype(int)


def random_permutations(length: int, *keys: int | np.ndarray) -> np.ndarray:
    """One permutation of range(length) per element of the keys, on a new last axis."""
    spread = [np.asarray(key)[..., None] for key in keys]
    return np.argsort(random_bits(*spread, np.arange(length)), axis=-1)
