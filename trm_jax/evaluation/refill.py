# SPDX-License-Identifier: Apache-2.0
"""Evaluation with refill: halted rows leave, and new puzzles take their places.

A row halts after the last step, or as soon as the rule wants it to and the halting
probability is high enough. Its answer is the one of that step, as for a fixed batch
under the same halting rule: its draws depend on its number and its own steps, never on
its place in the batch or on the other rows.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Int

from trm_jax.errors import ConfigError
from trm_jax.evaluation.calls import needs_num_steps
from trm_jax.evaluation.chains import PLAIN, Chains, Trail, no_trail
from trm_jax.evaluation.evaluate import (
    PER_STEP,
    EvalOutput,
    Numbered,
    Weights,
    joined,
    score,
    stepper,
    take_rows,
)
from trm_jax.training.sharding import in_mesh, own_rows, put_batch, put_rows
from trm_jax.training.step import Recipe
from trm_jax.training.supervision import init_carry, refill
from trm_jax.types import BATCH_AXES, Batch, Carry


class Stepped(NamedTuple):
    """What one supervision step gave for each row of the batch."""

    predictions: Int[Array, "b m"]
    by_step: tuple[Array, ...]  # the values of PER_STEP, `b` each
    has_labels: Bool[Array, " b"]
    halted: Bool[Array, " b"]


class Refilled(NamedTuple):
    """An evaluation with refill, as two compiled functions on a mesh."""

    first: Callable[[Weights, int], tuple[Carry, Trail]]
    step: Callable[..., tuple[tuple[Carry, Trail], Stepped]]
    num_steps: int
    mesh: Mesh


def make_refilled(
    recipe: Recipe,
    mesh: Mesh,
    *,
    num_steps: int,
    seed: int = 0,
    chains: Chains = PLAIN,
    probability: float = 0.0,
) -> Refilled:
    """Compile a step of an evaluation with refill. ConfigError for clouds and flows.

    `step` maps (weights, (carry, trail), batch, row numbers) to the next carry and
    trail, and what the step gave. Only halted rows take the puzzle of the batch.
    Where a row does not halt because sigmoid(q_halt) < `probability`, the results say
    that it does not want to.
    """
    if chains.cloud > 1:
        raise ConfigError(
            "--refill: the particles of a guided search share their steps; expected "
            "another search"
        )
    if needs_num_steps(recipe):
        raise ConfigError(
            "--refill: the rule samples in a fixed number of steps; expected a rule "
            "that may halt, which a flow may not"
        )
    rule, config = recipe.rule, recipe.model.config
    everywhere, rows = NamedSharding(mesh, P()), NamedSharding(mesh, P(BATCH_AXES))

    def first(weights: Weights, num_rows: int) -> tuple[Carry, Trail]:
        start = init_carry(rule, recipe.model, weights[:2], num_rows, training=False)
        return start, no_trail(config, num_rows)

    def step(
        weights: Weights, at: tuple[Carry, Trail], batch: Batch, numbers: Array
    ) -> tuple[tuple[Carry, Trail], Stepped]:
        *replicated, table = weights
        params, constants = jax.lax.with_sharding_constraint(replicated, everywhere)
        carry, trail = refill(at[0], batch), at[1]
        _, next_step = stepper(
            recipe,
            (params, constants, table),
            carry.batch,
            numbers,
            num_steps,
            seed,
            chains=chains,
            halts=True,
        )
        carry, outputs = next_step(carry)
        trail, predictions, scores = score(rule, outputs, carry, trail)
        q_halt, wants_halt, *others = scores
        wants_halt &= q_halt >= least_logit(probability)
        carry = carry._replace(halted=wants_halt | (carry.steps >= num_steps))
        scores = q_halt, wants_halt, *others
        labelled = carry.batch.label_mask.any(-1)
        return (carry, trail), Stepped(predictions, scores, labelled, carry.halted)

    return Refilled(
        jax.jit(in_mesh(first, mesh), static_argnums=1, out_shardings=rows),
        jax.jit(
            in_mesh(step, mesh), out_shardings=(rows, everywhere), donate_argnums=1
        ),
        num_steps,
        mesh,
    )


def least_logit(probability: float) -> float:
    """The q_halt whose sigmoid is `probability`, infinite for 0 and 1."""
    if probability in (0.0, 1.0):
        return math.copysign(math.inf, probability - 0.5)
    return math.log(probability) - math.log1p(-probability)


def evaluate_refilled(
    refilled: Refilled, weights: Weights, batches: Iterable[Numbered]
) -> Iterator[EvalOutput]:
    """Yield the results for all rows of the batches, in order, without padding.

    As many rows are computed at once as a batch has. A row that has halted keeps its
    last values for the steps that it did not need.
    """
    at, slots = None, None
    for rows, numbers in batches:
        if slots is None:
            slots = _Slots(rows, numbers, refilled.num_steps)
            at = refilled.first(weights, len(numbers))
        slots.queue(rows, numbers)
        # All slots have rows until the last batch has come: a slot that has none cannot
        # be refilled later, unless it halts.
        while slots.waiting >= slots.free.sum():
            at = _advance(refilled, weights, at, slots)
            yield from slots.ready()
    while slots is not None and (slots.waiting or not slots.free.all()):
        at = _advance(refilled, weights, at, slots)
        yield from slots.ready()


def _advance(refilled: Refilled, weights: Weights, at: Any, slots: "_Slots") -> Any:
    """Fill the free slots, and do one step."""
    slots.fill()
    mesh = refilled.mesh
    own = own_rows(mesh, len(slots.place))
    batch = put_batch({name: rows[own] for name, rows in slots.rows.items()}, mesh)
    numbers = put_rows(slots.numbers[own].astype(np.int32), mesh)
    at, stepped = refilled.step(weights, at, batch, numbers)
    slots.record(jax.device_get(stepped))
    return at


class _Slots:
    """The rows in work, those that wait, and the results that are not yielded yet."""

    def __init__(
        self, rows: Mapping[str, np.ndarray], numbers: np.ndarray, num_steps: int
    ) -> None:
        count = len(numbers)
        self.rows = {name: np.zeros_like(array) for name, array in rows.items()}
        self.numbers = np.zeros_like(numbers)
        self.place = np.full(count, -1)  # position among all rows; -1: no row
        self.free = np.ones(count, bool)
        self._done = np.zeros(count, int)
        self._history: list[np.ndarray] | None = None
        self._num_steps = num_steps
        self._rows: list[tuple[dict[str, np.ndarray], np.ndarray]] = []
        self.waiting, self._arrived, self._yielded = 0, 0, 0
        self._finished: list[tuple[np.ndarray, EvalOutput]] = []

    def queue(self, rows: Any, numbers: np.ndarray) -> None:
        """Let the rows of a batch wait, without its padding."""
        real = rows["weight"] > 0
        self._rows.append(({k: v[real] for k, v in rows.items()}, numbers[real]))
        self.waiting += int(real.sum())

    def fill(self) -> None:
        """Put waiting rows into the free slots; the others compute on nothing."""
        empty = np.flatnonzero(self.free)
        slots, idle = np.split(empty, [min(self.waiting, len(empty))])
        self.place[idle], self.rows["weight"][idle] = -1, 0
        if len(slots):
            parts = [*zip(*self._rows, strict=True)]
            waiting = {k: np.concatenate([p[k] for p in parts[0]]) for k in self.rows}
            numbers, count = np.concatenate(parts[1]), len(slots)
            for name, array in waiting.items():
                self.rows[name][slots] = array[:count]
            self.numbers[slots] = numbers[:count]
            self._rows = [({k: v[count:] for k, v in waiting.items()}, numbers[count:])]
            self.waiting -= count
            self.place[slots] = self._arrived + np.arange(count)
            self._arrived += count
        self._done[empty] = 0

    def record(self, stepped: Stepped) -> None:
        """Keep the results of a step; rows that halted have finished."""
        if self._history is None:
            shape = self._num_steps, len(self.place)
            self._history = [np.zeros(shape, v.dtype) for v in stepped.by_step]
        slots = np.arange(len(self.place))
        for i, values in enumerate(stepped.by_step):
            self._history[i][self._done, slots] = values
        self._done += 1
        self.free = np.asarray(stepped.halted) | (self.place < 0)
        over = np.flatnonzero(self.free & (self.place >= 0))
        if not len(over):
            return
        # After its last step, a row repeats the values of that step.
        step = np.minimum(np.arange(self._num_steps)[:, None], self._done[over] - 1)
        fields: dict[str, Any] = {
            "predictions": np.asarray(stepped.predictions)[over].astype(np.uint8),
            "has_labels": np.asarray(stepped.has_labels)[over],
        }
        for name, history in zip(PER_STEP, self._history, strict=True):
            fields[name] = history[step, over]
        self._finished.append((self.place[over], EvalOutput(**fields)))

    def ready(self) -> Iterator[EvalOutput]:
        """Yield the finished rows that come next, at least a batch of them if more."""
        places = [place for place, _ in self._finished]
        last = self._arrived == self._yielded + sum(map(len, places))
        if not places or not (last or sum(map(len, places)) >= len(self.place)):
            return
        place = np.concatenate(places)
        order = np.argsort(place)
        output = take_rows(joined([rows for _, rows in self._finished]), order)
        expected = self._yielded + np.arange(len(place))
        count = int((place[order] == expected).sum())
        rest = np.arange(count, len(place))
        finished = place[order][rest], take_rows(output, rest)
        self._finished = [finished] * bool(len(rest))
        self._yielded += count
        if count:
            yield take_rows(output, np.arange(count))
