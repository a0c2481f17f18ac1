# SPDX-License-Identifier: Apache-2.0
"""Every malformed file of tests/data_pipeline/bad, as the data of a training run."""

import json
import shutil

import pytest

import train
from configs import sudoku_cpu
from data_pipeline.errors import DataError
from tests.runs import ROOT
from trm_jax import cli

BAD = ROOT / "tests" / "data_pipeline" / "bad"
CASES = json.loads((BAD / "manifest.json").read_text())["cases"]
# The checker warns of these; a run that only reads one file of the pair need not.
FOLDERS_OF_CSV = {"sudoku_overlap"}


def run_on(path, kind, tmp_path, monkeypatch):
    """One update on the file, as training and as test set."""
    monkeypatch.setattr(cli, "StopSignal", lambda: lambda: False)
    config = sudoku_cpu.get_config()
    config.data.update(train_puzzles=0, num_augmentations=0, train=str(path))
    config.data.test = str(path)
    if kind == "built":
        folder = tmp_path / "test"
        if (path / "train").exists():
            shutil.copytree(path / "train", folder / "test")
        config.data.update(source="arrays", test=str(folder), num_augmentations=0)
    config.model.update(d_model=8, swiglu_width=8, token_mlp_width=8)
    config.model.max_supervision_steps = 1
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
