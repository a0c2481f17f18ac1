# SPDX-License-Identifier: Apache-2.0
"""Every malformed file of the folder `bad`, given to a training run as its data."""

import json
import pathlib
import shutil

import pytest

from data_pipeline import tasks
from data_pipeline.errors import DataError

BAD = pathlib.Path(__file__).parent / "bad"
CASES = json.loads((BAD / "manifest.json").read_text())["cases"]


def as_data(path, kind, folder):
    """What a user would set in config.data to train and test on the file."""
    data = {"train": str(path), "test": str(path)}
    match kind:
        case "maze":
            data |= {"task": "maze"}
        case "arc":
            section = {"train_subsets": ("training",), "test_subset": "training"}
            data |= {"task": "arc", "source": "json", "arc": section}
        case "built":
            if (path / "train").exists():
                shutil.copytree(path / "train", folder / "test")
            data |= {"source": "arrays", "test": str(folder)}
    return data


@pytest.mark.parametrize("case", CASES, ids=[c["file"] for c in CASES])
def test_a_run_takes_or_refuses_the_file_as_the_manifest_says(case, tmp_path):
    path, refused = BAD / case["file"], None
    if case["file"] == "sudoku_overlap":  # only the checker reads both files
        path = path / "train.csv"
    try:
        assert len(tasks.load(as_data(path, case["kind"], tmp_path)).test.puzzles)
    except DataError as error:
        refused = str(error)
    if refused is None:
        assert case["expect"] in ("accept", "either")
    else:
        assert case["expect"] in ("reject", "either"), refused
        assert case["file"] in refused
