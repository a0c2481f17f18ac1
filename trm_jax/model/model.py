# SPDX-License-Identifier: Apache-2.0
"""The model around its networks: embed the question, refine states, predict."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from trm_jax.model import positions
from trm_jax.model.config import ModelConfig
from trm_jax.model.layers import Linear, rms_norm, truncated_normal
from trm_jax.model.network import Network
from trm_jax.types import Batch, Params

HALT_BIAS = -5.0  # rows hardly ever halt before the head has learned to judge


class ReasoningModel(nn.Module):
    """Embedding, networks and heads of a recursive reasoner (arXiv 2510.04871).

    A rule applies the networks repeatedly. `__call__` runs every part once and is used
    only by `init`.
    """

    config: ModelConfig
    networks: tuple[str, ...] = ("net",)

    def setup(self) -> None:
        """Declare the parameters."""
        c = self.config
        std = 1 / math.sqrt(c.d_model)
        embedding = truncated_normal(std)
        self.embed_tokens = self.param(
            "embed_tokens", embedding, (c.vocab_size, c.d_model), c.weight_dtype
        )
        if registers := c.settings.registers:
            self.registers = self.param(
                "registers", embedding, (registers, c.d_model), c.weight_dtype
            )
        self.position_tables = {
            name: self.param(
                name, embedding, (int(unit.max()) + 1, c.d_model), c.weight_dtype
            )
            for name, unit in c.position_units.items()
        }
        self.stacks = {name: Network(c, name=name) for name in self.networks}
        self.head = Linear(c.vocab_size)
        # As published, there are two outputs; TRM ignores the second, "continue".
        self.halt_kernel = self.param(
            "halt_kernel", nn.initializers.zeros, (c.d_model, 2), c.weight_dtype
        )
        self.halt_bias = self.param(
            "halt_bias", nn.initializers.constant(HALT_BIAS), (2,), c.weight_dtype
        )

    def __call__(
        self, inputs: Int[Array, "b m"], puzzle_vector: Float[Array, "b e"]
    ) -> tuple[Array, Array]:
        """Use every parameter once, so that `init` creates it."""
        hidden = self.embed(inputs, puzzle_vector)
        for name in self.networks:
            hidden = self.refine(hidden, name)
        return self.predict(hidden)

    def embed(
        self, inputs: Int[Array, "b m"], puzzle_vector: Float[Array, "b e"]
    ) -> Float[Array, "b l d"]:
        """The question x: the puzzle vector as tokens, registers, then the cells."""
        c, dtype = self.config, self.config.compute_dtype
        parts = [self.embed_tokens.astype(dtype)[inputs]]
        if c.settings.registers:
            shape = (len(inputs), *self.registers.shape)
            parts.insert(0, jnp.broadcast_to(self.registers.astype(dtype), shape))
        if of_vector := c.settings.prefix_len:
            missing = of_vector * c.d_model - puzzle_vector.shape[-1]
            padded = jnp.pad(puzzle_vector.astype(dtype), ((0, 0), (0, missing)))
            parts.insert(0, padded.reshape(-1, of_vector, c.d_model))
        x = jnp.concatenate(parts, axis=1)
        if c.position_units:
            places = positions.vectors(self.position_tables, c.position_units)
            x = math.sqrt(0.5) * (x + places.astype(dtype)[None])
        return math.sqrt(c.d_model) * x

    def refine(
        self, hidden: Float[Array, "b l d"], network: str
    ) -> Float[Array, "b l d"]:
        """One application of a network."""
        return self.stacks[network](hidden)

    def predict(
        self, y: Float[Array, "b l d"]
    ) -> tuple[Float[Array, "b m v"], Float[Array, "b c"]]:
        """Cell logits, and halting logits (halt, continue), from an answer state."""
        wide = jnp.promote_types(y.dtype, jnp.float32)
        if self.config.settings.norm == "pre":
            y = rms_norm(y)
        logits = self.head(y[:, self.config.prefix_len :])
        match self.config.halt_position:
            case "first":
                seen = y[:, 0].astype(wide)
            case "last":
                seen = y[:, -1].astype(wide)
            case _:
                seen = y.astype(wide).mean(1)
        q = seen @ self.halt_kernel
        return logits.astype(wide), q + self.halt_bias[None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundModel:
    """The model with its weights and the puzzle vectors of the current rows.

    Rules compute with this object: `model.net(h)` applies the network called "net". It
    is a pytree, so that `frozen(model)` and JAX loops accept it as one argument.
    """

    params: Any
    constants: Any  # as the rule drew them
    vectors: Any  # `b e`, rows of the puzzle table
    module: ReasoningModel = dataclasses.field(metadata={"static": True})
    rule_module: Any = dataclasses.field(default=None, metadata={"static": True})

    @property
    def config(self) -> ModelConfig:
        """Sizes and settings."""
        return self.module.config

    @property
    def own(self) -> Any:
        """The rule's own module, bound to its weights; None if it has none."""
        if self.rule_module is None:
            return None
        return self.rule_module.bind({"params": self.params["rule"]})

    def __getattr__(self, name: str) -> Callable[[Array], Array]:
        """The network called `name`, as a function of `b l d`."""
        if name.startswith("_") or name not in self.module.networks:
            raise AttributeError(name)
        return lambda hidden: self._apply("refine", hidden, name)

    def embed(self, inputs: Int[Array, "b m"]) -> Float[Array, "b l d"]:
        """The question x of every row."""
        return self._apply("embed", inputs, self.vectors)

    def predict(
        self, y: Float[Array, "b l d"]
    ) -> tuple[Float[Array, "b m v"], Float[Array, "b c"]]:
        """Cell logits, and all halting logits, from an answer state."""
        return self._apply("predict", y)

    def given(self, rows: Batch) -> Bool[Array, "b m"]:
        """Which cells are clues; none if the task has no token for unknown cells."""
        blank = self.config.blank
        return (rows.inputs != blank) & (blank >= 0)

    def _apply(self, method: str, *args: Any) -> Any:
        apply = cast(Any, self.module.apply)
        own = {k: v for k, v in self.params.items() if k != "rule"}
        return apply({"params": own}, *args, method=method)


def init_params(module: ReasoningModel, rule_module: Any, key: Array) -> Params:
    """Fresh parameters; the key "rule" holds those of the rule's own module."""
    c = module.config
    key, rule_key = jax.random.split(key)
    inputs = jnp.zeros((1, c.num_cells), jnp.int32)
    puzzle_vector = jnp.zeros((1, c.puzzle_width), c.weight_dtype)
    params = module.init(key, inputs, puzzle_vector)["params"]
    if rule_module is not None:
        params["rule"] = rule_module.init(rule_key)["params"]
    return params
