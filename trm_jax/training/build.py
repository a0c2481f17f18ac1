# SPDX-License-Identifier: Apache-2.0
"""Config sections in; model, step and state out: what train and eval share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from trm_jax.errors import ConfigError
from trm_jax.model.config import ModelConfig
from trm_jax.model.model import TRM
from trm_jax.training.optim import Optim, make_optim
from trm_jax.training.sharding import make_mesh, state_shardings
from trm_jax.training.step import (
    init_train_state,
    jit_train_step,
    make_train_step,
)
from trm_jax.types import TrainState

LEAST = {
    "train.steps": 1,
    "train.batch_size": 1,
    "train.micro_batches": 1,
    "train.log_every": 1,
    "train.eval_every": 0,
    "train.checkpoint_every": 1,
    "train.keep_checkpoints": 1,
    "eval.batch_size": 1,
    "eval.max_puzzles": 0,
    "eval.supervision_steps": 0,
    "eval.votes": 0,
    "mesh.data": 0,
    "mesh.fsdp": 1,
    "optim.warmup_steps": 0,
}
CHOICES = {
    "train.on_non_finite": ("halt", "skip", "rollback"),
    "train.on_save_error": ("stop", "continue"),
}
MAX_SEED = 2**32 - 1  # jax.random.key takes no more of it


class Built(NamedTuple):
    """Everything that a config and the data's sizes determine."""

    model: TRM
    optim: Optim
    mesh: Mesh
    state_like: TrainState  # shapes, dtypes and shardings
    init: Callable[[], TrainState]
    train_step: Any  # compiled on first call; `.lower` for ahead-of-time use


def build(
    config: Mapping[str, Any],
    sizes: Mapping[str, int],
    devices: Sequence[Any] | None = None,
) -> Built:
    """Build from the sections of a config and the data's sizes; allocates nothing yet.

    `devices` other than the visible ones may be those of a topology, to compile for.
    Raises ConfigError for values that do not fit.
    """
    _check_ranges(config)
    seed, train, rows = config["seed"], config["train"], config["train"]["batch_size"]
    fields: dict[str, Any] = {**config["model"], **sizes}
    trm = TRM(ModelConfig(**(fields | {"layers": tuple(fields["layers"])})))
    batch_sizes = {
        f"{section}.batch_size": config[section]["batch_size"]
        for section in ("train", "eval")
    }
    device_mesh = make_mesh(**config["mesh"], batch_sizes=batch_sizes, devices=devices)
    optim = make_optim(**config["optim"], total_steps=train["steps"])

    def init() -> TrainState:
        return init_train_state(trm, optim, jax.random.key(seed), rows)

    shapes = jax.eval_shape(init)
    shardings = state_shardings(shapes, device_mesh)
    like = jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    step = make_train_step(
        trm,
        optim,
        loss=train["loss"],
        seed=seed,
        micro_batches=train["micro_batches"],
        log_every=train["log_every"],
        skips=train["on_non_finite"] == "skip",
    )
    compiled = jit_train_step(
        step, like, device_mesh, micro_batches=train["micro_batches"]
    )
    sharded_init = jax.jit(init, out_shardings=shardings)
    return Built(trm, optim, device_mesh, like, sharded_init, compiled)


def _check_ranges(config: Mapping[str, Any]) -> None:
    for key, least in LEAST.items():
        section, name = key.split(".")
        if config[section][name] < least:
            raise ConfigError(f"{key} = {config[section][name]}; expected >= {least}")
    for key, choices in CHOICES.items():
        section, name = key.split(".")
        if config[section][name] not in choices:
            expected = f"expected one of {', '.join(choices)}"
            raise ConfigError(f"{key} = {config[section][name]!r}; {expected}")
    if not 0 <= config["seed"] <= MAX_SEED:
        raise ConfigError(f"seed = {config['seed']}; expected 0 to {MAX_SEED}")
