# SPDX-License-Identifier: Apache-2.0
"""Evaluation: a fixed number of supervision steps, scanned without early halting."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from trm_jax.evaluation.chains import (
    PLAIN,
    Chains,
    Trail,
    doubted,
    draw_keys,
    explored,
    no_trail,
    resampled,
    residual,
    split,
)
from trm_jax.rules.base import Keep, Rule
from trm_jax.training.sharding import (
    in_mesh,
    own_rows,
    put_batch,
    put_rows,
    puzzle_vectors,
)
from trm_jax.training.step import Recipe
from trm_jax.training.supervision import (
    begin,
    bind,
    init_carry,
    refill,
    supervision_step,
)
from trm_jax.types import Batch, Carry, Params, StepOutput

Weights = tuple[Params, Params, Array]  # parameters, constants, puzzle table
Numbered = tuple[Mapping[str, np.ndarray], np.ndarray]  # a batch and its row numbers


class EvalOutput(NamedTuple):
    """The results of each row; axis `s` counts supervision steps."""

    predictions: Int[Array, "b m"]  # after the last step
    q_halt: Float[Array, "s b"]
    wants_halt: Bool[Array, "s b"]
    cells_right: Float[Array, "s b"]  # correct share of the labelled cells
    all_right: Bool[Array, "s b"]
    cell_loss: Float[Array, "s b"]
    residual: Float[Array, "s b"]  # mean change of the logits over the last 3 steps
    doubt: Float[Array, "s b"]  # mean sigmoid(-q_halt) of the steps so far
    has_labels: Bool[Array, " b"]


PER_STEP = (
    *("q_halt", "wants_halt", "cells_right", "all_right", "cell_loss", "residual"),
    "doubt",
)
EvalStep = Callable[[Weights, Batch, Array], EvalOutput]
FirstCarry = Callable[[Weights, Batch, Array], Carry]
SingleStep = Callable[[Weights, Array, Carry], tuple[Carry, StepOutput, Any]]


def make_eval_step(
    recipe: Recipe,
    mesh: Mesh,
    *,
    num_steps: int,
    seed: int = 0,
    chains: Chains = PLAIN,
) -> EvalStep:
    """Return the jitted (weights, batch, row numbers `b`) -> EvalOutput, on the mesh.

    The number of a row is its position in the whole evaluation. Row numbers `b 2` also
    hold the number of a chain, which is 0 otherwise. The random draws for a row depend
    only on (seed, number, chain, step).
    """
    everywhere = NamedSharding(mesh, P())
    rule, config = recipe.rule, recipe.model.config

    def eval_step(weights: Weights, batch: Batch, numbers: Array) -> EvalOutput:
        *replicated, table = weights
        params, constants = jax.lax.with_sharding_constraint(replicated, everywhere)
        weights = params, constants, table
        start, step = stepper(
            recipe, weights, batch, numbers, num_steps, seed, chains=chains
        )

        def scored(at: tuple[Carry, Array, Trail], _: None) -> Any:
            carry, outputs = step(at[0])
            trail, predictions, scores = score(rule, outputs, carry, at[2])
            if chains.cloud > 1:  # `scores` belong to the rows before they are drawn
                keys = draw_keys(numbers, seed, carry.steps)
                kept = carry.state, trail
                state, trail = resampled(kept, scores[0], keys, chains.cloud)
                carry = carry._replace(state=state)
            return (carry, predictions, trail), scores

        num_rows = len(batch.weight)
        at = start, jnp.zeros(batch.inputs.shape, int), no_trail(config, num_rows)
        (_, predictions, _), scores = jax.lax.scan(scored, at, length=num_steps)
        by_step = dict(zip(PER_STEP, scores, strict=True))
        return EvalOutput(predictions, **by_step, has_labels=batch.label_mask.any(-1))

    # Every process receives the rows of all processes.
    return jax.jit(in_mesh(eval_step, mesh), out_shardings=everywhere)


def score(
    rule: Rule, outputs: Any, carry: Carry, trail: Trail
) -> tuple[Trail, Array, tuple[Array, ...]]:
    """The next trail, the predictions `b m`, and the values of PER_STEP, `b` each."""
    rows, answer = rule.loss(outputs, carry.batch), rule.answer(outputs)
    trail, change = residual(trail, answer.logits, carry.steps)
    trail = doubted(trail, answer.q_halt, carry.steps)
    halting = answer.q_halt, answer.wants_halt
    scores = rows.cells_right, rows.all_right, rows.cell_loss
    return trail, answer.logits.argmax(-1), (*halting, *scores, change, trail.doubt)


def stepper(
    recipe: Recipe,
    weights: Weights,
    batch: Batch,
    numbers: Array,
    num_steps: int,
    seed: int,
    keep: Keep | None = None,
    *,
    chains: Chains = PLAIN,
    halts: bool = False,
) -> tuple[Carry, Callable[[Carry], tuple[Carry, Any]]]:
    """Return the first carry of an evaluation of these rows, and its step function.

    With `halts`, a row halts when it wants to, otherwise only after `num_steps`.
    """
    params, constants, table = weights
    rule, num_rows = recipe.rule, batch.weight.shape[0]
    vectors = puzzle_vectors(table, batch.puzzle_id)
    model = bind(rule, recipe.model, params, constants, vectors)
    carry = init_carry(
        rule, recipe.model, (params, constants), num_rows, training=False
    )
    min_steps = jnp.full(num_rows, 0 if halts else num_steps, jnp.int32)

    def begun(carry: Carry) -> Carry:
        keys = draw_keys(numbers, seed, carry.steps)
        return begin(rule, model, carry, keys, training=False)

    def step(carry: Carry) -> tuple[Carry, Any]:
        keys = draw_keys(numbers, seed, carry.steps)
        if chains.random_starts or chains.noise:
            config = recipe.model.config
            carry = explored(chains, config, begun(carry), keys, split(numbers)[1])
        return supervision_step(
            rule,
            model,
            carry,
            keys,
            min_steps,
            jnp.zeros((), jnp.int32),
            max_steps=num_steps,
            training=False,
            keep=keep,
        )

    return begun(refill(carry, batch)), step


def evaluate(
    eval_step: EvalStep,
    weights: Weights,
    batches: Iterable[Numbered],
    mesh: Mesh,
) -> Iterator[EvalOutput]:
    """Yield the results for the rows of each batch, on every host, without padding.

    `batches` holds the fields of Batch and the number of each row.
    """
    for rows, numbers in batches:
        own = own_rows(mesh, len(rows["weight"]))
        batch = put_batch({name: array[own] for name, array in rows.items()}, mesh)
        number = put_rows(numbers[own].astype(np.int32), mesh)
        output = jax.device_get(eval_step(weights, batch, number))
        real_rows = take_rows(output, rows["weight"] > 0)
        tokens = real_rows.predictions.astype(np.uint8)  # vocabularies are small
        yield real_rows._replace(predictions=tokens)


def joined(parts: Sequence[EvalOutput]) -> EvalOutput:
    """The rows of all parts, in order."""
    fields: dict[str, Any] = {
        name: np.concatenate(
            [getattr(part, name) for part in parts], axis=1 if name in PER_STEP else 0
        )
        for name in EvalOutput._fields
    }
    return EvalOutput(**fields)


def take_rows(output: EvalOutput, rows: np.ndarray) -> EvalOutput:
    """Some of the rows, by number or by mask."""
    fields: dict[str, Any] = {
        name: array[:, rows] if name in PER_STEP else array[rows]
        for name, array in output._asdict().items()
    }
    return EvalOutput(**fields)


def make_single_step(
    recipe: Recipe, *, num_steps: int, seed: int = 0, keep: Keep | None = None
) -> tuple[FirstCarry, SingleStep]:
    """Return an evaluation in single steps, as two jitted functions on one device.

    The first maps (weights, batch, row numbers `b`) to the first carry. The second maps
    (weights, row numbers, carry) to the next carry, what the rule answers, and what
    `keep` returned for every iteration of the step.
    """

    @jax.jit
    @jax.threefry_partitionable(True)
    def first(weights: Weights, batch: Batch, numbers: Array) -> Carry:
        return stepper(recipe, weights, batch, numbers, num_steps, seed)[0]

    @jax.jit
    @jax.threefry_partitionable(True)
    def step(
        weights: Weights, numbers: Array, carry: Carry
    ) -> tuple[Carry, StepOutput, Any]:
        args = (recipe, weights, carry.batch, numbers, num_steps, seed, keep)
        carry, outputs = stepper(*args)[1](carry)
        return carry, recipe.rule.answer(outputs), outputs.kept

    return first, step
