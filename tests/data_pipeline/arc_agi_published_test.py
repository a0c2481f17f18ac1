# SPDX-License-Identifier: Apache-2.0
import pathlib

import pytest

from data_pipeline.errors import DataError
from data_pipeline.prepared.arc_agi.names import SUBSETS
from data_pipeline.prepared.arc_agi.prepare import main
from tests.data_pipeline.arc_agi_oracle import (
    assert_equal,
    command,
    from_json,
    from_prepared,
    prepare,
)

ARC = pathlib.Path(__file__).parents[3] / "shared" / "data" / "arc"
NUM_IDS = [
    pytest.param("arc_agi_1", 876_420, marks=pytest.mark.slow),
    pytest.param("arc_agi_2", 1_191_741, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def published():
    """The folder of the published bundles."""
    if not ARC.is_dir():
        pytest.skip(f"{ARC} is not there")
    return ARC


@pytest.mark.parametrize(("config", "num_ids"), NUM_IDS)
def test_the_published_sets(tfds, tmp_path, published, config, num_ids):
    assert main(command(config, tmp_path, published)) == 0
    train_subsets, test_subset = SUBSETS[config]
    asked = {
        "train_subsets": train_subsets,
        "test_subset": test_subset,
        "num_augmentations": 1_000,
        "seed": 0,
        "allow_leaks": False,
    }
    found = from_prepared(tmp_path, asked, 30)
    assert found.spec.num_puzzles == num_ids
    assert_equal(found, from_json(published, asked, 30))
    folder = tmp_path / "arc_agi"
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 20e6


def test_arc_1_is_not_tested_after_training_on_arc_2(tfds, tmp_path, published):
    asked = {"train_subsets": ("training2",), "test_subset": "evaluation"}
    with pytest.raises(DataError, match="376 of the 400 tasks of evaluation"):
        prepare(tmp_path, source=str(published), **asked)
