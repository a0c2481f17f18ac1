# SPDX-License-Identifier: Apache-2.0
"""Looped Flows: the answer is denoised step by step (arXiv 2609.11801, section 3).

Each supervision step predicts the answer x1 from a noisy answer
I_t = (1 - t) x0 + t x1, with x0 ~ N(0, 1/v) and one time t per step, the times
of a puzzle ascending. In evaluation the steps are those of a sampler that moves a noise
sample to the prediction. The network and its latents are TRM's.

The paper leaves open what we settle so: predictions are probabilities by softmax, the
projection of the noisy answer is not scaled, the projection of the question
(`project_question`) takes its prefix, too, and the sampler has as many steps as an
evaluation has supervision steps. Whether a guess takes the place of the label
(`pseudo_steps`) is an independent draw per row and step.
"""

import dataclasses
from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt

from trm_jax.model.config import ModelConfig
from trm_jax.model.layers import Linear, lecun_init
from trm_jax.model.model import BoundModel
from trm_jax.rules.base import Clock, Keep
from trm_jax.rules.denoising import (
    TIMES,
    interpolant,
    moved,
    noise,
    pseudo_probability,
    renoised,
)
from trm_jax.rules.draws import folded
from trm_jax.rules.levers import CycleOutputs
from trm_jax.rules.recursion import ended, frozen
from trm_jax.rules.trm import TRM
from trm_jax.settings import knob
from trm_jax.types import Batch

_NOISE, _TIMES, _COIN = 0, 1, 2  # what a row's key is folded with


class FlowState(NamedTuple):
    """TRM's latents, and the answer on its way."""

    y: Float[Array, "b l d"]
    z: Float[Array, "b l d"]
    x: Float[Array, "b m v"]  # the noise x0 in training; in evaluation the sample
    guess: Float[Array, "b m v"]  # probabilities of the last step; zeros before
    times: UInt[Array, "b 2"]  # the key of the puzzle's times


class NoisyAnswer(nn.Module):
    """What a noisy answer and its time add to the question."""

    width: int
    vocab_size: int
    projects_question: bool
    dtype: Any

    def setup(self) -> None:
        """Declare the parameters: v d + 2 d + d^2 + d, and d^2 for the question."""
        zeros, wide = nn.initializers.zeros, self.dtype
        self.noisy = Linear(self.width)
        self.rise = self.param("rise", lecun_init, (1, self.width), wide)
        self.rise_bias = self.param("rise_bias", zeros, (self.width,), wide)
        self.mix = Linear(self.width)
        self.mix_bias = self.param("mix_bias", zeros, (self.width,), wide)
        if self.projects_question:
            self.question = Linear(self.width)

    def __call__(self) -> Float[Array, "1 1 d"]:
        """Use every parameter once, so that `init` creates it."""
        x = jnp.zeros((1, 1, self.width), self.dtype)
        noisy = jnp.zeros((1, 1, self.vocab_size), self.dtype)
        return self.add(x, noisy, jnp.zeros(1, self.dtype))

    def add(
        self,
        x: Float[Array, "b l d"],
        noisy: Float[Array, "b m v"],
        t: Float[Array, " b"],
    ) -> Float[Array, "b l d"]:
        """X + W I at the cells, and W2 silu(w1 t + b1) + b2 at every position.

        With `projects_question`, W_q x takes the place of x, at the prefix, too.
        """
        if self.projects_question:
            x = self.question(x)
        t = t.astype(self.dtype)[:, None]
        rising = nn.silu(t * self.rise + self.rise_bias[None])
        time = self.mix(rising) + self.mix_bias[None]
        cells = self.noisy(noisy.astype(x.dtype))
        prefix = x.shape[1] - cells.shape[1]
        cells = jnp.pad(cells, ((0, 0), (prefix, 0), (0, 0)))
        return x + cells + time[:, None].astype(x.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow(TRM):
    """TRM that denoises its answer."""

    section: ClassVar[str] = "flow"

    order: str = knob(
        "sorted",
        "Times of a puzzle: sorted draws from [0, 1], or a first draw t and then "
        "sorted draws from [t, 1] (random_start).",
        choices=("sorted", "random_start"),
    )
    pseudo_steps: int = knob(
        0,
        "Updates until the last guess takes the place of the label in every noisy "
        "answer but the first, with a probability that rises linearly; 0 = never. Each "
        "row tosses its own coin in every step.",
        low=0,
    )
    gamma: float = knob(
        0.0, "Noise that the sampler adds again; 0 = none (an ODE).", low=0.0
    )
    project_question: bool = knob(
        False,
        "Project the embedded question, as published for ARC; the tokens of the puzzle "
        "vector are projected, too.",
    )

    def module(self, config: ModelConfig) -> NoisyAnswer:
        """The projections of the noisy answer and of its time."""
        super().module(config)
        return NoisyAnswer(
            config.d_model,
            config.vocab_size,
            self.project_question,
            config.weight_dtype,
        )

    def start(
        self, model: BoundModel, rows: Batch, keys: Array, *, training: bool
    ) -> FlowState:
        """TRM's latents, noise of variance 1 / v, and the key of the times."""
        y, z = super().start(model, rows, keys, training=training)
        shape = (*rows.inputs.shape[1:], model.config.vocab_size)
        x = noise(folded(keys, _NOISE), shape, model.config.weight_dtype)
        times = jax.random.key_data(folded(keys, _TIMES))
        return FlowState(y, z, x, jnp.zeros_like(x), times)

    def step(
        self,
        model: BoundModel,
        rows: Batch,
        state: FlowState,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[FlowState, CycleOutputs]:
        """Predict the answer from an interpolant with the puzzle's noise."""
        state = frozen(state)
        labels = jax.nn.one_hot(rows.labels, state.x.shape[-1], dtype=state.x.dtype)
        # Where there is no label, the guess is followed, as by the sampler.
        answer = jnp.where(rows.label_mask[..., None], labels, state.guess)
        if self.pseudo_steps:
            chance = pseudo_probability(clock.update, self.pseudo_steps)
            coins = jax.vmap(jax.random.uniform)(folded(keys, _COIN))
            is_pseudo = (clock.step > 0) & (coins < chance)
            answer = jnp.where(is_pseudo[:, None, None], state.guess, answer)
        draws = jax.vmap(lambda key: jax.random.uniform(key, (clock.num_steps,)))(
            jax.random.wrap_key_data(state.times, impl="threefry2x32")
        )
        times = TIMES[self.order](draws).astype(state.x.dtype)
        t = jnp.take_along_axis(times, clock.step[:, None], axis=1)[:, 0]
        noisy = interpolant(state.x, answer, t)
        recur = partial(self.trained, keys=keys, clock=clock)
        return self._denoise(recur, model, rows, state, noisy, t, keep)

    def infer(
        self,
        model: BoundModel,
        rows: Batch,
        state: FlowState,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[FlowState, CycleOutputs]:
        """One step of the sampler; after the last, x is the last prediction."""
        shape, dtype = state.x.shape[1:], state.x.dtype
        fresh = noise(folded(keys, _NOISE), shape, dtype)
        step = clock.step.astype(dtype)
        noisy, s = renoised(state.x, fresh, step, clock.num_steps, self.gamma)
        recur = partial(self.recur, clock=clock)
        after, outputs = self._denoise(recur, model, rows, state, noisy, s, keep)
        x = moved(noisy, after.guess, step, s, clock.num_steps)
        last = after._replace(x=x)
        return last, outputs._replace(kept=ended(outputs.kept, keep, last))

    def _denoise(
        self,
        recur: Any,
        model: BoundModel,
        rows: Batch,
        state: FlowState,
        noisy: Float[Array, "b m v"],
        t: Float[Array, " b"],
        keep: Keep | None,
    ) -> tuple[FlowState, CycleOutputs]:
        clean = jax.nn.one_hot(rows.inputs, noisy.shape[-1], dtype=noisy.dtype)
        noisy = jnp.where(model.given(rows)[..., None], clean, noisy)
        x = model.own.add(model.embed(rows.inputs), noisy, t)

        def whole(latents: Any) -> Any:
            return state._replace(y=latents.y, z=latents.z)

        (y, z), outputs = recur(
            (model, x),
            self.latents(state.y, state.z),
            keep=(lambda latents: keep(whole(latents))) if keep else None,
        )
        guess = jax.nn.softmax(frozen(outputs.logits)).astype(state.x.dtype)
        last = state._replace(y=y, z=z, guess=guess)
        return last, outputs._replace(kept=ended(outputs.kept, keep, last))
