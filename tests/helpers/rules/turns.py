# SPDX-License-Identifier: Apache-2.0
"""A plain loop: one latent, gradients through all of it, a loss after every turn."""

import dataclasses
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trm_jax.model.config import ModelConfig
from trm_jax.model.model import BoundModel
from trm_jax.rules.base import Clock, Keep
from trm_jax.rules.losses import RowLosses, row_losses
from trm_jax.rules.recursion import frozen, repeat
from trm_jax.settings import knob
from trm_jax.types import Batch, Params, StepOutput


class TurnsState(NamedTuple):
    """The one latent that recurs."""

    h: Float[Array, "b l d"]


class TurnsOutputs(NamedTuple):
    """What each turn `t` predicts, and what was kept of it."""

    logits: Float[Array, "t b m v"]
    q: Float[Array, "t b c"]
    kept: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turns:
    """h starts as the embedded question, which no turn sees again: h <- net(h)."""

    turns: int = knob(4, "Applications of the network per supervision step.", low=1)
    halt_weight: float = knob(0.5, "Weight of the halting loss.", low=0.0)

    networks: ClassVar[tuple[str, ...]] = ("net",)
    metrics: ClassVar[tuple[str, ...]] = ()
    no_decay: ClassVar[tuple[str, ...]] = ()

    def module(self, config: ModelConfig) -> None:
        """No parameters of its own."""

    def constants(self, key: Array, config: ModelConfig, params: Params) -> Params:
        """Nothing is drawn."""
        return {}

    def start(
        self, model: BoundModel, rows: Batch, keys: Array, *, training: bool
    ) -> TurnsState:
        """The embedded question."""
        return TurnsState(model.embed(rows.inputs))

    def step(
        self,
        model: BoundModel,
        rows: Batch,
        state: TurnsState,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[TurnsState, TurnsOutputs]:
        """`turns` applications of the network, and a prediction after each."""

        def turn(state: TurnsState) -> TurnsState:
            return TurnsState(model.net(state.h))

        def read(state: TurnsState) -> tuple[Any, Any]:
            return model.predict(state.h), keep(state) if keep else None

        # The question is embedded again in a row's first step, where it has gradients.
        is_first = (clock.step == 0)[:, None, None]
        h = jnp.where(is_first, model.embed(rows.inputs), frozen(state.h))
        state, ((logits, q), kept) = repeat(turn, TurnsState(h), self.turns, read)
        return state, TurnsOutputs(logits, q, kept)

    infer = step

    def loss(self, outputs: TurnsOutputs, rows: Batch) -> RowLosses:
        """The mean loss of all turns, with the scores of the last turn."""
        of_turn = partial(
            row_losses,
            rows=rows,
            loss="softmax",
            label_smoothing=0.0,
            halt_weight=self.halt_weight,
        )
        turns = jax.vmap(of_turn)(outputs.logits, outputs.q[..., 0])
        last = jax.tree.map(lambda each: each[-1], turns)
        return last._replace(total=turns.total.mean(0))

    def answer(self, outputs: TurnsOutputs) -> StepOutput:
        """Halt as soon as the last turn says that its answer is correct."""
        q_halt = outputs.q[-1, :, 0]
        return StepOutput(outputs.logits[-1], q_halt, q_halt > 0)
