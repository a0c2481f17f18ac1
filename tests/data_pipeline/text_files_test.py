# SPDX-License-Identifier: Apache-2.0
import gzip

import pytest

from data_pipeline.errors import DataError
from data_pipeline.text_files import read_rows, read_text

HEADER = "source,question,answer,rating\n"


@pytest.fixture
def write(tmp_path):
    """A function that writes text or bytes to a file and returns its path."""

    def write(content, name="puzzles.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_columns_come_in_any_order_and_others_are_ignored(write):
    path = write("rating,extra,answer,question,source\n7,e,a,q,s\n")
    assert list(read_rows(path)) == [(1, 2, ("s", "q", "a", "7"))]


def test_rows_are_told_from_lines(write):
    path = write(HEADER + 's,"q\nq",a,1\n\ns,q,a,2\n')
    assert [row[:2] for row in read_rows(path)] == [(1, 2), (2, 5)]


def test_quote_that_is_never_closed_is_refused(write):
    path = write(HEADER + 's,q,a,1\ns,"q,a,1\ns,q,a,1\n')
    with pytest.raises(DataError, match="row 2 .*broken CSV: unexpected end"):
        list(read_rows(path))


def test_endless_field_is_refused(write):
    with pytest.raises(DataError, match="row 1 .*field larger than field limit"):
        list(read_rows(write(HEADER + "x" * 200_000)))


def test_byte_order_mark_is_no_text(write):
    assert read_text(write(b"\xef\xbb\xbfa\n")) == "a\n"


def test_gzip_under_a_plain_name_is_named(write):
    with pytest.raises(DataError, match="looks like gzip"):
        read_text(write(gzip.compress(b"a")))


def test_bytes_after_the_gzip_end_are_refused(write):
    with pytest.raises(DataError, match="damaged gzip file"):
        read_text(write(gzip.compress(b"a\n") + b"junk", "a.gz"))


def test_offset_of_a_bad_byte_counts_every_byte_before_it(write):
    text = "\ufeffäö\nabc".encode()
    with pytest.raises(DataError, match=f"byte 0xFF at offset {len(text)}"):
        read_text(write(text + b"\xff"))
