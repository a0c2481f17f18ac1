# SPDX-License-Identifier: Apache-2.0
"""Text files and CSV rows, plain or gzipped, with errors that say what is wrong."""

import codecs
import csv
import gzip
import io
import operator
import pathlib
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from .errors import DataError

CSV_COLUMNS = ("source", "question", "answer", "rating")
SPLITS = ("train", "test")
FILE_ENDS = (".csv", ".gz", ".json", ".txt")  # of puzzles
MAX_TEXT = 2**26  # bytes of a file that is read as a whole, unpacked
MAX_LINE = 2**20  # bytes of a line of a file that is read line by line
MAX_BLANK = 1000  # blank lines in a row
_GZIP_MAGIC = b"\x1f\x8b"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: str | pathlib.Path) -> str:
    """The whole file, without a byte order mark; raises DataError beyond MAX_TEXT."""
    return "".join(_decoded(path, MAX_TEXT, "read"))


def file_named(text: str) -> pathlib.Path | None:
    """The file whose path is `text`, or None if it is no path.

    Raises DataError if it ends like the name of a file that is not there.
    """
    path = pathlib.Path(text)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):  # too long, or with a zero byte
        return None
    if path.suffix in FILE_ENDS:
        raise DataError(f"{path}: no such file")
    return None


def read_lines(path: str | pathlib.Path) -> Iterator[str]:
    """Lines with their ends, without a byte order mark; a `.gz` file is unpacked.

    Raises DataError for a line of more than MAX_LINE bytes, before it is read whole.
    """
    return _decoded(path, MAX_LINE, "readline")


def _decoded(path: str | pathlib.Path, most: int, method: str) -> Iterator[str]:
    """What the calls of a method of the open file give, at most `most` bytes each."""
    offset = 0
    for number, part in enumerate(
        file_parts(pathlib.Path(path), most, method), start=1
    ):
        if len(part) > most:
            where = f"line {number}: " if method == "readline" else ""
            raise DataError(f"{path}: {where}more than {most} bytes")
        if offset == 0:
            _check_start(path, part[:4])
        try:
            text = part.decode()
        except UnicodeDecodeError as error:
            place = f"byte 0x{part[error.start]:02X} at offset {offset + error.start}"
            raise DataError(f"{path}: not UTF-8: {place}") from None
        yield text.removeprefix("\ufeff") if offset == 0 else text
        offset += len(part)


def read_rows(
    path: str | pathlib.Path, columns: tuple[str, ...] = CSV_COLUMNS
) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield (row, its first line, fields in the order of `columns`), counted from 1.

    The header may list the columns in any order, and also others, which are ignored.
    Blank lines are not rows.
    """
    reader = csv.reader(read_lines(path), strict=True)
    number, line, blank = 0, 1, 0
    try:
        header = _checked_header(path, next(reader, None), columns)
        pick = operator.itemgetter(*map(header.index, columns))
        next_line = reader.line_num + 1
        for fields in reader:
            line, next_line = next_line, reader.line_num + 1
            blank = 0 if fields else blank + 1
            if blank > MAX_BLANK:
                where = f"lines {line - MAX_BLANK} to {line}"
                raise DataError(f"{path}: {where}: more than {MAX_BLANK} blank lines")
            if not fields:
                continue
            number += 1
            if len(fields) != len(header) or fields == header:
                at_end = next(reader, None) is None
                problem = _row_problem(fields, header, at_end)
                raise DataError(f"{place(path, number, line)}: {problem}")
            yield number, line, pick(fields)
    except csv.Error as error:
        # The reader has stopped at the last line of the row that it could not finish.
        where = f"{path}: row {number + 1} (up to line {reader.line_num})"
        raise DataError(f"{where}: broken CSV: {error}") from None
    if number == 0:
        raise DataError(f"{path}: 0 rows: it holds only a header")


def split_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The CSV files of a folder: train and test, or one of them."""
    found = []
    for split in SPLITS:
        names = (folder / f"{split}.csv", folder / f"{split}.csv.gz")
        files = [file for file in names if file.exists()]
        if len(files) == 2:
            raise DataError(f"{folder}: both {split}.csv and {split}.csv.gz")
        found += files
    if not found:
        raise DataError(f"{folder}: is a folder without train.csv or test.csv[.gz]")
    return found


def place(path: str | pathlib.Path, number: int, line: int) -> str:
    """The place of a row, for messages."""
    return f"{path}: row {number} (line {line})"


def shorten(text: str, width: int = 60) -> str:
    """Text from a file, for a message: cut, quoted and escaped to ASCII."""
    return ascii(text if len(text) <= width else text[:width] + "...")


def file_parts(path: pathlib.Path, most: int, method: str) -> Iterator[bytes]:
    """`file.method(most + 1)` until the end of the file, unpacked."""

    def parts(file: Any) -> Iterator[bytes]:
        return iter(partial(getattr(file, method), most + 1), b"")

    if path.is_dir():
        raise DataError(f"{path}: is a folder, a file is expected")
    try:
        with open(path, "rb") as file:
            if path.suffix != ".gz":
                yield from parts(file)
            elif file.peek(2)[:2] != _GZIP_MAGIC:
                raise DataError(f"{path}: not a gzip file, though its name ends in .gz")
            else:
                unpacked = gzip.GzipFile(fileobj=file)
                yield from parts(io.BufferedReader(unpacked, 1 << 20))
    except FileNotFoundError:
        raise DataError(f"{path}: not found") from None
    except EOFError:
        raise DataError(f"{path}: damaged gzip file: it ended early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        reason = "wrong checksum" if "CRC" in str(error) else str(error)
        raise DataError(f"{path}: damaged gzip file: {reason}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _check_start(path: str | pathlib.Path, start: bytes) -> None:
    if start.startswith(_GZIP_MAGIC):
        raise DataError(f"{path}: not UTF-8 (looks like gzip; name it .gz)")
    if start.startswith(_UTF16_MARKS) or b"\0" in start:
        raise DataError(f"{path}: not UTF-8 (looks like UTF-16)")


def _checked_header(
    path: str | pathlib.Path, header: list[str] | None, columns: tuple[str, ...]
) -> list[str]:
    expected = f"expected header {','.join(columns)}"
    if header is None:
        raise DataError(f"{path}: empty file, {expected}")
    missing = [name for name in columns if name not in header]
    if len(header) == 1 and any(name in header[0] for name in columns):
        one = f'one column found: "{header[0]}"'
        hint = "hint: the separator must be a comma"
        raise DataError(f"{path}: line 1: header: {one}; {expected}; {hint}")
    if len(missing) == len(columns):
        found = shorten(",".join(header))
        raise DataError(f"{path}: line 1: {expected}, found {found}")
    problems = [f'duplicate column "{n}"' for n in columns if header.count(n) > 1]
    problems += [f'missing column "{name}"' for name in missing]
    if problems:
        found = f"columns found: {', '.join(header)}"
        raise DataError(f"{path}: line 1: {'; '.join(problems)}; {found}")
    return header


def _row_problem(fields: list[str], header: list[str], at_end: bool) -> str:
    if fields == header:
        return "a repeated header"
    ending = " (the file ends here: cut off?)" if at_end else ""
    return f"{len(fields)} fields found, {len(header)} expected{ending}"
