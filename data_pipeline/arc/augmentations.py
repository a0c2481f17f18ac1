# SPDX-License-Identifier: Apache-2.0
"""Augmentations of ARC tasks: a turn of the grids, then a renaming of colours 1 to 9.

An augmentation is stored as a uint32 code: transform * 9! + the rank of the colour
permutation in lexicographic order. Code 0 is the identity.
"""

import functools
import hashlib
import math
from collections.abc import Sequence

import numpy as np

from .. import dihedral
from ..hashing import random_below, random_bits
from .grids import NUM_COLOURS

NUM_PERMUTATIONS = math.factorial(NUM_COLOURS - 1)
NUM_CODES = dihedral.COUNT * NUM_PERMUTATIONS

_DRAW, _ORDER, _REST = range(3)  # keys of the independent draws of one task
_CHUNK = 1 << 16  # codes whose puzzles are hashed at once

Pairs = Sequence[tuple[np.ndarray, np.ndarray | None]]  # input, output if known


def encode_augmentation(transform: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Transforms `...` and colour maps `... 10` -> codes `...`."""
    code = transform.astype(np.uint32)
    for i in range(1, NUM_COLOURS):
        smaller = colours[..., i + 1 :] < colours[..., i, None]
        code = code * (NUM_COLOURS - i) + smaller.sum(-1, dtype=np.uint32)
    return code


def decode_augmentation(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes `...` -> transforms `...` and colour maps uint8 `... 10`."""
    transform, rank = np.divmod(codes, NUM_PERMUTATIONS)
    return transform, _permutations()[rank]


def sample_codes(pairs: Pairs, count: int, seed: int, task: str) -> np.ndarray:
    """Code 0 and up to `count` others, uint32, drawn from (seed, task).

    No two codes give the same puzzle, that is, the same set of pairs in any order.
    There are fewer than `count` others only if no more exist.
    """
    tables, used = _hash_tables(pairs)
    key = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], "little")
    drawn = random_below(NUM_CODES, seed, key, _DRAW, np.arange(2 * count))
    codes = _distinct(np.append(np.uint32(0), drawn.astype(np.uint32)), tables, used)
    if len(codes) <= count:
        codes = _distinct(np.append(codes, _every_code(used, seed, key)), tables, used)
    return codes[: count + 1]


@functools.cache
def _permutations() -> np.ndarray:
    """All permutations of the colours, by rank: uint8 `9! 10`."""
    rank = np.arange(NUM_PERMUTATIONS)
    colours = np.zeros((NUM_PERMUTATIONS, NUM_COLOURS), np.uint8)
    for i in range(NUM_COLOURS - 1, 0, -1):
        rank, digit = np.divmod(rank, NUM_COLOURS - i)
        colours[:, i] = digit + 1
        colours[:, i + 1 :] += colours[:, i + 1 :] >= colours[:, i, None]
    return colours


def _every_code(used: np.ndarray, seed: int, key: int) -> np.ndarray:
    """One code for each way to turn and to rename `used` colours, in random order."""
    unused = np.setdiff1d(np.arange(1, NUM_COLOURS), used)
    num_rest = math.factorial(len(unused))  # ways to rename the others: one is drawn
    index = np.arange(NUM_CODES // num_rest)
    index = index[np.argsort(random_bits(seed, key, _ORDER, index))]
    rest = random_below(num_rest, seed, key, _REST, index)
    transform, images = decode_augmentation(index * num_rest + rest)
    colours = np.empty_like(images)
    colours[:, np.concatenate([[0], used, unused])] = images
    return encode_augmentation(transform, colours)


def _distinct(codes: np.ndarray, tables: np.ndarray, used: np.ndarray) -> np.ndarray:
    """The codes without those that repeat an earlier puzzle, in the same order."""
    hashes = [
        _puzzle_hashes(codes[i : i + _CHUNK], tables, used)
        for i in range(0, len(codes), _CHUNK)
    ]
    _, first = np.unique(np.concatenate(hashes), return_index=True)
    return codes[np.sort(first)]


def _puzzle_hashes(
    codes: np.ndarray, tables: np.ndarray, used: np.ndarray
) -> np.ndarray:
    """A 64-bit hash of each code's puzzle, which ignores the order of the pairs."""
    transform, colours = decode_augmentation(codes)
    grids = tables[transform, 0, 0]
    for colour in used:
        grids += tables[transform, colour, colours[:, colour]]
    pairs = random_bits(grids[:, ::2], grids[:, 1::2])
    return pairs.sum(axis=1)


def _hash_tables(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Partial hashes, uint64 `8 10 10 g`, and the colours other than 0 that occur.

    The hash of a grid is the sum, modulo 2**64, of random bits for the place and colour
    of every cell. Entry [t, i, j, g] is the part that the cells of colour i in grid g
    contribute if the grid is turned by t and colour i is renamed to j. Inputs and
    outputs alternate; the hash of an unknown output is 0.
    """
    grids = [grid for pair in pairs for grid in pair]
    side = max(max(grid.shape) for grid in grids if grid is not None)
    line, colour = np.arange(side), np.arange(NUM_COLOURS)
    bits = random_bits(colour[:, None, None], line[:, None], line)
    tables = np.zeros((dihedral.COUNT, NUM_COLOURS, NUM_COLOURS, len(grids)), np.uint64)
    occurs = np.zeros(NUM_COLOURS, bool)
    for g, grid in enumerate(grids):
        if grid is None:
            continue
        order = np.argsort(grid, axis=None)
        found, starts = np.unique(grid.ravel()[order], return_index=True)
        occurs[found] = True
        for t in range(dihedral.COUNT):
            rows, columns = dihedral.turn(grid, t).shape
            turned = dihedral.turn(bits[:, :rows, :columns], dihedral.INVERSE[t])
            cells = turned.reshape(NUM_COLOURS, -1)[:, order]
            tables[t, found, :, g] = np.add.reduceat(cells, starts, axis=1).T
    return tables, 1 + np.flatnonzero(occurs[1:])
