# SPDX-License-Identifier: Apache-2.0
"""Two networks, a gate, and a continue logit whose target a second pass computes.

The order of the updates, the one-step gradient and the target of the second halting
logit follow HRM (arXiv 2506.21734). The gate and the random start do not.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from trm_jax.model.config import ModelConfig
from trm_jax.model.layers import truncated_normal
from trm_jax.model.model import BoundModel
from trm_jax.rules.base import Clock, Keep
from trm_jax.rules.losses import LOSSES, RowLosses, row_losses
from trm_jax.rules.recursion import REMAT_POLICIES, frozen, iterate, rematerialised
from trm_jax.settings import knob
from trm_jax.types import Batch, Params, StepOutput


class PairState(NamedTuple):
    """What the two networks refine."""

    high: Float[Array, "b l d"]
    low: Float[Array, "b l d"]


class PairOutputs(NamedTuple):
    """Predictions, the target of the continue logit in training, and what was kept."""

    logits: Float[Array, "b m v"]
    q: Float[Array, "b c"]
    target: Float[Array, " b"] | None
    kept: Any


class Gate(nn.Module):
    """How much of the question each channel of `low` sees."""

    width: int

    @nn.compact
    def __call__(self) -> Float[Array, " d"]:
        return self.param("gate", nn.initializers.ones, (self.width,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """`low` is refined in every iteration, `high` in the last of each cycle."""

    cycles: int = knob(2, "Updates of `high` per supervision step.", low=1)
    low_cycles: int = knob(2, "Updates of `low` for each of them.", low=1)
    remat: str = knob(
        "none", "What the backward pass computes again.", choices=tuple(REMAT_POLICIES)
    )
    cell_loss: str = knob("stablemax", "Cross-entropy of the cells.", choices=LOSSES)
    halt_weight: float = knob(0.5, "Weight of both halting losses.", low=0.0)

    networks: ClassVar[tuple[str, ...]] = ("low", "high")
    metrics: ClassVar[tuple[str, ...]] = ("continue_loss",)
    no_decay: ClassVar[tuple[str, ...]] = ("gate",)

    def module(self, config: ModelConfig) -> Gate:
        """The gate."""
        return Gate(config.d_model)

    def constants(self, key: Array, config: ModelConfig) -> Params:
        """The first `high`, the same for every row and position."""
        return {"high": truncated_normal(1.0)(key, (config.d_model,))}

    def start(
        self, model: BoundModel, rows: Batch, keys: Array, *, training: bool
    ) -> PairState:
        """A `low` that each row draws for itself."""
        config = model.config
        shape, dtype = (config.seq_len, config.d_model), config.compute_dtype
        low = jax.vmap(lambda key: truncated_normal(1.0)(key, shape))(keys)
        high = jnp.broadcast_to(model.constants["high"], low.shape)
        return PairState(high.astype(dtype), low.astype(dtype))

    def step(
        self,
        model: BoundModel,
        rows: Batch,
        state: PairState,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[PairState, PairOutputs]:
        """The inference step; a second pass from its end gives the target."""
        state, outputs = self.infer(model, rows, state, keys, clock, keep)
        _, later = self.infer(frozen(model), rows, frozen(state), keys, clock)
        is_last = clock.step + 1 >= clock.num_steps
        best = jnp.where(is_last, later.q[:, 0], later.q.max(-1))
        return state, outputs._replace(target=jax.nn.sigmoid(best))

    def infer(
        self,
        model: BoundModel,
        rows: Batch,
        state: PairState,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[PairState, PairOutputs]:
        """All iterations; only the last carries gradients."""
        x = model.embed(rows.inputs)
        times = self.cycles * self.low_cycles
        state, kept = iterate(
            self.iteration, (model, x), state, times=times, grad_times=1, keep=keep
        )
        logits, q = model.predict(state.high)
        return state, PairOutputs(logits, q, None, kept)

    def iteration(
        self, inputs: tuple[BoundModel, Array], state: PairState, i: Int[Array, ""]
    ) -> PairState:
        """One update of `low`, and at the end of a cycle one update of `high`."""
        model, x = inputs
        gate = model.own().astype(x.dtype)[None, None]
        high_net = rematerialised(model.high, self.remat)
        low_net = rematerialised(model.low, self.remat)
        low = low_net(state.low + (state.high + gate * x))
        ends_cycle = (i + 1) % self.low_cycles == 0
        high = lax.cond(ends_cycle, high_net, lambda _: state.high, state.high + low)
        return PairState(high, low)

    def loss(self, outputs: PairOutputs, rows: Batch) -> RowLosses:
        """Cells and halting; in training also the continue logit."""
        losses = row_losses(
            outputs.logits,
            outputs.q[:, 0],
            rows,
            loss=self.cell_loss,
            label_smoothing=0.0,
            halt_weight=self.halt_weight,
        )
        if outputs.target is None:
            return losses
        more = optax.sigmoid_binary_cross_entropy(outputs.q[:, 1], outputs.target)
        total = losses.total + self.halt_weight * more
        return losses._replace(total=total, extra={"continue_loss": more})

    def answer(self, outputs: PairOutputs) -> StepOutput:
        """Halt as soon as halting is judged better than going on."""
        halt, go_on = outputs.q[:, 0], outputs.q[:, 1]
        return StepOutput(outputs.logits, halt, halt > go_on)
