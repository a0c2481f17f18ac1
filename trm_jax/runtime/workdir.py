# SPDX-License-Identifier: Apache-2.0
"""The records of the run in a workdir: config.json, dataset.json, runs.jsonl.

config.json, dataset.json and init.json (see warm_start.py) hold a checksum of their
other keys, so that damage shows.
"""

import contextlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trm_jax.beside import pipeline
from trm_jax.errors import ConfigError
from trm_jax.files import json_digest, read_bytes, write_whole
from trm_jax.settings import flatten
from trm_jax.training.config import completed
from trm_jax.version import git_commit, sources_digest, versions

log = logging.getLogger(__name__)

# Keys that may differ when a run resumes. Except for rounding, they do not change what
# a step computes; only train.steps does if the learning rate decays, and that change is
# intended. The content of the data files is compared by digest.
MAY_CHANGE = (
    *("train.steps", "train.micro_batches", "train.on_non_finite"),
    *("train.on_save_error", "train.log_every", "train.eval_every"),
    *("train.checkpoint_every", "train.keep_checkpoints", "rule.trm.remat"),
    *("rule.trm.unroll", "eval.", "mesh.", "data.train", "data.test"),
)
_CHECKSUM = "checksum"  # records of older versions lack it


def claim(
    workdir: str | Path, config: Mapping[str, Any], dataset: Mapping[str, Any]
) -> None:
    """Record config and data in a new workdir, or compare them with its records.

    Raises ConfigError if config or data differ (with a diff), if another version of
    this project wrote the records, or if the records are lost.
    """
    folder = Path(workdir)
    records = {"config.json": (config, MAY_CHANGE), "dataset.json": (dataset, ())}
    # A run writes these only after it has recorded its config and data.
    results = [
        *sorted(folder.glob("checkpoints/*[0-9]")),
        *folder.glob("metrics.jsonl"),
    ]
    for name, (new, may_change) in records.items():
        path = folder / name
        if path.exists():
            old = read_record(path)
            is_config = name == "config.json"
            old = completed(old) if is_config else old
            lines = _diff(old, new, may_change, may_be_absent=not is_config)
            if lines:
                raise ConfigError(
                    f"{path}: this workdir belongs to another run. Use a new --workdir "
                    "or undo these differences:\n  " + "\n  ".join(lines)
                )
        elif results:
            raise ConfigError(
                f"{path}: not found, but {results[0]} is there: so nobody knows what "
                f"was trained. Restore {name} from a backup, or use a new --workdir."
            )
    last = max((int(p.name) for p in results if p.name.isdecimal()), default=0)
    if last > config["train"]["steps"]:
        raise ConfigError(
            f"{folder}: step {last} was saved; train.steps = "
            f"{config['train']['steps']}, expected {last} or more"
        )
    for name, (new, _) in records.items():
        write_record(folder / name, new)


def has_checkpoint(workdir: str | Path) -> bool:
    """Whether a step was saved in the workdir."""
    return any(Path(workdir).glob("checkpoints/*[0-9]"))


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record with its checksum. Raises ConfigError."""
    record = {**content, _CHECKSUM: json_digest(content)}
    write_whole(path, json.dumps(record, indent=2) + "\n", ConfigError)


def read_record(path: Path) -> dict[str, Any]:
    """A record without its checksum. Raises ConfigError if it was changed."""
    record = read_json(path)
    checksum = record.pop(_CHECKSUM, None)
    if checksum is None:
        raise ConfigError(
            f"{path}: has no checksum: written by another version of this project; use "
            "that version, or train in a new --workdir"
        )
    if checksum != json_digest(record):
        raise ConfigError(
            f"{path}: does not match its checksum: it was changed or damaged; restore "
            "it from a backup"
        )
    return record


def _diff(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    may_change: tuple[str, ...],
    *,
    may_be_absent: bool,
) -> list[str]:
    """Lines `key: old -> new` for every difference that is not allowed.

    With `may_be_absent`, keys that only the new record has are allowed: an older
    version did not write them, and what they derive from is compared by other keys.
    """
    old, new = (flatten(json.loads(json.dumps(record))) for record in (old, new))
    return [
        f"{key}: {old.get(key, '(absent)')} -> {new.get(key, '(absent)')}"
        for key in sorted(old.keys() | ({} if may_be_absent else new).keys())
        if old.get(key) != new.get(key)
        and not any(key == n or n[-1] == "." and key.startswith(n) for n in may_change)
    ]


def record_run(
    workdir: str | Path, step: int, init: Mapping[str, Any] | None = None
) -> None:
    """Append this run to runs.jsonl: its time, first step, versions and devices.

    `init` is the record of the weights that the run began with, if they were given.
    Raises ConfigError if the file cannot be read or written.
    """
    import jax  # imported late, for callers that only read

    path = Path(workdir) / "runs.jsonl"
    record = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "from_step": step,
        "argv": sys.argv,
        "git": git_commit(),
        "sources": sources_digest(),
        "python": platform.python_version(),
        "versions": versions(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
    if init:
        record["init"] = dict(init)
    before = read_bytes(path, ConfigError)
    _warn_of_versions(before, record["versions"])
    if before and not before.endswith(b"\n"):
        before += b"\n"
    write_whole(path, before + json.dumps(record).encode() + b"\n", ConfigError)


def _warn_of_versions(runs: bytes, now: Mapping[str, Any]) -> None:
    """Log a warning if the last run had other versions of the packages."""
    with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
        then = json.loads(runs.splitlines()[-1])["versions"]
        for name in now:
            if then[name] != now[name]:
                change = f"{name} {then[name]} -> {now[name]} since the last start"
                log.warning("warning: %s: the run goes on within rounding", change)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ConfigError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: not found; is it the workdir of a run?") from error
    except (ValueError, RecursionError, OSError) as error:
        raise ConfigError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: a JSON object expected")
    return value


def read_run(workdir: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json, completed, and dataset.json. Raises ConfigError."""
    folder = Path(workdir)
    config = completed(read_record(folder / "config.json"))
    return config, read_record(folder / "dataset.json")


def read_test_set(
    record: str,
    config: Mapping[str, Any],
    identity: Mapping[str, Any],
    *,
    path: str | None = None,
    own_ids: bool = True,
) -> Any:
    """The EvalSet of a run, or that of `path`.

    `config` and `identity` are from `read_run`; messages call their file `record`.
    Raises DataError if the run's test set has changed since the run began, or (with
    `own_ids`) if puzzle ids stand for other puzzles than those that were trained.
    """
    data, tasks = config["data"], pipeline("tasks")
    error = pipeline("errors").DataError
    if path:
        test = tasks.load_test(path, data)
    else:
        loaded = tasks.load(data)
        test = loaded.test
        if loaded.identity["test"] != identity.get("test", loaded.identity["test"]):
            raise error(
                f"the test set (data.source = {data['source']!r}, data.test = "
                f"{data['test']!r}) has changed since the run began; {record} records "
                "other SHA-256 sums"
            )
    if own_ids and test.id_map != identity.get("id_map"):
        raise error(
            f"{path or data['train']}: its puzzle ids stand for other tasks or "
            f"augmentations than those the checkpoint was trained on (SHA-256 "
            f"{test.id_map}; {record}: {identity.get('id_map')}). Scores would mean "
            "nothing; eval.py --puzzle_ids=blank evaluates without them"
        )
    return test
