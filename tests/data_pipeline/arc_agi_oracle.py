# SPDX-License-Identifier: Apache-2.0
"""ARC files of random tasks, and the data that the tests of arc_agi compare."""

import json
import pathlib

import numpy as np

from data_pipeline.arc.ids import make_ids
from data_pipeline.arc.task import as_data, read_tasks
from data_pipeline.prepared import writing
from data_pipeline.prepared.arc_agi.names import open_prepared, prepared_set


def command(config, data_dir, source, *more):
    """The arguments of the command."""
    return [config, f"--data_dir={data_dir}", f"--source={source}", *more]


def prepare(data_dir, **source):
    chosen = prepared_set(source["train_subsets"], source["test_subset"])
    return writing.prepare(chosen, data_dir, **source)


def random_task(rng):
    """A JSON task: 2 or 3 demonstrations, 1 or 2 tests, grids of 1 to 9 rows."""

    def grid():
        return rng.integers(0, 10, rng.integers(1, 10, 2)).tolist()

    return {
        part: [
            {"input": grid(), "output": grid()}
            for _ in range(rng.integers(low, low + 2))
        ]
        for part, low in (("train", 2), ("test", 1))
    }


def write_bundle(folder, subset, tasks, solutions=True):
    answers = {n: [pair["output"] for pair in t["test"]] for n, t in tasks.items()}
    challenges = {
        n: {"train": t["train"], "test": [{"input": p["input"]} for p in t["test"]]}
        for n, t in tasks.items()
    }
    stem = folder / f"arc-agi_{subset}"
    pathlib.Path(f"{stem}_challenges.json").write_text(json.dumps(challenges))
    if solutions:
        pathlib.Path(f"{stem}_solutions.json").write_text(json.dumps(answers))


def from_json(folder, asked, side):
    keys = {k: asked[k] for k in ("train_subsets", "test_subset", "allow_leaks")}
    tasks = read_tasks(folder, folder, **keys)
    ids = make_ids(tasks, asked["num_augmentations"], asked["seed"])
    return as_data(tasks, ids, side, asked["seed"])


def from_prepared(data_dir, asked, side):
    return as_data(*open_prepared(data_dir, **asked), side, asked["seed"])


def assert_equal(found, expected):
    assert found.identity == expected.identity
    assert found.spec == expected.spec
    assert found.warnings == expected.warnings
    assert found.test.id_map == expected.test.id_map
    assert found.test.puzzles.digests() == expected.test.puzzles.digests()
    for forms in ("train_variants", "test"):
        pair = [getattr(data, forms) for data in (found, expected)]
        pair = [getattr(forms, "variants", forms) for forms in pair]
        np.testing.assert_array_equal(pair[0].num_forms, pair[1].num_forms)
