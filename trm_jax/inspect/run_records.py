# SPDX-License-Identifier: Apache-2.0
"""The logged metrics of runs, read for figures; seeds of one config are grouped."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trm_jax.errors import ConfigError
from trm_jax.inspect.style import SUFFIXES
from trm_jax.runtime.workdir import read_json


class Group(NamedTuple):
    """Runs of one config with different seeds: their records by step, for each run."""

    label: str
    runs: list[dict[int, dict[str, Any]]]

    def curve(self, name: str, x: str) -> tuple[np.ndarray, np.ndarray]:
        """The x of each step `s` and the values `run s`, where all runs have `name`."""
        having = ({s for s, r in run.items() if name in r} for run in self.runs)
        steps = sorted(set.intersection(*having))
        places = np.array([[_place(run[s], x) for s in steps] for run in self.runs])
        values = [[_number(run[s][name]) for s in steps] for run in self.runs]
        return places.mean(0), np.array(values)


def _place(record: Mapping[str, Any], x: str) -> float | int:
    if x == "step":
        return record["step"]
    return record["train/flops"] if x == "flops" else record["train/seconds"] / 60


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """The records of one run, in order of steps.

    A last line that the run is still writing is left out. Raises ConfigError if the
    file cannot be read, has no whole line, or has a line that is no record.
    """
    check_workdir(workdir)
    path = Path(workdir) / "metrics.jsonl"
    try:
        lines, _, _ = path.read_bytes().rpartition(b"\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if not lines:
        raise ConfigError(f"{path} has no whole line: nothing was logged yet")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines.split(b"\n"), start=1):
        before = records[-1]["step"] if records else -1
        try:
            records.append(json.loads(line))
            is_record = records[-1]["step"] > before
        except (ValueError, TypeError, KeyError, RecursionError):
            is_record = False
        if not is_record:
            raise ConfigError(
                f"{path} line {number}: expected a JSON object with a step after "
                f"{before}, found {line[:60].decode(errors='replace')!r}"
            )
    return records


def check_workdir(workdir: str | Path) -> None:
    """Raise ConfigError if this is no folder."""
    if not Path(workdir).is_dir():
        is_picture = Path(workdir).suffix in SUFFIXES
        hint = "; --out=FILE names the picture" if is_picture else ""
        raise ConfigError(f"{workdir}: expected the workdir of a run{hint}")


def names_of(workdirs: Sequence[str | Path]) -> list[str]:
    """The name of each folder, with as many of its parents as tell it from the others.

    Raises ConfigError if a folder is given twice.
    """
    places = [Path(os.path.abspath(workdir)).parts for workdir in workdirs]
    if twice := [
        w for w, p in zip(workdirs, places, strict=True) if places.count(p) > 1
    ]:
        raise ConfigError(f"{twice[0]} is given twice")
    names = []
    for place in places:
        count = 1
        while sum(other[-count:] == place[-count:] for other in places) > 1:
            count += 1
        names.append(str(Path(*place[-count:])))
    return names


def read_groups(workdirs: Sequence[str | Path]) -> list[Group]:
    """The runs, grouped by config, in order. Raises ConfigError.

    A folder without config.json is a group of its own.
    """
    members: dict[str, list[tuple[str, dict[int, dict[str, Any]]]]] = {}
    for workdir, name in zip(workdirs, names_of(workdirs), strict=True):
        records = {record["step"]: record for record in read_metrics(workdir)}
        members.setdefault(_config_key(Path(workdir)), []).append((name, records))
    groups = []
    for runs in members.values():
        names = [name for name, _ in runs]
        label = names[0]
        if len(names) > 1:
            common = os.path.commonprefix(names).rstrip("-_./ ")
            label = f"{common or names[0] + ' ...'} ({len(names)} seeds)"
        groups.append(Group(label, [records for _, records in runs]))
    return groups


def _config_key(workdir: Path) -> str:
    """What runs of one config share: the config as text, without its seeds."""
    path = workdir / "config.json"
    if not path.exists():
        return str(workdir)
    config = read_json(path)
    data = {k: v for k, v in dict(config.get("data", {})).items() if k != "seed"}
    own = {k: v for k, v in config.items() if k not in ("seed", "checksum")}
    return json.dumps(own | {"data": data}, sort_keys=True)
