# SPDX-License-Identifier: Apache-2.0
"""What a workdir belongs to: config.json, dataset.json, runs.jsonl."""

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from trm_jax.errors import ConfigError
from trm_jax.files import read_bytes, write_whole
from trm_jax.runtime import processes
from trm_jax.runtime.nested import diff, flatten

# Keys that may differ when a run resumes: beyond rounding none of them changes what a
# step computes, except train.steps where the learning rate decays, which the user then
# asks for. The content of the data files is compared by digest.
MAY_CHANGE = (
    "train.steps",
    "train.micro_batches",
    "train.on_non_finite",
    "train.on_save_error",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "eval.",
    "mesh.",
    "data.train",
    "data.test",
)
_SIZE = "sizes.num_puzzles"
_VERSIONED = ("trm-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def claim(
    workdir: str | Path, config: Mapping[str, Any], dataset: Mapping[str, Any]
) -> None:
    """Record config and data in a new workdir, or check that they are the same.

    Of several processes the first does so. Raises ConfigError, with a diff, where
    another config or other data were used, or where the record of them is lost.
    """
    if not processes.is_first():
        return
    folder = Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--workdir={workdir}: {error.strerror}") from error
    records = {"config.json": (config, MAY_CHANGE), "dataset.json": (dataset, ())}
    results = _results(folder)
    for name, (new, may_change) in records.items():
        path = folder / name
        if results and not path.exists():
            raise ConfigError(
                f"{path}: not found, but {results[0]} is there: so nobody knows what "
                f"was trained. Restore {name} from a backup, or use a new --workdir."
            )
        lines = diff(read_json(path), new, may_change) if path.exists() else []
        if lines:
            raise ConfigError(
                f"{path}: this workdir belongs to another run. Use a new --workdir "
                "or undo these differences:\n  " + "\n  ".join(lines)
            )
    for name, (new, _) in records.items():
        write_whole(folder / name, json.dumps(new, indent=2) + "\n", ConfigError)


def _results(folder: Path) -> list[str]:
    """What only a run leaves that has recorded its config and data before."""
    names = ("checkpoints/*[0-9]", "metrics.jsonl")
    return [str(path) for name in names for path in sorted(folder.glob(name))]


def record_run(workdir: str | Path, step: int) -> None:
    """Append this run to runs.jsonl: when, from which step, on what.

    Of several processes the first does so. Raises ConfigError if it cannot.
    """
    if not processes.is_first():
        return
    path = Path(workdir) / "runs.jsonl"
    record = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "from_step": step,
        "argv": sys.argv,
        "git": _git_commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _VERSIONED},
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
    before = read_bytes(path, ConfigError)
    if before and not before.endswith(b"\n"):
        before += b"\n"
    write_whole(path, before + json.dumps(record).encode() + b"\n", ConfigError)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ConfigError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: not found; is it the workdir of a run?") from error
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: a JSON object expected")
    return value


def read_run(workdir: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and dataset.json. Raises ConfigError, also where they are too old."""
    folder = Path(workdir)
    paths = folder / "config.json", folder / "dataset.json"
    config, dataset = map(read_json, paths)
    for path, tree, key in (
        (paths[0], config, "train.on_non_finite"),
        (paths[1], dataset, _SIZE),
    ):
        if key not in flatten(tree):
            raise ConfigError(
                f"{path}: has no {key}, so another version of this project wrote it; "
                "evaluate it with that version, or train anew"
            )
    return config, dataset


def code_version() -> str:
    """The commit of the checkout, or the version that is installed."""
    return _git_commit() or str(_version("trm-jax"))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the checkout, read without running git."""
    folder = Path(__file__).resolve().parents[2] / ".git"
    try:
        head = (folder / "HEAD").read_text().strip()
        if head.startswith("ref: "):
            return (folder / head.removeprefix("ref: ")).read_text().strip()
    except OSError:
        return None
    return head
