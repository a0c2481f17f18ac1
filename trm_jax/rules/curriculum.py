# SPDX-License-Identifier: Apache-2.0
"""A curriculum over cycles: early updates do fewer of them (CGAR, arXiv 2511.08653).

Each phase of training is the same rule with its own numbers of cycles. Evaluations
always do all cycles.
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Int

from trm_jax.errors import ConfigError
from trm_jax.rules.latents import MAX_CYCLES
from trm_jax.settings import knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Settings of a rule with `h_cycles` and `l_cycles` that may grow in training."""

    section: ClassVar[str]

    phase_ends: tuple[float, ...] = knob(
        (),
        "Shares of all updates that end the phases before the last.",
        low=0.0,
        below=1.0,
    )
    phase_h_cycles: tuple[int, ...] = knob(
        (), "The h_cycles of each of these phases.", low=1, high=MAX_CYCLES
    )
    phase_l_cycles: tuple[int, ...] = knob(
        (), "The l_cycles of each of these phases.", low=1, high=MAX_CYCLES
    )

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        section = f"rule.{self.section}"
        for name in ("phase_h_cycles", "phase_l_cycles"):
            value: tuple[int, ...] = getattr(self, name)
            if len(value) != len(self.phase_ends):
                raise ConfigError(
                    f"{section}.{name} = {value}; expected as many numbers as in "
                    f"{section}.phase_ends = {self.phase_ends}"
                )
        if list(self.phase_ends) != sorted(set(self.phase_ends)):
            raise ConfigError(
                f"{section}.phase_ends = {self.phase_ends}; expected rising shares"
            )
        phases(self, 1)  # other settings have to fit the cycles of every phase


def phases(rule: Any, num_updates: int) -> list[tuple[int, Any]]:
    """The first update and the rule of each phase of a training of `num_updates`.

    The updates are counted from 0. A rule that wraps others has the phases of these.
    """
    if at := getattr(rule, "phase_ends", ()):
        plain = {"phase_ends": (), "phase_h_cycles": (), "phase_l_cycles": ()}
        cycles = zip(rule.phase_h_cycles, rule.phase_l_cycles, strict=True)
        rules = [
            dataclasses.replace(rule, h_cycles=h, l_cycles=l, **plain)
            for h, l in cycles
        ]
        rules.append(dataclasses.replace(rule, **plain))
        return list(zip((0, *(round(s * num_updates) for s in at)), rules, strict=True))
    for field in dataclasses.fields(rule):
        inner = getattr(rule, field.name)
        if hasattr(inner, "networks") and len(of := phases(inner, num_updates)) > 1:
            name = field.name
            return [(at, dataclasses.replace(rule, **{name: one})) for at, one in of]
    return [(0, rule)]


def current(found: list[tuple[int, Any]], update: Int[Array, ""]) -> Int[Array, ""]:
    """The index of the phase, of those that `phases` found, that `update` is in."""
    return (update >= jnp.array([first for first, _ in found[1:]])).sum()
