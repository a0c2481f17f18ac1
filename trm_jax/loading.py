# SPDX-License-Identifier: Apache-2.0
"""Weights of any kind of place: a run, an exchange file, a published file, the hub."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from trm_jax.errors import CheckpointError, ConfigError
from trm_jax.files import read_bytes
from trm_jax.runtime.weights import on_one_device, read_weights
from trm_jax.runtime.workdir import read_run
from trm_jax.trained import Model
from trm_jax.training.build import build
from trm_jax.training.config import completed
from trm_jax.weights import exchange, places, published
from trm_jax.weights.task import data_sizes
from trm_jax.weights.tensors import (
    TABLE,
    TABLE_MODES,
    Bundle,
    Tensor,
    named_leaves,
    to_weights,
)

_MODES = {True: "keep", False: "blank"}


def load(
    path: str | os.PathLike[str],
    *,
    step: int | None = None,
    weights: str | None = None,
    table: bool | str = True,
    config: Any = None,
) -> Model:
    """The trained model of a run or of a file with weights.

    Args:
      path: a workdir or the folder `checkpoints/STEP` in it; a folder or .safetensors
        file of trm_jax.commands.export; a published PyTorch file, with all_config.yaml
        beside it; the name of shipped weights; or a repository of the hub, "owner/repo"
        or "owner/repo/FILE".
      step: the checkpoint of a workdir; None means the newest.
      weights: "ema" (averaged) or "raw"; None takes the average of a run, and what a
        file holds.
      table: False reads only the row of the blank puzzle id, which is all that Sudoku
        and mazes have, and keeps the table of ARC on the disk. If the table has other
        ids than the config: "mean" gives each id the mean row, "reset" zeros.
      config: a config of ours for a file, or the path of a published YAML file.

    Raises:
      ConfigError: the path is none of these, or its settings have no counterpart here.
      CheckpointError: the weights are missing, damaged, or do not fit the config.
    """
    mode = table if isinstance(table, str) else _MODES[table]
    if mode not in (*TABLE_MODES, "blank"):
        raise ConfigError(f"table = {table!r}; expected True, False, 'mean' or 'reset'")
    bundle = open_weights(path, step=step, weights=weights, config=config)
    record = bundle.record
    sizes = record["sizes"] | ({"num_puzzles": 1} if mode == "blank" else {})
    own = on_one_device(record["config"])
    with jax.enable_x64(own["model"]["dtype"] == "float64"):
        built = build(own, sizes)
        arrays = to_weights(bundle, built, table=mode)
    id_map = record["id_map"] if mode == "keep" else None
    return Model(own, built, arrays, step=record["step"], id_map=id_map)


def open_weights(
    path: str | os.PathLike[str],
    *,
    step: int | None = None,
    weights: str | None = None,
    config: Any = None,
) -> Bundle:
    """The tensors and the record of any place that `load` knows; see there.

    `weights` = None takes what a file holds, and the average of a run.
    """
    if weights not in (None, "ema", "raw"):
        raise ConfigError(f"weights = {weights!r}; expected ema or raw")
    place = places.find(path)
    if place.is_dir() and not (place / exchange.MODEL).exists():
        files = [entry.name for entry in place.iterdir() if entry.is_file()]
        if "dataset.json" in files or not _has_settings(files):
            if config is not None:
                raise ConfigError(f"{place}: a run has a config; no other can be given")
            return _of_run(place, step, weights or "ema")
        place /= places.only_weights(files, "", str(place))
    bundle = _of_file(place, config)
    record = bundle.record
    if step not in (None, record["step"]):
        raise CheckpointError(f"{place}: holds step {record['step']}, not {step}")
    if weights and {record["weights"], weights} == {"ema", "raw"}:
        raise CheckpointError(
            f"{place}: holds the {record['weights']} weights, not the {weights} weights"
        )
    return bundle


def _has_settings(files: list[str]) -> bool:
    return any(name.endswith(".yaml") for name in files)


def _of_file(place: Path, config: Any) -> Bundle:
    """The bundle of an exchange folder or file, or of a file of torch.save."""
    settings = Path(config) if isinstance(config, str | os.PathLike) else None
    ours = config.to_dict() if hasattr(config, "to_dict") else config
    if not place.is_dir() and _begins(place, 4) in (b"PK\x03\x04", b"\x80\x02\x8a\x0a"):
        return published.read(place, None if settings else ours, settings=settings)
    if settings:
        raise ConfigError(f"{settings}: only for published PyTorch files")
    bundle = exchange.read(place)
    if ours is None:
        ours = completed(bundle.record["config"])
        return bundle._replace(record=bundle.record | {"config": ours})
    own = {"config": ours, "sizes": data_sizes(ours, bundle.tensors)}
    return bundle._replace(record=bundle.record | own)


def _begins(place: Path, count: int) -> bytes:
    try:
        with place.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise CheckpointError(f"{place}: {error.strerror}") from error


def _of_run(folder: Path, step: int | None, kind: str) -> Bundle:
    """The bundle of a checkpoint of a workdir, with the records of the run."""
    if folder.parent.name == "checkpoints" and folder.name.isdecimal():
        folder, step = folder.parents[1], int(folder.name)
    config, identity = read_run(folder)
    sizes = identity["sizes"]
    own = on_one_device(config)
    with jax.enable_x64(config["model"]["dtype"] == "float64"):
        step, arrays = read_weights(folder, build(own, sizes), step, kind)
    params, constants, table = arrays
    leaves = named_leaves({"params": params, "constants": constants})
    leaves[TABLE] = table[: sizes["num_puzzles"]]
    record = {
        "config": config,
        "sizes": sizes,
        "id_map": identity.get("id_map"),
        "step": step,
        "weights": kind,
        "provenance": _provenance(folder, identity),
    }
    tensors = {name: Tensor.of(leaf) for name, leaf in leaves.items()}
    return Bundle(str(folder), record, tensors)


def _provenance(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The digests of the data, and the code, versions and devices of the last start."""
    lines = read_bytes(folder / "runs.jsonl", ConfigError).splitlines()
    last = {}
    for line in lines[-1:]:
        try:
            last = json.loads(line)
        except ValueError as error:
            raise ConfigError(
                f"{folder}/runs.jsonl: its last line is broken"
            ) from error
    kept = ("git", "sources", "versions", "devices", "init")
    data = {split: identity.get(split) for split in ("train", "test")}
    found = {"data": data} | {key: last[key] for key in kept if key in last}
    if "init" in found:  # where its weights lay concerns this machine alone
        name = Path(found["init"]["source"]).name
        found["init"] = found["init"] | {"source": name}
    return found
