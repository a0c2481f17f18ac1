# SPDX-License-Identifier: Apache-2.0
"""What inspection needs of a trained model: its parts, and one cycle as a function."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from trm_jax.errors import ConfigError
from trm_jax.evaluation.evaluate import Weights
from trm_jax.model.model import BoundModel, ReasoningModel
from trm_jax.rules.latents import Latents
from trm_jax.training.step import Recipe
from trm_jax.training.supervision import bind

States = Float[Array | np.ndarray, "b l d"]


@runtime_checkable
class Loaded(Protocol):
    """What inspection calls of a `trm_jax.Model`."""

    def bound(self) -> BoundModel:
        """Networks and heads as functions of states."""

    def cycle(self, y: States, z: States, x: States) -> tuple[Any, Any]:
        """One h-cycle from y and z, for the embedded question x."""


def bound(recipe: Recipe, weights: Weights) -> BoundModel:
    """The model with the blank puzzle vector, in forms that forward mode can derive.

    These are float32 for a bfloat16 model, and scans token by token.
    """
    params, constants, table = weights
    config = recipe.model.config.in_form("forward_mode")
    dtype = jnp.promote_types(config.compute_dtype, jnp.float32)
    settings = dataclasses.replace(config.settings, dtype=dtype.name)
    config = dataclasses.replace(config, settings=settings)
    module = ReasoningModel(config, recipe.model.networks)
    return bind(recipe.rule, module, params, constants, table[:1])


def cycle(recipe: Recipe, model: BoundModel, state: Any, x: Array) -> Any:
    """The state after one h-cycle of TRM or HRM, for the embedded question x.

    Raises ConfigError if the rule has no two latents y and z.
    """
    rule: Any = recipe.rule
    if getattr(rule, "latents", None) is not Latents:
        name = type(rule).__name__
        raise ConfigError(f"the rule {name} has no cycle of two latents y, z")
    return rule.latent_recursion((model, x), state, 0)
