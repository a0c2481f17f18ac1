# SPDX-License-Identifier: Apache-2.0
"""The recursion rule: the one object that defines what recurs.

A rule is a frozen dataclass whose fields are its section of the config. A new rule is
one file in this folder and one entry in `RULES` (`rules/__init__.py`).
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
from jaxtyping import Array, Int

from trm_jax.model.config import ModelConfig
from trm_jax.model.model import BoundModel
from trm_jax.rules.losses import RowLosses
from trm_jax.types import Batch, Params, State, StepOutput

Keep = Callable[[Any], Any]


def answer_latent(state: State) -> Array:
    """What the heads read, `b l d`: the state's `y`, or its first field without one."""
    latent: Array = state.y if hasattr(state, "y") else state[0]
    return latent


def innermost(rule: Any) -> Any:
    """The rule that runs the network: of a rule around another one, the inner rule."""
    while hasattr(rule, "inner"):
        rule = rule.inner
    return rule


class Clock(NamedTuple):
    """The progress of each row in supervision steps, and of training in updates."""

    step: Int[Array, " b"]  # supervision steps done on the row
    num_steps: int  # the most that a row can have
    update: Int[Array, ""]  # optimiser updates done; 0 in evaluation


@runtime_checkable
class Rule(Protocol):
    """One recursion. `keys` holds one typed key per row, fresh in every step.

    All random draws of a row use its own key, so that no draw depends on the mesh, on
    micro-batches or on the other rows of the batch. `rows` is the batch in the carry.

    A rule may also have what the tools of inspect/ read: `calls()`, the latent that
    each network call of a step updates (False for `call_is_update` if a call does not
    return the new latent); `cell_loss`, the name of its loss (softmax if absent);
    `loops`, the iterations of a step that a study counts; `latents` and
    `latent_recursion`, the h-cycle of two latents. A rule around another has `inner`.
    The heads read `state.y`, or the first field of a state without y.
    """

    networks: ClassVar[tuple[str, ...]]  # names; each network has its own weights
    metrics: ClassVar[tuple[str, ...]]  # names that `loss` adds to the common ones
    no_decay: ClassVar[tuple[str, ...]]  # own parameters without weight decay

    def module(self, config: ModelConfig) -> nn.Module | None:
        """A module with the rule's own parameters, or None if it has none.

        A call without arguments must use every parameter. They are stored under
        params["rule"], and `model.own` is the module bound to them.
        """

    def constants(self, key: Array, config: ModelConfig, params: Params) -> Params:
        """Arrays drawn once and saved with the model, for instance the first states.

        `params` are the fresh parameters.
        """

    def start(
        self, model: BoundModel, rows: Batch, keys: Array, *, training: bool
    ) -> State:
        """The initial state of every row. It may read labels only in training."""

    def step(
        self,
        model: BoundModel,
        rows: Batch,
        state: State,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[State, Any]:
        """One supervision step: the next state, and outputs of the rule's own type.

        The field `kept` of the outputs stacks `keep(state)` of every iteration.
        """

    def infer(
        self,
        model: BoundModel,
        rows: Batch,
        state: State,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[State, Any]:
        """The step in evaluation. A rule sets `infer = step` if it is the same."""

    def loss(self, outputs: Any, rows: Batch) -> RowLosses:
        """The losses and scores of each row."""

    def answer(self, outputs: Any) -> StepOutput:
        """What halting, metrics and votes read."""
