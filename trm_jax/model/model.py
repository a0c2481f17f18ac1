# SPDX-License-Identifier: Apache-2.0
"""TRM around its network: embed the question, refine a state, predict the answer."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from trm_jax.model.config import ModelConfig
from trm_jax.model.layers import Linear, truncated_normal
from trm_jax.model.network import Network
from trm_jax.types import Params, StepOutput

HALT_BIAS = -5.0  # rows hardly ever halt before the head has learned to judge


class TRM(nn.Module):
    """Tiny Recursive Model (arXiv 2510.04871).

    `refine` is the network that recursion.py applies again and again; `__call__`
    runs embed, refine and predict once and serves `init` only.
    """

    config: ModelConfig

    def setup(self) -> None:
        """Declare the parameters."""
        c = self.config
        std = 1 / math.sqrt(c.d_model)
        embedding = truncated_normal(std)
        self.embed_tokens = self.param(
            "embed_tokens", embedding, (c.vocab_size, c.d_model)
        )
        if c.positions == "learned":
            self.embed_positions = self.param(
                "embed_positions", embedding, (c.seq_len, c.d_model)
            )
        self.network = Network(c)
        self.head = Linear(c.vocab_size)
        # Two outputs as published; the second, "continue", is not used.
        self.halt_kernel = self.param(
            "halt_kernel", nn.initializers.zeros, (c.d_model, 2)
        )
        self.halt_bias = self.param(
            "halt_bias", nn.initializers.constant(HALT_BIAS), (2,)
        )

    def __call__(
        self, inputs: Int[Array, "b m"], puzzle_vector: Float[Array, "b e"]
    ) -> StepOutput:
        """Touch every parameter once, for `init`."""
        return self.predict(self.refine(self.embed(inputs, puzzle_vector)))

    def embed(
        self, inputs: Int[Array, "b m"], puzzle_vector: Float[Array, "b e"]
    ) -> Float[Array, "b l d"]:
        """The question x: puzzle vector as `prefix_len` tokens, then the cells."""
        c, dtype = self.config, self.config.compute_dtype
        x = self.embed_tokens.astype(dtype)[inputs]
        if c.prefix_len:
            missing = c.prefix_len * c.d_model - puzzle_vector.shape[-1]
            padded = jnp.pad(puzzle_vector.astype(dtype), ((0, 0), (0, missing)))
            x = jnp.concatenate(
                [padded.reshape(-1, c.prefix_len, c.d_model), x], axis=1
            )
        if c.positions == "learned":
            x = math.sqrt(0.5) * (x + self.embed_positions.astype(dtype)[None])
        return math.sqrt(c.d_model) * x

    def refine(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        """One application of the network."""
        return self.network(hidden)

    def predict(self, y: Float[Array, "b l d"]) -> StepOutput:
        """Read cell logits and the halting logit off the answer state."""
        wide = jnp.promote_types(y.dtype, jnp.float32)
        logits = self.head(y[:, self.config.prefix_len :])
        q = y[:, 0].astype(wide) @ self.halt_kernel
        return StepOutput(logits.astype(wide), q[:, 0] + self.halt_bias[0])


def init_variables(model: TRM, key: Array) -> tuple[Params, Params]:
    """Fresh parameters, and the constants: the first y and z, drawn once (std 1)."""
    c = model.config
    params_key, y_key, z_key = jax.random.split(key, 3)
    inputs = jnp.zeros((1, c.num_cells), jnp.int32)
    puzzle_vector = jnp.zeros((1, c.puzzle_width), jnp.float32)
    params = model.init(params_key, inputs, puzzle_vector)["params"]
    draw = truncated_normal(1.0)
    constants = {"y": draw(y_key, (c.d_model,)), "z": draw(z_key, (c.d_model,))}
    return params, constants
