# SPDX-License-Identifier: Apache-2.0
"""Array folders of ARC, as TRM's own builder writes them, are read and trained on."""

import json

import numpy as np
import pytest

from data_pipeline import settings, tasks
from data_pipeline.errors import DataError

SIDE, IDS = 30, 7


@pytest.fixture
def folder(tmp_path):
    """Two tasks with three forms each in train, two of them in test."""
    rng = np.random.default_rng(0)
    for split, groups in (("train", 2), ("test", 2)):
        base = tmp_path / split
        base.mkdir()
        puzzles = 3 * groups
        rows = 2 * puzzles
        arrays = {
            "inputs": rng.integers(2, 12, (rows, SIDE**2), np.uint8),
            "labels": rng.integers(2, 12, (rows, SIDE**2), np.uint8),
            "puzzle_indices": np.arange(puzzles + 1, dtype=np.int32) * 2,
            "group_indices": np.arange(groups + 1, dtype=np.int32) * 3,
            "puzzle_identifiers": np.arange(1, puzzles + 1, dtype=np.int32),
        }
        for part, array in arrays.items():
            np.save(base / f"all__{part}.npy", array)
        meta = {
            "pad_id": 0,
            "ignore_label_id": 0,
            "blank_identifier_id": 0,
            "vocab_size": 12,
            "seq_len": SIDE**2,
            "num_puzzle_identifiers": IDS,
            "total_groups": groups,
            "mean_puzzle_examples": 2,
            "total_puzzles": puzzles,
            "sets": ["all"],
        }
        (base / "dataset.json").write_text(json.dumps(meta))
    (tmp_path / "identifiers.json").write_text(json.dumps(["<blank>", *"abcdef"]))
    (tmp_path / "test_puzzles.json").write_text("{}")
    return tmp_path


def config(folder, **more):
    return settings.defaults() | {
        "task": "arc",
        "source": "arrays",
        "train": str(folder),
        **more,
    }


def test_an_array_folder_of_arc_is_read(folder):
    spec = tasks.spec_of(config(folder))
    assert (spec.grid_shape, spec.vocab_size, spec.num_puzzles) == ((30, 30), 12, IDS)
    data = tasks.load(config(folder))
    assert len(data.train) == 12
    assert data.train.puzzle_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert data.test.questions(votes=1).num_rows == 12


def test_its_forms_are_not_augmented_again(folder):
    with pytest.raises(DataError, match="num_augmentations = 5; array folders hold"):
        tasks.load(config(folder, num_augmentations=5))


def test_a_name_is_not_known_there(folder):
    task = tasks.task_of(config(folder))
    with pytest.warns(UserWarning, match="array folders name none: the blank"):
        posed = task.pose(np.zeros((1, SIDE**2), np.uint8), "a")
    assert posed.puzzles.puzzle_ids.tolist() == [0]


@pytest.mark.parametrize("place", ["itself", "above"])
def test_a_folder_beside_the_subsets_gets_a_hint(tmp_path, place):
    subset = tmp_path / "data" / "training"
    subset.mkdir(parents=True)
    grid = [[1, 2], [3, 4]]
    pair = {"input": grid, "output": grid}
    (subset / "t.json").write_text(json.dumps({"train": [pair], "test": [pair]}))
    wrong = subset if place == "itself" else tmp_path
    values = config(wrong, source="json")
    values["arc"] |= {"train_subsets": ("training",), "test_subset": "training"}
    with pytest.raises(DataError, match=f"did you mean .*{tmp_path}/data"):
        tasks.load(values)
