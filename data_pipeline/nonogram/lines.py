# SPDX-License-Identifier: Apache-2.0
"""All lines of a length, their clues, and which lines fit a clue.

A line of a nonogram is a row or a column. Its clue lists the lengths of its runs of
filled cells, or only 0 if no cell is filled. A clue is stored as a code: a hexadecimal
number with one digit per entry, which is the entry plus 1. No digit is 0, so that the
code also tells how many entries there are.

Options of a line of n cells are a set of 2n bits: bit 2i says that cell i can be empty,
and bit 2i + 1 that it can be filled.
"""

import functools

import numpy as np

SHORTEST, LONGEST = 5, 10  # of a line: 10 cells and 2 options each fit 20 bits
BITS = 4  # of a digit: entries up to 10 are stored as 1 to 11
_DIGIT = 2**BITS - 1
# No option of a line is beyond bit 19, so a line never has all options of this one.
_NEVER = np.uint32(2**32 - 1)


def slots(length: int) -> int:
    """The most entries that a clue of a line of this length can have."""
    return (length + 1) // 2


def clue_codes(filled: np.ndarray) -> np.ndarray:
    """The codes of lines, bool `... length` -> uint32 `...`."""
    return _codes(filled.shape[-1])[filled @ (1 << np.arange(filled.shape[-1]))]


def to_entries(codes: np.ndarray, count: int) -> np.ndarray:
    """Codes `...` -> digits `... count`, the last entry last; 0 where there is none."""
    shifts = BITS * np.arange(count)[::-1].astype(np.uint32)
    return codes[..., None] >> shifts & _DIGIT


def from_entries(digits: np.ndarray) -> np.ndarray:
    """Digits `... count` (see to_entries) -> codes `...`, int64."""
    shifts = BITS * np.arange(digits.shape[-1])[::-1]
    return (digits.astype(np.int64) << shifts).sum(-1)


def all_options(length: int) -> np.uint32:
    """The options of a line about which nothing is known."""
    return np.uint32(4**length - 1)


@functools.cache
def known_clues(length: int) -> np.ndarray:
    """The codes of all clues that some line of this length has, ascending."""
    return np.unique(_codes(length))


@functools.cache
def placements(length: int) -> np.ndarray:
    """The options of the lines that fit each known clue, uint32 `clues most`.

    A line is as many options as it has cells. The rest of a row, after the lines that
    fit its clue, is filled up with options that no line has.
    """
    number = np.searchsorted(known_clues(length), _codes(length))
    order = number.argsort(kind="stable")
    counts = np.bincount(number)
    table = np.full((len(counts), counts.max()), _NEVER)
    place = np.arange(2**length) - np.repeat(counts.cumsum() - counts, counts)
    table[number[order], place] = _as_options(length)[order]
    return table


def _lines(length: int) -> np.ndarray:
    """All lines, bool `2 ** length, length`; line i has the cells of the bits of i."""
    return (np.arange(2**length)[:, None] >> np.arange(length) & 1).astype(bool)


def _as_options(length: int) -> np.ndarray:
    """Each line as a set of options, one of every cell."""
    bits = 2 * np.arange(length) + _lines(length)
    return (1 << bits).sum(1).astype(np.uint32)


@functools.cache
def _codes(length: int) -> np.ndarray:
    """The code of the clue of every line, uint32 `2 ** length`."""
    codes = np.zeros(2**length, np.uint32)
    run = np.zeros_like(codes)
    for filled in (*_lines(length).T, np.zeros(2**length, bool)):
        ends = ~filled & (run > 0)
        codes = np.where(ends, codes << BITS | (run + 1), codes)
        run = np.where(filled, run + 1, 0)
    return np.where(codes == 0, np.uint32(1), codes)
