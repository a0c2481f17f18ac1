# SPDX-License-Identifier: Apache-2.0
"""Every malformed file of tests/data_pipeline/bad, as the data of a training run."""

import json
import shutil

import pytest

from configs import sudoku_cpu
from data_pipeline.errors import DataError
from tests.helpers.runs import ROOT
from trm_jax.commands import train
from trm_jax.runtime import cli

BAD = ROOT / "tests" / "data_pipeline" / "bad"
CASES = json.loads((BAD / "manifest.json").read_text())["cases"]
# The checker warns of these; a run that only reads one file of the pair need not.
FOLDERS_OF_CSV = {"sudoku_overlap"}


def as_data(path, kind, tmp_path):
    """What a user would set in config.data to train and test on the file."""
    data = {"train": str(path), "test": str(path), "train_puzzles": 0}
    data |= {"source": "csv", "num_augmentations": 0}
    match kind:
        case "maze":
            data |= {"task": "maze"}
        case "arc":
            subsets = {"train_subsets": ("training",), "test_subset": "training"}
            data |= {"task": "arc", "source": "json", "arc": subsets}
        case "built":
            folder = tmp_path / "test"
            if (path / "train").exists():
                shutil.copytree(path / "train", folder / "test")
            data |= {"source": "arrays", "test": str(folder)}
    return data


def run_on(path, kind, tmp_path, monkeypatch):
    """One update on the file, as training and as test set."""
    monkeypatch.setattr(cli, "StopSignal", lambda: lambda: False)
    config = sudoku_cpu.get_config()
    config.data.update(as_data(path, kind, tmp_path))
    config.model.update(d_model=8, prefix_len=1)
    config.model.swiglu.width = config.model.token_mlp.width = 8
    config.halting.max_supervision_steps = 1
    config.train.update(steps=1, batch_size=2)
    config.eval.batch_size = 4
    return train.train(config.lock(), str(tmp_path / "run"))


@pytest.mark.parametrize("case", CASES, ids=[c["file"] for c in CASES])
def test_a_run_takes_or_refuses_the_file_as_the_manifest_says(
    case, tmp_path, monkeypatch
):
    if case["file"] in FOLDERS_OF_CSV:
        folder = BAD / case["file"]
        assert run_on(folder / "train.csv", "sudoku", tmp_path, monkeypatch) == 0
        return
    name, refused = case["file"], None
    try:
        assert run_on(BAD / name, case["kind"], tmp_path, monkeypatch) == 0
    except DataError as error:
        refused = str(error)
    if refused is None:
        assert case["expect"] in ("accept", "either")
    else:
        assert case["expect"] in ("reject", "either"), refused
        assert name in refused
        assert not (tmp_path / "run").exists()  # refused before anything is written
