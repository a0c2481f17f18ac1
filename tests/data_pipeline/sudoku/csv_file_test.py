# SPDX-License-Identifier: Apache-2.0
import gzip
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import plain_csv, repeats
from data_pipeline.errors import DataError
from data_pipeline.repeats import find_duplicates, find_overlap
from data_pipeline.sudoku import csv_file
from data_pipeline.sudoku.csv_file import read_sudoku_csv
from data_pipeline.sudoku.grid import BLANK_TOKEN, SudokuShape, decode

BAD = pathlib.Path(__file__).parents[1] / "bad"
SHAPE = SudokuShape(3, 3)
HEADER = "source,question,answer,rating\n"
# A complete grid of side 4 and one of side 6, written by hand.
SMALL_ANSWERS = {
    SudokuShape(2, 2): "1234341221434321",
    SudokuShape(2, 3): "123456456123231564564231312645645312",
}


@pytest.fixture
def write(tmp_path):
    """A function that writes text or bytes to a file and returns its path."""

    def write(content, name="puzzles.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def ok_text():
    return (BAD / "sudoku_ok.csv").read_text()


def small_row(shape, rating="7"):
    answer = SMALL_ANSWERS[shape]
    return f"hand,.{answer[1:]},{answer},{rating}\n"


def test_rows_are_read_as_written():
    puzzles = read_sudoku_csv(BAD / "sudoku_ok.csv", SHAPE)
    rows = [line.split(",") for line in ok_text().splitlines()[1:]]
    assert [decode(tokens) for tokens in puzzles.inputs] == [row[1] for row in rows]
    assert [decode(tokens) for tokens in puzzles.labels] == [row[2] for row in rows]
    assert puzzles.attributes["rating"].tolist() == [int(row[3]) for row in rows]
    clues = [81 - row[1].count(".") for row in rows]
    assert puzzles.attributes["clues"].tolist() == clues
    assert puzzles.inputs.dtype == puzzles.labels.dtype == np.uint8
    assert {a.dtype for a in puzzles.attributes.values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize("name", ["crlf", "quoted", "no_last_newline", "bom"])
def test_equal_rows_in_another_notation_load_equally(name):
    puzzles = read_sudoku_csv(BAD / f"sudoku_{name}.csv", SHAPE)
    ok = read_sudoku_csv(BAD / "sudoku_ok.csv", SHAPE)
    assert puzzles.digests() == ok.digests()
    assert puzzles.attributes["rating"].tolist() == ok.attributes["rating"].tolist()


def test_gzipped_file_loads_equally(write):
    path = write(gzip.compress(ok_text().encode()), "puzzles.csv.gz")
    ok = read_sudoku_csv(BAD / "sudoku_ok.csv", SHAPE)
    assert read_sudoku_csv(path, SHAPE).digests() == ok.digests()


def test_chunks_join_without_a_seam(monkeypatch):
    whole = read_sudoku_csv(BAD / "sudoku_ok.csv", SHAPE)
    monkeypatch.setattr(csv_file, "CHUNK_ROWS", 2)
    parts = read_sudoku_csv(BAD / "sudoku_ok.csv", SHAPE)
    assert parts.digests() == whole.digests()
    for name, values in whole.attributes.items():
        assert parts.attributes[name].tolist() == values.tolist()


@pytest.mark.parametrize("name", ["ok", "bom", "no_last_newline", "duplicate_rows"])
@pytest.mark.parametrize("piece", [1, 7, 200, 2**21])
def test_plain_files_are_read_without_the_csv_module(monkeypatch, name, piece):
    monkeypatch.setattr(plain_csv, "PIECE", piece)
    path = BAD / f"sudoku_{name}.csv"
    plain = joined(csv_file._plain_chunks(path, SHAPE))
    assert plain == joined(csv_file._checked_chunks(path, SHAPE))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n", "\n\n"),  # a blank line
        ("source,", "origin,"),
        ("\n", "\n" + "x" * 70_000),
        ("rating\n", "rating"),  # no row
    ],
)
def test_other_files_are_left_to_the_csv_module(write, old, new):
    path = write(ok_text().replace(old, new, 1))
    assert csv_file._plain_chunks(path, SHAPE) is None


@pytest.mark.parametrize("name", ["é", '"more"'])
def test_a_column_with_an_unusual_name_is_left_to_the_csv_module(write, name):
    head, *rows = ok_text().splitlines()
    lines = [f"{head},{name}", *(f"{row},1" for row in rows)]
    path = write("\n".join(lines))
    assert csv_file._plain_chunks(path, SHAPE) is None
    assert len(read_sudoku_csv(path, SHAPE)) == 5


def test_row_numbers_count_from_the_file_start_in_every_chunk(monkeypatch):
    monkeypatch.setattr(csv_file, "CHUNK_ROWS", 2)
    with pytest.raises(DataError, match=r"row 4 \(line 5\): .* character 'x'"):
        read_sudoku_csv(BAD / "sudoku_illegal_char.csv", SHAPE)


@pytest.mark.parametrize("shape", SMALL_ANSWERS)
def test_smaller_grids_load(write, shape):
    puzzles = read_sudoku_csv(write(HEADER + small_row(shape)), shape)
    assert decode(puzzles.labels[0]) == SMALL_ANSWERS[shape]
    assert puzzles.inputs[0, 0] == BLANK_TOKEN
    assert puzzles.attributes["clues"].tolist() == [shape.num_cells - 1]


@pytest.mark.parametrize("shape", SMALL_ANSWERS)
def test_smaller_grids_refuse_larger_digits(write, shape):
    row = small_row(shape).replace("2", str(shape.side + 1))
    with pytest.raises(DataError, match=f"allowed: . and 1-{shape.side}"):
        read_sudoku_csv(write(HEADER + row), shape)


@pytest.mark.parametrize(
    ("cells", "unit"),
    [
        ({0: "5", 1: "5"}, "row 1 repeats digit 5"),
        ({0: "8", 1: "2"}, "column 1 repeats digit 8"),
    ],
)
def test_broken_rule_names_the_unit_and_the_digit(write, cells, unit):
    answer = list("287539461569814273431627859694753182752481396")
    answer += "318962547826195734175346928943278615"
    for cell, digit in cells.items():
        answer[cell] = digit
    row = f"x,{'.' * 81},{''.join(answer)},1\n"
    with pytest.raises(DataError, match=f"column answer: grid {unit}"):
        read_sudoku_csv(write(HEADER + row), SHAPE)


def test_latin_square_with_broken_boxes_is_refused(write):
    row = "x,................,1234234134124123,0\n"
    with pytest.raises(DataError, match="grid box 1 repeats digit 2"):
        read_sudoku_csv(write(HEADER + row), SudokuShape(2, 2))


@pytest.mark.parametrize(
    "rating", [" 4", "4 ", "+4", "1_000", "٤", "1e3", "0x1", "9" * 19]
)
def test_ratings_that_are_no_plain_whole_numbers_are_refused(write, rating):
    shape = SudokuShape(2, 2)
    with pytest.raises(DataError, match="row 1 .*column rating: value .*whole number"):
        read_sudoku_csv(write(HEADER + small_row(shape, rating)), shape)


def test_largest_rating_is_exact(write):
    shape = SudokuShape(2, 2)
    puzzles = read_sudoku_csv(write(HEADER + small_row(shape, "9" * 18)), shape)
    assert puzzles.attributes["rating"].tolist() == [int("9" * 18)]


def test_fields_are_not_stripped(write):
    text = ok_text().replace(",..7..9", ", .7..9", 1)
    with pytest.raises(DataError, match="character ' ' at position 1 of 81"):
        read_sudoku_csv(write(text), SHAPE)


def test_first_wrong_row_is_named_whatever_is_wrong_with_later_ones(write):
    lines = ok_text().splitlines()
    lines[2] = lines[2][:-1] + "hard"
    lines[4] = lines[4].replace(",", ",x", 1)
    with pytest.raises(DataError, match=r"row 2 \(line 3\): column rating"):
        read_sudoku_csv(write("\n".join(lines)), SHAPE)


def test_duplicates_name_both_rows(write):
    lines = ok_text().splitlines()
    text = "\n".join([*lines, lines[2], lines[5], lines[2]])
    warnings = find_duplicates(read_sudoku_csv(write(text), SHAPE), "a.csv")
    assert warnings == [
        "a.csv: duplicate: row 6 repeats row 2",
        "a.csv: duplicate: row 7 repeats row 5",
        "a.csv: duplicate: row 8 repeats row 2",
    ]


def test_many_duplicates_are_counted_not_listed(write):
    lines = ok_text().splitlines()
    text = "\n".join(lines + lines[1:] * 4)
    warnings = find_duplicates(read_sudoku_csv(write(text), SHAPE), "a.csv")
    assert len(warnings) == repeats.MAX_WARNINGS + 1
    assert warnings[-1] == "... and 10 more rows like these"


def test_overlap_names_both_rows_and_leaves_repeats_within_a_set_out(write):
    lines = ok_text().splitlines()
    train = read_sudoku_csv(write("\n".join(lines[:4] + lines[1:2])), SHAPE)
    rows = [lines[0], lines[4], lines[2], lines[4]]
    test = read_sudoku_csv(write("\n".join(rows)), SHAPE)
    warnings = find_overlap(train, test, "train.csv", "test.csv")
    assert warnings == ["overlap: test.csv row 2 is train.csv row 2"]


@pytest.mark.parametrize("bits", [64, 1, 0])
def test_repeats_are_exact_whatever_the_hashes(bits, monkeypatch):
    own, mask = repeats._hashes, np.uint64(2**bits - 1)
    monkeypatch.setattr(repeats, "_hashes", lambda part: own(part) & mask)
    rng = np.random.default_rng(0)
    for width in (1, 3, 9):
        parts = [rng.integers(1, 3, (n, width)).astype(np.uint8) for n in (20, 0, 30)]
        first, expected = {}, []
        for number, row in enumerate(np.concatenate(parts).tolist()):
            if (origin := first.setdefault(tuple(row), number)) != number:
                expected.append((number, origin))
        assert list(zip(*map(list, repeats._repeats(*parts)), strict=True)) == expected


def test_puzzles_without_repeats_give_no_warning():
    puzzles = read_sudoku_csv(BAD / "sudoku_ok.csv", SHAPE)
    assert find_duplicates(puzzles, "a.csv") == []


EDITS = st.lists(
    st.tuples(
        st.integers(0, 2000),
        st.sampled_from(["replace", "insert", "delete", "cut"]),
        st.sampled_from(list(b'.0123456789,"\r\n x;\x00\xff\xef-')),
    ),
    min_size=1,
    max_size=4,
)


def mutate(content, edits):
    content = bytearray(content)
    for position, edit, byte in edits:
        position %= len(content) + 1
        match edit:
            case "replace":
                content[position : position + 1] = bytes([byte])
            case "insert":
                content[position:position] = bytes([byte])
            case "delete":
                del content[position : position + 1]
            case "cut":
                del content[position + 600 :]
    return bytes(content)


def joined(chunks):
    return [np.concatenate(column).tolist() for column in zip(*chunks, strict=True)]


def check_damaged_file(folder, edits):
    """Check for a DataError that names the file, or for rows that are all correct."""
    path = folder / "damaged.csv"
    path.write_bytes(mutate((BAD / "sudoku_ok.csv").read_bytes(), edits))
    if plain := csv_file._plain_chunks(path, SHAPE):
        assert joined(plain) == joined(csv_file._checked_chunks(path, SHAPE))
    try:
        puzzles = read_sudoku_csv(path, SHAPE)
    except DataError as error:
        message = str(error)
    else:
        assert not SHAPE.broken_units(puzzles.labels).any()
        assert (puzzles.labels > BLANK_TOKEN).all()
        assert (
            (puzzles.inputs == BLANK_TOKEN) | (puzzles.inputs == puzzles.labels)
        ).all()
        text = path.read_text(encoding="utf-8-sig")
        for question, answer in zip(puzzles.inputs, puzzles.labels, strict=True):
            assert decode(question) in text
            assert decode(answer) in text
        return
    assert str(path) in message


@given(edits=EDITS)
@settings(max_examples=200, deadline=None, database=None)
def test_damaged_file_is_refused_or_read_right(tmp_path_factory, edits):
    check_damaged_file(tmp_path_factory.getbasetemp(), edits)


@pytest.mark.slow
@given(edits=EDITS)
@settings(max_examples=3000, deadline=None, database=None)
def test_damaged_file_is_refused_or_read_right_at_length(tmp_path_factory, edits):
    check_damaged_file(tmp_path_factory.getbasetemp(), edits)
