# SPDX-License-Identifier: Apache-2.0
"""What a recursion rule is: the one object that says what recurs.

A rule is a frozen dataclass whose fields are its section of the config. Adding one is
a file in this folder and an entry in `RULES` (`rules/__init__.py`).
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


class Clock(NamedTuple):
    """Where a row stands in its supervision, and training in its course."""

    step: Int[Array, " b"]  # supervision steps done on the row
    num_steps: int  # how many there will be at most
    update: Int[Array, ""]  # optimiser updates done; 0 in evaluation


@runtime_checkable
class Rule(Protocol):
    """One recursion. `keys` holds one typed key per row, fresh in every step.

    Every draw of a row comes from its own key, so that no draw depends on the mesh, on
    micro-batches or on the rows beside it. `rows` is the batch being worked on.
    """

    networks: ClassVar[tuple[str, ...]]  # their names; each has weights of its own
    metrics: ClassVar[tuple[str, ...]]  # names that `loss` adds to those of all rules
    no_decay: ClassVar[tuple[str, ...]]  # own parameters without weight decay

    def module(self, config: ModelConfig) -> nn.Module | None:
        """Parameters of the rule's own, touched by a call without arguments.

        They are stored under params["rule"] and come back, bound, as `model.own`.
        """

    def constants(self, key: Array, config: ModelConfig) -> Params:
        """Arrays drawn once and saved with the model, for instance the first states."""

    def start(
        self, model: BoundModel, rows: Batch, keys: Array, *, training: bool
    ) -> State:
        """Where a row begins. It may read labels only when training."""

    def step(
        self,
        model: BoundModel,
        rows: Batch,
        state: State,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[State, Any]:
        """One supervision step: the next state, and outputs of the rule's own kind.

        `keep(state)` of every iteration is part of the outputs, stacked, as `kept`.
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
        """The step of evaluation. Rules write `infer = step` where nothing differs."""

    def loss(self, outputs: Any, rows: Batch) -> RowLosses:
        """The losses and scores of each row."""

    def answer(self, outputs: Any) -> StepOutput:
        """What halting, metrics and votes read."""
