# SPDX-License-Identifier: Apache-2.0
"""Recursive loops: one latent is fed back, z <- F(z), and may see the question again.

F is the network. z starts as the embedded question x. In training, a supervision step
of a row is N loops, drawn anew from {min_loops .. loops}, with gradients through all of
them; in evaluation it is one loop, so that their number is free. The settings are the
arms of a study of how such loops collapse (docs/loops.md): no public code defines them,
and the definitions are ours.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from trm_jax.errors import ConfigError
from trm_jax.model.config import ModelConfig
from trm_jax.model.model import BoundModel
from trm_jax.rules.base import Clock, Keep
from trm_jax.rules.losses import RowLosses
from trm_jax.rules.recursion import frozen, rematerialised, repeat
from trm_jax.rules.supervised import Supervised
from trm_jax.settings import knob
from trm_jax.types import Batch, Params, StepOutput

ROTATION_BASE = 1e4  # of the loop-index encoding: the longest wave has this many loops


class LoopState(NamedTuple):
    """The latent, and how often it has been through the network."""

    z: Float[Array, "b l d"]
    loops: Float[Array, " b"]  # a whole number


class LoopOutputs(NamedTuple):
    """Predictions after the last loop and, in training, after each of the loops."""

    logits: Float[Array, "b m v"]
    q: Float[Array, "b c"]
    each: Float[Array, "k b m v"] | None
    num: Int[Array, " b"]  # the loops of each row; later entries of `each` repeat
    kept: Any


class Lifeline(nn.Module):
    """The gate g = sigmoid(own parameter) of each channel, 0.5 at the start."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self) -> Float[Array, " d"]:
        """The gate, in the dtype of the weights."""
        zeros = nn.initializers.zeros
        return nn.sigmoid(self.param("lifeline", zeros, (self.width,), self.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop(Supervised):
    """The network is applied to its own output, a random number of times."""

    loops: int = knob(8, "Most loops per supervision step in training.", low=1, high=64)
    min_loops: int = knob(2, "Fewest loops, in training.", low=1, high=64)
    lifeline: bool = knob(
        False, "Add the question, times a learned gate per channel, before each loop."
    )
    loop_encoding: bool = knob(
        False, "Rotate pairs of channels by the number of the loop."
    )
    supervise: str = knob(
        "last",
        "Which loops have a cell loss: the last, the first as well (their sum: the "
        "dual path), or every (their mean).",
        choices=("last", "first_and_last", "every"),
    )

    networks: ClassVar[tuple[str, ...]] = ("net",)
    no_decay: ClassVar[tuple[str, ...]] = ("lifeline",)

    def __post_init__(self) -> None:
        if self.min_loops > self.loops:
            raise ConfigError(
                f"rule.loop.min_loops = {self.min_loops}; expected at most "
                f"rule.loop.loops = {self.loops}"
            )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of this rule alone."""
        return () if self.supervise == "last" else ("early_loss",)

    def module(self, config: ModelConfig) -> Lifeline | None:
        """The gate of the lifeline, if there is one."""
        if self.loop_encoding and config.d_model % 2:
            raise ConfigError(
                f"model.d_model = {config.d_model}; expected an even number, since "
                "rule.loop.loop_encoding rotates pairs of channels"
            )
        return Lifeline(config.d_model, config.weight_dtype) if self.lifeline else None

    def constants(self, key: Array, config: ModelConfig, params: Params) -> Params:
        """Nothing is drawn."""
        return {}

    def start(
        self, model: BoundModel, rows: Batch, keys: Array, *, training: bool
    ) -> LoopState:
        """The embedded question."""
        x = model.embed(rows.inputs)
        return LoopState(x, jnp.zeros(len(x), float))

    def step(
        self,
        model: BoundModel,
        rows: Batch,
        state: LoopState,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[LoopState, LoopOutputs]:
        """As many loops as each row draws, in a scan of `loops` masked ones."""
        lowest, most = self.min_loops, self.loops + 1
        num = jax.vmap(lambda key: jax.random.randint(key, (), lowest, most))(keys)
        return self._loops(model, rows, state, clock, keep, num, self.loops)

    def infer(
        self,
        model: BoundModel,
        rows: Batch,
        state: LoopState,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[LoopState, LoopOutputs]:
        """One loop."""
        num = jnp.ones(len(keys), int)
        state, outputs = self._loops(model, rows, state, clock, keep, num, 1)
        return state, outputs._replace(each=None)

    def calls(self) -> tuple[str, ...]:
        """A step of an evaluation calls the network once."""
        return ("z",)

    def _loops(
        self,
        model: BoundModel,
        rows: Batch,
        state: LoopState,
        clock: Clock,
        keep: Keep | None,
        num: Int[Array, " b"],
        most: int,
    ) -> tuple[LoopState, LoopOutputs]:
        x = model.embed(rows.inputs)
        loop = rematerialised(self.loop, self.remat)

        def masked(at: tuple[LoopState, Array]) -> tuple[LoopState, Array]:
            (z, loops), k = at
            goes_on = k < num
            after = loop(model, x, z, loops)
            z = jnp.where(goes_on[:, None, None], after, z)
            return LoopState(z, loops + goes_on), k + 1

        def read(at: tuple[LoopState, Array]) -> tuple[Any, Any]:
            each = None if self.supervise == "last" else model.predict(at[0].z)[0]
            return each, keep(at[0]) if keep else None

        # The question is embedded again in a row's first step, where it has gradients.
        is_first = (clock.step == 0)[:, None, None]
        first = LoopState(jnp.where(is_first, x, frozen(state.z)), state.loops)
        at = first, jnp.int32(0)
        (state, _), (each, kept) = repeat(masked, at, most, read)
        logits, q = model.predict(state.z)
        return state, LoopOutputs(logits, q, each, num, kept)

    def loop(
        self,
        model: BoundModel,
        x: Float[Array, "b l d"],
        z: Float[Array, "b l d"],
        loops: Float[Array, " b"],
    ) -> Float[Array, "b l d"]:
        """Z <- F(z), or F(z + g x) with the lifeline, rotated if there is an index."""
        if self.lifeline:
            z = (z + model.own()[None, None] * x).astype(z.dtype)
        if self.loop_encoding:
            z = rotated(z, loops)
        return model.net(z)

    def loss(self, outputs: LoopOutputs, rows: Batch) -> RowLosses:
        """The loss after the last loop, and with `supervise` that of earlier ones."""
        last = super().loss(outputs, rows)
        if outputs.each is None:
            return last
        losses = self.cell_losses(outputs.each, outputs, rows)
        if self.supervise == "first_and_last":
            early = losses[0]
            total = last.total + early
        else:
            done = jnp.arange(len(losses))[:, None] < outputs.num[None]
            early = jnp.where(done, losses, 0).sum(0) / outputs.num
            total = last.total - last.cell_loss + early
        return last._replace(total=total, extra={"early_loss": early})

    def answer(self, outputs: LoopOutputs) -> StepOutput:
        """Halt as soon as q predicts a correct answer."""
        q_halt = outputs.q[:, 0]
        return StepOutput(outputs.logits, q_halt, q_halt > 0)


def rotated(
    z: Float[Array, "b l d"], loops: Float[Array, " b"]
) -> Float[Array, "b l d"]:
    """Z with the channels 2i and 2i + 1 rotated by loops * ROTATION_BASE^(-2i/d)."""
    rates = ROTATION_BASE ** -(jnp.arange(0, z.shape[-1], 2) / z.shape[-1])
    angle = (loops[:, None] * rates[None])[:, None]
    even, odd = z[..., 0::2], z[..., 1::2]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(z.shape).astype(z.dtype)
