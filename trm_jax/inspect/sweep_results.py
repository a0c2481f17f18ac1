# SPDX-License-Identifier: Apache-2.0
"""The result of each run of a sweep: one JSON file, made from the files of the run."""

import json
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trm_jax.errors import ConfigError, SaveError
from trm_jax.files import write_whole
from trm_jax.inspect.run_records import read_metrics
from trm_jax.runtime.workdir import read_json

INSTRUCTION_SETS = ("avx512f", "avx2", "avx", "asimd")  # the first that is there


class Result(NamedTuple):
    """What a run was, where it was trained, what it cost and what it reached."""

    sweep: str
    arm: str
    config: str
    overrides: dict[str, Any]
    seed: int
    seed_keys: list[str]
    commits: list[str]
    sources: list[str]  # digests of the sources, which show uncommitted changes
    date: str
    jax: str
    processor: str
    jobs: int
    parameters: int
    flops_per_step: int
    steps: int
    training_flops: int
    temporaries_bytes: int
    minutes: float
    puzzles: int
    exact: int
    exact_accuracy: float
    cell_accuracy: float
    curve: list[list[float]]  # pairs of step and exact accuracy
    valid_accuracy: float | None = None  # if the task has answers beside the label


def read_results(
    folder: Path, identities: Mapping[str, Mapping[str, Any]]
) -> dict[str, Result]:
    """The results in a folder by the name of the run; `identities` has all names.

    Raises ConfigError if a file is damaged, or is not the result of its run.
    """
    results = {}
    for path in sorted(folder.glob("*.json")):
        record = Result._field_defaults | read_json(path)
        if odd := set(record) ^ set(Result._fields):
            keys = ", ".join(sorted(odd))
            raise ConfigError(f"{path}: absent or unknown: {keys}; not a result")
        if path.stem not in identities:
            raise ConfigError(
                f"{path}: the sweep file has no such run; expected one of "
                f"{', '.join(identities)}; move the file away"
            )
        for key, expected in identities[path.stem].items():
            if record[key] != expected:
                raise ConfigError(
                    f"{path}: {key} = {record[key]!r}; expected {expected!r} as in the "
                    "sweep file; move the file away to run it anew"
                )
        for key in ("parameters", "flops_per_step", "puzzles", "exact", "minutes"):
            if type(record[key]) not in (int, float):
                raise ConfigError(f"{path}: {key} = {record[key]!r}; expected a number")
        results[path.stem] = Result(**record)
    return results


def write_result(path: Path, result: Result) -> None:
    """Write the file of a result. Raises SaveError."""
    write_whole(path, json.dumps(result._asdict(), indent=2) + "\n", SaveError)


def collect(
    identity: Mapping[str, Any], workdir: Path, costs: Path, *, jobs: int
) -> Result:
    """The result of a finished run. Raises ConfigError.

    `costs` holds what `train.py --dry_run` printed.
    """
    cost = read_json(costs)
    steps = read_json(workdir / "config.json")["train"]["steps"]
    scores = read_json(workdir / "eval" / f"step_{steps}.json")
    lines = (workdir / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    sittings = [s for s in map(json.loads, lines) if s["from_step"] < steps]
    metrics = read_metrics(workdir)
    if (seconds := metrics[-1].get("train/seconds")) is None:
        raise ConfigError(
            f"{workdir}/metrics.jsonl: its last line has no train/seconds: an older "
            "version trained a part of the run; remove the folder to run it anew"
        )
    exact = "eval/exact_accuracy"
    return Result(
        **identity,
        commits=list(dict.fromkeys(s["git"] or "unknown" for s in sittings)),
        sources=list(dict.fromkeys(s["sources"] for s in sittings)),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        jax=sittings[-1]["versions"]["jax"],
        processor=processor(sittings[-1]["devices"]),
        jobs=jobs,
        parameters=cost["parameters"],
        flops_per_step=cost["flops_per_step"],
        steps=steps,
        training_flops=cost["flops_per_step"] * steps,
        temporaries_bytes=cost["memory_bytes"]["temporaries_per_device"],
        minutes=round(seconds / 60, 3),
        puzzles=scores["puzzles"],
        exact=round(scores["exact_accuracy"] * scores["puzzles"]),
        exact_accuracy=scores["exact_accuracy"],
        cell_accuracy=scores["cell_accuracy"],
        curve=[[m["step"], m[exact]] for m in metrics if exact in m],
        valid_accuracy=scores.get("valid_accuracy"),
    )


def processor(devices: Sequence[str], cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The devices of a run in words; for CPUs the model, instruction set and cores."""
    kinds = {kind: list(devices).count(kind) for kind in devices}
    if set(kinds) != {"cpu"}:
        return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    model = re.search(r"^model name\s*: (.*)", text, re.MULTILINE)
    found = re.search(r"^(?:flags|Features)\s*: (.*)", text, re.MULTILINE)
    known = found[1].split() if found else []
    best = next((name for name in INSTRUCTION_SETS if name in known), "")
    name = model[1].strip() if model else platform.machine()
    cores = f"{os.cpu_count()} cores"
    return f"{name} ({', '.join(filter(None, (best, cores)))})"
