# SPDX-License-Identifier: Apache-2.0
import gzip
import json
import re

import pytest

from data_pipeline.arc.json_grids import as_grid
from data_pipeline.errors import DataError
from tests.data_pipeline.arc.files import BAD, changed, refusal, write_bundle


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[5] * 30] * 30, None),
        ([[5]], None),
        ([[5] * 31], "1x31, at most 30x30 expected"),
        ([[5]] * 31, "31x1, at most 30x30 expected"),
        ([[1, 2], [1, 2, 3], [1, 2, 3]], "row 1: 2 cells, 3 expected"),
        ([[1, 2, 3], [1, 2, 3], []], "row 3: no cells"),
        ([[1], 2], "row 2: number found; a list of rows expected"),
    ],
)
def test_sizes_are_checked(rows, message):
    if message is None:
        assert as_grid(rows, "here").tolist() == rows
        return
    with pytest.raises(DataError) as caught:
        as_grid(rows, "here")
    assert str(caught.value) == f"here: {message}"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("NaN", "value NaN, whole number expected"),
        ("-Infinity", "value -Infinity, whole number expected"),
        ("1e999", "value Infinity, whole number expected"),
        ("2.0", "value 2.0, whole number expected"),
        ("true", "true/false, whole number expected"),
        ("null", "null, whole number expected"),
        ("[1]", "list, whole number expected"),
        ('{"a": 1, "a": 2}', "object, whole number expected"),
        ("-1", "value -1, allowed 0-9"),
        ("1" * 99, f"value {'1' * 40}..., allowed 0-9"),
        ("1" * 9999, f"value {'1' * 40}..., allowed 0-9"),
        ("[" * 50 + "]" * 50, "list, whole number expected"),
    ],
)
def test_wrong_cells_are_named(tmp_path, cell, message):
    content = changed("25ff71a9", "train", 2, "output", 1, 2, value="HERE")
    write_bundle(tmp_path)
    path = tmp_path / "arc-agi_training_challenges.json"
    path.write_text(json.dumps(content).replace('"HERE"', cell))
    place = f"{path}: task 25ff71a9: train pair 3: output: row 2 column 3"
    assert refusal(tmp_path) == f"{place}: {message}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"train": ', '"test": [], "train": ', "007bbfb7: key test occurs twice"),
        (
            '{"input": ',
            '{"input": [], "input": ',
            "train pair 1: key input occurs twice",
        ),
    ],
)
def test_repeated_keys_are_refused_at_every_depth(tmp_path, old, new, message):
    write_bundle(tmp_path)
    path = tmp_path / "arc-agi_training_challenges.json"
    path.write_text(path.read_text().replace(old, new, 1))
    assert message in refusal(tmp_path)


def test_syntax_errors_are_named_by_line_and_column(tmp_path):
    write_bundle(tmp_path)
    path = tmp_path / "arc-agi_training_solutions.json"
    path.write_text('{\n "007bbfb7": [\n   oops\n')
    assert refusal(tmp_path).startswith(f"{path}: not valid JSON: line 3 column 4:")


def test_damaged_gzip_file_is_named(tmp_path):
    path = tmp_path / "arc-agi_training_challenges.json.gz"
    whole = gzip.compress((BAD / "arc_ok" / path.stem).read_bytes())
    for content, problem in ((whole[:-9], "ended early"), (b"{}", "not a gzip file")):
        path.write_bytes(content)
        assert re.match(f"{path}: .*{problem}", refusal(tmp_path))
