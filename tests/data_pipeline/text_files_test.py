# SPDX-License-Identifier: Apache-2.0
import gzip
import subprocess
import sys

import pytest

from data_pipeline.errors import DataError
from data_pipeline.text_files import read_rows, read_text
from tests.helpers.runs import ROOT

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


MEASURED = """
import pathlib, re, runpy, sys
sys.argv = ["check", *sys.argv[1:]]
try:
    runpy.run_module("data_pipeline.check", run_name="__main__")
finally:
    status = pathlib.Path("/proc/self/status").read_text()
    print("KiB", re.search(r"VmHWM:\\s+(\\d+)", status)[1])
"""


def bomb(path, block, blocks):
    """A gzip file of `blocks` members that each unpack to `block`."""
    member = gzip.compress(block, 1)
    with open(path, "wb") as file:
        for _ in range(blocks):
            file.write(member)


@pytest.mark.parametrize(
    ("kind", "block", "told"),
    [
        ("csv", b"0" * 2**20, "line 1: more than 1048576 bytes"),
        ("csv", b'"' + b"\n0" * 2**19, "broken CSV: field larger than field limit"),
        ("csv", b"\n" * 2**20, "more than 1000 blank lines"),
        ("json", b"0" * 2**20, "more than 67108864 bytes"),
        ("json", b"0,\n" * 2**18, "more than 67108864 bytes"),
        ("json", b"[" * 2**20, "nested too deeply, more than 64"),
        ("json", b"[]," * 2**20, "more than 1000000 lists and objects"),
    ],
    ids=["line", "field", "blank", "text", "lines", "nesting", "lists"],
)
def test_a_file_larger_than_memory_is_refused_while_it_is_read(
    tmp_path, kind, block, told
):
    """2 GiB, or as much as is read of them, unpacked; under 500 MB are used."""
    size = 20 if told.startswith(("nested", "more than 1000000 lists")) else 2048
    if kind == "csv":
        path = tmp_path / "bomb.csv.gz"
        header = b"source,question,answer,rating\n" if block[:1] != b"0" else b""
        bomb(path, block, size)
        path.write_bytes(gzip.compress(header) + path.read_bytes())
        args = ["sudoku", str(path)]
    else:
        path = tmp_path / "arc-agi_training_challenges.json.gz"
        bomb(path, block, size)
        args = ["arc", str(tmp_path)]
    line = [sys.executable, "-c", MEASURED, *args]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert int(done.stdout.split("KiB")[1]) < 500e6 / 1024
