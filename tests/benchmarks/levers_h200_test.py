# SPDX-License-Identifier: Apache-2.0
"""The table of full-size levers in docs/levers.md has the numbers of its JSON file."""

import json
import re

import pytest

from benchmarks import predict
from benchmarks.step import sizes_of
from tests.helpers.runs import ROOT

RESULTS = json.loads((ROOT / "benchmarks/results/levers_h200.json").read_text())


def rows():
    """The cells of the table: what was predicted and compiled, by config."""
    text = (ROOT / "docs" / "levers.md").read_text(encoding="utf-8")
    line = re.compile(r"\| `(\w+)\.py:([\w+]+)` \| .* \|(.*\|.*\|.*\|.*)\| not run \|")
    found = line.findall(text)
    assert len(found) == 13
    return {
        f"configs/{name}.py:{variant}": [cell.strip() for cell in cells.split("|")]
        for name, variant, cells in found
    }


def compiled(config, topology):
    cases = [(row["config"], row["topology"], row["set"]) for row in RESULTS]
    return RESULTS[cases.index((config, topology, []))]


def taken(row):
    """Gigabytes, and the rows of a device that are worked on at once."""
    size = row["memory_bytes_per_device"]["sum"] / 1e9
    at_once = row["rows_per_device"] // row["micro_batches"]
    return f"{size:.{0 if size > 10 else 1}f}, {at_once}"


def test_memory_and_exchanges_are_those_of_the_compiled_programs():
    for config, (_, single, eighth, exchanged) in rows().items():
        one, eight = (compiled(config, f"h200:{n}") for n in (1, 8))
        assert (single, eighth) == (taken(one), taken(eight)), config
        assert one["collectives"] == {}
        moved = sum(kind["bytes"] for kind in eight["collectives"].values())
        assert exchanged == f"{moved / 1e6:.0f}", config


@pytest.mark.slow
def test_hours_are_those_that_are_predicted():
    chip = predict.CHIPS["h200"]
    for path, (hours, *_) in rows().items():
        config = predict.config_of(path, [])
        work = predict.work_of(config, sizes_of(config), 1, chip.ssd)
        least = compiled(path, "h200:1")["kernel_seconds"]
        found = predict.predict(work._replace(seconds=least), chip, 1)
        steps = config.train.steps
        low, high = (found[name] * steps / 3600 for name in ("best", "worst"))
        digits = 0 if high > 100 else 1
        assert hours == f"{low:,.{digits}f} to {high:,.{digits}f}", path
