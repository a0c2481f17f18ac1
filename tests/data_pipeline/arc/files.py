# SPDX-License-Identifier: Apache-2.0
"""ARC files for tests, and tasks as plain JSON values."""

import gzip
import json
import pathlib

import pytest

from data_pipeline.arc.bundles import read_subset
from data_pipeline.errors import DataError

BAD = pathlib.Path(__file__).parents[1] / "bad"
SHARED = pathlib.Path(__file__).parents[4] / "shared" / "data" / "arc"
SUBSETS = ["concept", "evaluation", "evaluation2", "training", "training2"]

needs_shared = pytest.mark.skipif(
    not SHARED.exists(), reason="the ARC files of ../shared are not here"
)


def cases():
    """The ARC cases of the manifest."""
    found = json.loads((BAD / "manifest.json").read_text())["cases"]
    return [case for case in found if case["kind"] == "arc"]


def ok(part):
    """The content of one file of arc_ok."""
    return json.loads((BAD / "arc_ok" / f"arc-agi_training_{part}.json").read_text())


def solved():
    """The tasks of arc_ok with the outputs of their test pairs."""
    tasks, outputs = ok("challenges"), ok("solutions")
    for name, task in tasks.items():
        for pair, output in zip(task["test"], outputs[name], strict=True):
            pair["output"] = output
    return tasks


def plain(tasks):
    """Task objects as the JSON value of a bundle with solutions inside."""

    def pairs(found):
        return [
            {
                name: grid.tolist()
                for name, grid in pair._asdict().items()
                if grid is not None
            }
            for pair in found
        ]

    return {t.name: {"train": pairs(t.train), "test": pairs(t.test)} for t in tasks}


def write_json(path, value):
    """Write a JSON file, gzipped if its name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(value).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_bundle(folder, challenges=None, solutions=None, subset="training", end=""):
    """Write a bundle, with the content of arc_ok for files that are not given."""
    name = f"arc-agi_{subset}_%s.json{end}"
    write_json(folder / (name % "challenges"), challenges or ok("challenges"))
    write_json(folder / (name % "solutions"), solutions or ok("solutions"))
    return folder


def write_folder(folder, tasks):
    """Write one file per task."""
    for name, task in tasks.items():
        write_json(folder / f"{name}.json", task)
    return folder


def refusal(folder, subset="training", **options):
    """The message of the DataError that reading the folder raises."""
    with pytest.raises(DataError) as caught:
        read_subset(folder, subset, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(*path, value):
    """The challenges of arc_ok with one value replaced, at a path of keys."""
    content = ok("challenges")
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return content
