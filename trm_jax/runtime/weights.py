# SPDX-License-Identifier: Apache-2.0
"""A run as its evaluation needs it: on one device, with the weights alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trm_jax.errors import CheckpointError, ConfigError
from trm_jax.evaluation.evaluate import Weights
from trm_jax.runtime.checkpoint import Checkpoints
from trm_jax.training.build import Built
from trm_jax.training.digest import not_finite

_FIELDS = {"ema": "ema_params", "raw": "params"}  # of TrainState, by name of weights


def on_one_device(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run, changed so that its model is used on one device."""
    settings = config["train"] | {"micro_batches": 1}
    return {**config, "mesh": {"data": 1, "fsdp": 1}, "train": settings}


def read_weights(
    workdir: str | Path, built: Built, step: int | None, kind: str
) -> tuple[int, Weights]:
    """Step and weights of a checkpoint (None: the newest); nothing else is read.

    `kind` is "ema" or "raw". Raises ConfigError and CheckpointError.
    """
    if kind not in _FIELDS:
        raise ConfigError(f"weights = {kind!r}; expected ema or raw")
    read = ("step", _FIELDS[kind], "constants", "puzzle_table")
    like = built.state_like
    unread: Any = {name: None for name in like._fields if name not in read}
    state = Checkpoints(workdir).restore_step(like._replace(**unread), step)
    params = getattr(state, _FIELDS[kind])
    if wrong := not_finite(state._asdict())():
        raise CheckpointError(
            f"{workdir}: step {int(state.step)}: {wrong[0]} has values that are not "
            "finite; evaluate another --step"
        )
    return int(state.step), (params, state.constants, state.puzzle_table)
