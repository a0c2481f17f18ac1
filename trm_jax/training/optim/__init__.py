# SPDX-License-Identifier: Apache-2.0
"""Optimiser, schedules and averaging: config.optim.

A new optimiser is one file here, and one entry in `OPTIMIZERS`.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from trm_jax.errors import ConfigError
from trm_jax.settings import choose, knob, own_values, read
from trm_jax.training.optim.adam_atan2 import AdamAtan2
from trm_jax.training.optim.adamw import AdamW
from trm_jax.training.optim.base import SHAPES, Groups, Optimizer, make_schedule
from trm_jax.training.optim.muon import Muon
from trm_jax.types import Params

OPTIMIZERS: dict[str, type[Any]] = {
    "adam_atan2": AdamAtan2,
    "adamw": AdamW,
    "muon": Muon,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """config.optim, without the sections of the optimisers."""

    name: str = knob("adam_atan2", "The optimiser: the name of a section below.")
    lr: float = knob(1e-4, "Learning rate after the warm-up.", low=0.0)
    weight_decay: float = knob(1.0, "Decoupled decay of the weights.", low=0.0)
    decay_all: bool = knob(
        False, "Decay also the parameters that operators and rules exempt."
    )
    clip_norm: float = knob(
        0.0,
        "Largest norm of all gradients together, the puzzle table's apart; 0 = none.",
        low=0.0,
    )
    table_lr: float = knob(1e-4, "Rate of the puzzle table's sign-SGD.", low=0.0)
    table_weight_decay: float = knob(1.0, "Weight decay of the puzzle table.", low=0.0)
    table_only_steps: int = knob(
        0, "Updates at the start that change the puzzle table alone.", low=0
    )
    warmup_steps: int = knob(2_000, "Updates of linear warm-up.", low=0)
    min_ratio: float = knob(
        1.0, "Last rate / lr; 1 = constant after the warm-up.", low=0.0
    )
    decay_start: float = knob(
        0.0, "Share of all steps after which the decay begins.", low=0.0, below=1.0
    )
    decay_shape: str = knob(
        "cosine", "How the rate falls to min_ratio * lr.", choices=SHAPES
    )
    ema_decay: float = knob(
        0.999, "Decay of the average of the weights; 0 = none.", low=0.0, below=1.0
    )
    ema_ramp: bool = knob(False, "Start the average at decay (1 + t) / (10 + t).")


class Optim(NamedTuple):
    """The optimiser of a config, and the schedules made from it."""

    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    table_schedule: optax.Schedule
    settings: OptimSettings


def make_optim(section: Mapping[str, Any], total_steps: int, groups: Groups) -> Optim:
    """Build the optimiser of config.optim, and its schedules.

    The schedules of the weights and of the puzzle table differ in the learning rate,
    and in that only the table's begins at update 1. Raises ConfigError.
    """
    s = read(OptimSettings, own_values(section), "optim")
    if s.ema_ramp and not s.ema_decay:
        raise ConfigError(
            "optim.ema_ramp = True, but optim.ema_decay = 0 keeps no average; expected "
            "False"
        )
    if s.min_ratio == 1.0:
        for key in ("decay_start", "decay_shape"):
            unset = getattr(OptimSettings, key)
            if (value := getattr(s, key)) != unset:
                raise ConfigError(
                    f"optim.{key} = {value}, but optim.min_ratio = 1 keeps the rate; "
                    f"expected {unset}"
                )
    shaped = partial(
        make_schedule,
        warmup_steps=s.warmup_steps,
        total_steps=total_steps,
        min_ratio=s.min_ratio,
        decay_start=s.decay_start,
        decay_shape=s.decay_shape,
    )
    schedule = shaped(s.lr, first=s.table_only_steps)
    factor = shaped(1.0, first=s.table_only_steps)
    kind = choose(OPTIMIZERS, s.name, "optim.name")
    if s.decay_all:
        groups = groups._replace(decayed=partial(jax.tree.map, lambda _: True))
    chosen: Optimizer = read(kind, section[s.name], f"optim.{s.name}")
    optimizer = chosen.build(s.lr, factor, s.weight_decay, groups)
    if s.clip_norm:
        optimizer = clipped(optimizer, s.clip_norm)
    if groups.kept:
        optimizer = keeping(optimizer, groups.kept)
    return Optim(optimizer, schedule, shaped(s.table_lr), s)


def clipped(
    optimizer: optax.GradientTransformation, max_norm: float
) -> optax.GradientTransformation:
    """The optimiser, whose gradients are scaled to a global norm of at most `max_norm`.

    The gradients are those of the whole batch: they are summed over micro-batches and
    devices before. The state is that of the optimiser.
    """
    clip = optax.clip_by_global_norm(max_norm)

    def update(grads: Params, state: Any, params: Params = None) -> tuple[Params, Any]:
        scaled, _ = clip.update(grads, clip.init(params))
        return optimizer.update(scaled, state, params)

    return optax.GradientTransformation(optimizer.init, update)


def keeping(
    optimizer: optax.GradientTransformation, names: tuple[str, ...]
) -> optax.GradientTransformation:
    """The optimiser, without gradients, updates and decay of the named parameters."""

    def without(tree: Params) -> Params:
        zeros = {name: jnp.zeros_like(tree[name]) for name in names}
        return {**tree, **zeros}

    def update(grads: Params, state: Any, params: Params = None) -> tuple[Params, Any]:
        updates, state = optimizer.update(without(grads), state, params)
        return without(updates), state

    return optax.GradientTransformation(optimizer.init, update)


def ema_update(
    ema: Params, params: Params, step: Int[Array, ""], *, decay: float, ramp: bool
) -> Params:
    """The average decay * ema + (1 - decay) * params.

    With `ramp`, the decay is at most (1 + step) / (10 + step).
    """
    d = jnp.minimum(decay, (1 + step) / (10 + step)) if ramp else decay
    return optax.incremental_update(params, ema, 1 - d)
