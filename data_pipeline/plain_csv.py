# SPDX-License-Identifier: Apache-2.0
"""CSV text as arrays of bytes, for files of millions of rows.

Only files without quotes, carriage returns and blank lines are read this way. It finds
no fault: text_files.read_rows reads every CSV file, and says what is wrong in a row.
"""

import pathlib
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from .text_files import CSV_COLUMNS, file_parts

PIECE = 2**21  # bytes of a file at once
LONGEST_LINE = 2**16

_BOM = b"\xef\xbb\xbf"
_OTHERS = (b'"', b"\r", b"\0")  # bytes that need more than a search for commas


class Fields(NamedTuple):
    """The fields of `n` rows with `c` columns."""

    text: np.ndarray  # uint8: what holds all fields
    starts: np.ndarray  # int64 `n c`: the first byte of each field
    ends: np.ndarray  # int64 `n c`: the byte after it

    def chars(self, column: int, width: int) -> np.ndarray | None:
        """A column, uint8 `n width`; None if a field is longer or shorter."""
        if not len(self.starts) or (self._lengths(column) != width).any():
            return None
        windows = np.lib.stride_tricks.sliding_window_view(self.text, width)
        return windows[self.starts[:, column]]

    def numbers(self, column: int, most_digits: int) -> np.ndarray | None:
        """A column of whole numbers, int64 `n`; None if a field is something else."""
        lengths, last = self._lengths(column), self.ends[:, column] - 1
        longest = int(lengths.max(initial=0))
        if longest > most_digits or not lengths.all():
            return None
        total = np.zeros(len(lengths), np.int64)
        for place in range(longest):
            has = np.flatnonzero(lengths > place)
            digits = self.text[last[has] - place] - np.uint8(ord("0"))
            if (digits > 9).any():
                return None
            total[has] += digits * np.int64(10**place)
        return total

    def _lengths(self, column: int) -> np.ndarray:
        return self.ends[:, column] - self.starts[:, column]


def plain_fields(
    path: str | pathlib.Path, columns: Sequence[str]
) -> Iterator[Fields | None]:
    """Some of CSV_COLUMNS, some thousand rows at a time; None if a file is not plain.

    Raises DataError if the file cannot be read or unpacked.
    """
    pieces = _whole_lines(path)
    header, _, first = next(pieces, b"").removeprefix(_BOM).partition(b"\n")
    names = header.decode(errors="replace").split(",")
    if not _is_plain(header) or any(names.count(name) != 1 for name in CSV_COLUMNS):
        yield None
        return
    picked = [names.index(name) for name in columns]
    for piece in filter(None, chain([first], pieces)):
        found = _fields(piece, len(names))
        yield found and Fields(
            found.text, found.starts[:, picked], found.ends[:, picked]
        )


def fields_of(rows: Sequence[Sequence[str]]) -> Fields | None:
    """Rows of equally many fields as Fields; None if not all of them are ASCII."""
    joined = "".join(map("".join, rows))
    if not joined.isascii():
        return None
    lengths = np.array([[len(field) for field in row] for row in rows])
    ends = lengths.cumsum().reshape(lengths.shape)
    return Fields(np.frombuffer(joined.encode(), np.uint8), ends - lengths, ends)


def _whole_lines(path: str | pathlib.Path) -> Iterator[bytes]:
    """The file in pieces that end with a newline, unless a line is too long."""
    rest = b""
    for part in file_parts(pathlib.Path(path), PIECE, "read"):
        lines, newline, tail = (rest + part).rpartition(b"\n")
        if len(tail) > LONGEST_LINE:
            yield tail
            return
        rest = tail
        if newline:
            yield lines + newline
    if rest:
        yield rest + b"\n"


def _fields(piece: bytes, width: int) -> Fields | None:
    """All fields of whole lines; None if they are not plain rows of `width` fields."""
    if not _is_plain(piece):
        return None
    text = np.frombuffer(piece, np.uint8)
    stops = np.flatnonzero((text == ord(",")) | (text == ord("\n")))
    if len(stops) % width or text[-1] != ord("\n"):
        return None
    ends = stops.reshape(-1, width)
    starts = np.append(0, stops + 1)[:-1].reshape(-1, width)
    marks = text[ends]
    if (marks[:, :-1] != ord(",")).any() or (marks[:, -1] != ord("\n")).any():
        return None
    if (ends[:, -1] - starts[:, 0] > LONGEST_LINE).any():
        return None
    return Fields(text, starts, ends)


def _is_plain(piece: bytes) -> bool:
    return piece.isascii() and not any(other in piece for other in _OTHERS)
