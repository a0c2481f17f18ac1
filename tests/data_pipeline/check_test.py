# SPDX-License-Identifier: Apache-2.0
import json
import os
import pathlib
import subprocess
import sys

import pytest

from data_pipeline import check, console, generate
from data_pipeline.sudoku import check as sudoku_check
from data_pipeline.sudoku.csv_file import read_sudoku_csv
from data_pipeline.sudoku.grid import SudokuShape

BAD = pathlib.Path(__file__).parent / "bad"
CASES = json.loads((BAD / "manifest.json").read_text())["cases"]
# Messages about mazes and ARC files are tested beside their readers.
HERE = [case for case in CASES if case["kind"] in ("sudoku", "built")]
NINE = SudokuShape(3, 3)
ROW = ["whole number >= 0", "row 2", "line 3", "column rating"]

# What the message of a refused case must name, besides the file.
REJECTED = {
    "sudoku_missing_column.csv": [
        'missing column "answer"',
        "columns found: source, question, rating",
    ],
    "sudoku_question_80_chars.csv": ["row 3 (line 4)", "column question", "80", "81"],
    "sudoku_answer_82_chars.csv": ["row 2 (line 3)", "column answer", "82", "81"],
    "sudoku_illegal_char.csv": [
        "row 4 (line 5)",
        "column question",
        "character 'x'",
        "position 1 of 81",
        "grid row 1, column 1",
        "allowed: . and 1-9",
    ],
    "sudoku_zero_in_answer.csv": [
        "row 1 (line 2)",
        "column answer",
        "character '0'",
        "position 41",
        "allowed: 1-9",
    ],
    "sudoku_blank_in_answer.csv": [
        "row 5 (line 6)",
        "column answer",
        "character '.'",
        "position 8",
        "answer must be complete",
    ],
    "sudoku_contradiction.csv": [
        "row 3 (line 4)",
        "columns question and answer",
        "cell 2: given 2, answer 1",
    ],
    "sudoku_answer_breaks_rules.csv": [
        "row 2 (line 3)",
        "column answer",
        "grid column 1 repeats digit 9",
    ],
    "sudoku_swapped_columns.csv": [
        "row 1 (line 2)",
        "column answer",
        "hint: question and answer look swapped",
    ],
    "sudoku_empty.csv": ["empty", "expected header source,question,answer,rating"],
    "sudoku_header_only.csv": ["0 rows"],
    "sudoku_no_header.csv": ["line 1", "header source,question,answer,rating"],
    "sudoku_header_twice.csv": ["row 4 (line 5)", "a repeated header"],
    "sudoku_duplicate_column.csv": [
        'duplicate column "question"',
        'missing column "answer"',
    ],
    "sudoku_utf16.csv": ["not UTF-8", "looks like UTF-16"],
    "sudoku_quoted_newlines.csv": [
        "row 1",
        "column question",
        "89",
        "81",
        "newline inside the field",
    ],
    "sudoku_semicolons.csv": [
        "header",
        'one column found: "source;question;answer;rating"',
        "hint",
        "separator",
    ],
    "sudoku_short_row.csv": ["row 3 (line 4)", "3 fields", "4 expected"],
    "sudoku_long_row.csv": ["row 2 (line 3)", "5 fields", "4 expected"],
    "sudoku_cut_off.csv": ["row 5 (line 6)", "3 fields", "cut off"],
    "sudoku_rating_text.csv": [*ROW, "'hard'"],
    "sudoku_rating_negative.csv": [*ROW, "'-3'"],
    "sudoku_rating_nan.csv": [*ROW, "'nan'"],
    "sudoku_unicode_digits.csv": [
        "row 1 (line 2)",
        "column question",
        "non-ASCII character",
        "allowed: . and 1-9",
    ],
    "sudoku_nul_byte.csv": ["row 1 (line 2)", "column question", "NUL"],
    "sudoku_not_utf8.csv": ["not UTF-8", "0xFF", "offset 200"],
    "sudoku_16x16.csv": ["row 1 (line 2)", "column question", "256", "81"],
    "sudoku_truncated.csv.gz": ["gzip", "ended early"],
    "sudoku_gzip_bad_crc.csv.gz": ["gzip", "checksum"],
    "sudoku_is_a_directory.csv": ["is a folder"],
    "built_float_inputs": ["all__inputs.npy", "dtype float64", "whole-number dtype"],
    "built_token_99": ["all__labels.npy", "row 3", "position 8", "99", "vocab_size 11"],
    "built_token_negative": ["all__inputs.npy", "row 1", "value -1"],
    "built_row_count": ["all__inputs.npy", "5 rows", "all__labels.npy", "4 rows"],
    "built_seq_len": ["all__labels.npy", "80 found", "81 expected"],
    "built_three_axes": ["all__inputs.npy", "(5, 9, 9)", "(rows, 81) expected"],
    "built_indices_decreasing": ["all__group_indices.npy", "position 4: 2 after 3"],
    "built_indices_past_end": ["all__puzzle_indices.npy", "9", "5 rows"],
    "built_identifier_out_of_range": [
        "all__puzzle_identifiers.npy",
        "row 4",
        "value 7",
        "num_puzzle_identifiers 1",
    ],
    "built_npy_cut_off": ["all__inputs.npy", "shorter than its header says"],
    "built_npy_objects": ["all__inputs.npy", "object array", "refused"],
    "built_labels_missing": ["built_labels_missing/train/all__labels.npy", "not found"],
    "built_meta_missing_key": ["dataset.json", 'missing "vocab_size"'],
    "built_meta_wrong_type": ["dataset.json", "seq_len", "string", "whole number"],
}
# Cases that the manifest leaves open: exit code, and parts of the message.
EITHER = {
    "sudoku_bom.csv": (0, []),
    "sudoku_rating_float.csv": (2, [*ROW, "'4.5'"]),
    "sudoku_rating_huge.csv": (2, [*ROW, "'999999999999"]),
    "sudoku_rating_empty.csv": (2, [*ROW, "value ''"]),
    "sudoku_zero_blanks.csv": (2, ["row 1 (line 2)", "'0'", "expected . for blanks"]),
    "sudoku_many_solutions.csv": (0, ["row 1", "more than one solution"]),
    "sudoku_duplicate_rows.csv": (0, ["duplicate", "row 6 repeats row 2"]),
    "sudoku_overlap": (0, ["test.csv row 1 is ", "train.csv row 4"]),
    "sudoku_not_gzip.csv.gz": (2, ["not a gzip file"]),
    "maze_not_shortest.csv": (0, ["row 1", "12 moves", "10 possible"]),
    "maze_rating_mismatch.csv": (0, ["row 1", "rating 7", "path 141"]),
    "arc_no_solutions_file": (0, ["training_solutions.json"]),
    "arc_duplicate_task_id": (2, ["007bbfb7", "twice"]),
    "arc_bom": (0, []),
    "arc_utf16": (2, ["not UTF-8"]),
    "built_float_whole": (2, ["all__inputs.npy", "dtype float32"]),
}


def cases(expect):
    chosen = [case for case in CASES if case["expect"] == expect]
    return [pytest.param(c["kind"], c["file"], id=c["file"]) for c in chosen]


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "data_pipeline.check", *map(str, arguments)],
        cwd=BAD.parents[2],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("kind", "file"), cases("reject"))
def test_wrong_data_is_refused_with_a_message_that_names_it(capsys, kind, file):
    assert check.main([kind, str(BAD / file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert [p for p in [file, *REJECTED.get(file, [])] if p not in err] == []


@pytest.mark.parametrize(("kind", "file"), cases("accept"))
def test_right_data_passes_without_a_warning(capsys, kind, file):
    assert check.main([kind, str(BAD / file)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert file in out


@pytest.mark.parametrize(("kind", "file"), cases("either"))
def test_doubtful_data_is_named(capsys, kind, file):
    code, parts = EITHER[file]
    assert check.main([kind, str(BAD / file)]) == code
    out, err = capsys.readouterr()
    assert (out == "") == (code == 2)
    assert err.startswith(("warning: ", "error: ") if parts else "")
    for part in parts:
        assert part in err


def test_every_case_of_the_manifest_is_decided():
    undecided = {c["file"] for c in HERE if c["expect"] != "accept"}
    undecided |= {c["file"] for c in CASES if c["expect"] == "either"}
    assert undecided == REJECTED.keys() | EITHER.keys()


def test_summary_states_facts_and_digests(capsys):
    path = BAD / "sudoku_ok.csv"
    check.main(["sudoku", str(path)])
    out = capsys.readouterr().out
    assert "5 rows of 9x9 cells in boxes of 3x3, clues 25 to 28, rating 1 to 3" in out
    for name, digest in read_sudoku_csv(path, NINE).digests().items():
        assert f"{name} {digest}" in out


@pytest.mark.parametrize("arguments", [[], ["sudoku"], ["chess", "x"], ["built"] * 3])
def test_wrong_usage_prints_the_usage(capsys, arguments):
    assert check.main(arguments) == 2
    assert capsys.readouterr().err == check.USAGE


@pytest.mark.parametrize("kind", ["sudoku", "maze", "arc", "built"])
def test_missing_path_is_named(capsys, kind, tmp_path):
    assert check.main([kind, str(tmp_path / "absent")]) == 2
    assert "absent" in capsys.readouterr().err


def test_two_files_for_one_split_are_refused(capsys, tmp_path):
    for name in ("train.csv", "train.csv.gz"):
        (tmp_path / name).write_bytes((BAD / "sudoku_ok.csv").read_bytes())
    assert check.main(["sudoku", str(tmp_path)]) == 2
    assert "both train.csv and train.csv.gz" in capsys.readouterr().err


def test_long_files_say_how_many_rows_were_searched(capsys, monkeypatch):
    monkeypatch.setattr(sudoku_check, "MAX_SOLVED", 3)
    check.main(["sudoku", str(BAD / "sudoku_ok.csv")])
    assert "searched the first 3 for second solutions" in capsys.readouterr().out


def test_progress_is_drawn_on_a_terminal_alone(capsys, monkeypatch):
    monkeypatch.setattr(console, "QUIET_S", 0.0)
    path = BAD / "sudoku_ok.csv"
    check.main(["sudoku", str(path)])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    check.main(["sudoku", str(path)])
    err = capsys.readouterr().err
    assert "0 of 5 rows searched for second solutions" in err
    assert err.endswith("\r\033[K")


def test_program_accepts():
    done = run("sudoku", BAD / "sudoku_ok.csv")
    assert (done.returncode, done.stderr) == (0, "")


def test_program_accepts_paths_that_the_terminal_cannot_show(tmp_path):
    path = tmp_path / "é.csv"
    path.write_bytes((BAD / "sudoku_ok.csv").read_bytes())
    assert run("sudoku", path, PYTHONIOENCODING="ascii").returncode == 0


def test_program_refuses_without_a_traceback():
    done = run("sudoku", BAD / "sudoku_not_utf8.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_program_does_not_import_jax():
    code = "import sys, data_pipeline.check; sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=BAD.parents[2])
    assert done.returncode == 0


@pytest.mark.parametrize("boxes", [(2, 2), (2, 3), (3, 3)])
def test_the_first_question_decides_the_size(tmp_path, boxes):
    path, rows, cols = tmp_path / "puzzles.csv", *boxes
    sizes = "--train=4", "--test=1", f"--boxes={rows}x{cols}"
    generate.main([str(path), str(tmp_path / "other.csv"), *sizes])
    facts, warnings = sudoku_check.check(path)
    side = rows * cols
    told = f"4 rows of {side}x{side} cells in boxes of {rows}x{cols}, clues"
    assert told in facts[0]
    assert not warnings
