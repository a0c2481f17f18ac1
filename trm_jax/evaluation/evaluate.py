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

from trm_jax.rules.base import Keep
from trm_jax.training.sharding import (
    in_mesh,
    own_rows,
    put_batch,
    put_rows,
    puzzle_vectors,
)
from trm_jax.training.step import Recipe
from trm_jax.training.supervision import (
    EVAL,
    begin,
    bind,
    init_carry,
    refill,
    row_keys,
    seed_key,
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
    has_labels: Bool[Array, " b"]


PER_STEP = ("q_halt", "wants_halt", "cells_right", "all_right", "cell_loss")
EvalStep = Callable[[Weights, Batch, Array], EvalOutput]
FirstCarry = Callable[[Weights, Batch, Array], Carry]
SingleStep = Callable[[Weights, Array, Carry], tuple[Carry, StepOutput, Any]]


def make_eval_step(
    recipe: Recipe, mesh: Mesh, *, num_steps: int, seed: int = 0
) -> EvalStep:
    """Return the jitted (weights, batch, row numbers `b`) -> EvalOutput, on the mesh.

    The number of a row is its position in the whole evaluation. The random draws of a
    rule for a row depend only on (seed, number, step).
    """
    everywhere = NamedSharding(mesh, P())

    def eval_step(weights: Weights, batch: Batch, numbers: Array) -> EvalOutput:
        *replicated, table = weights
        params, constants = jax.lax.with_sharding_constraint(replicated, everywhere)
        start, step = stepper(
            recipe, (params, constants, table), batch, numbers, num_steps, seed
        )

        def scored(at: tuple[Carry, Array], _: None) -> Any:
            carry, outputs = step(at[0])
            rows = recipe.rule.loss(outputs, batch)
            answer = recipe.rule.answer(outputs)
            halting = answer.q_halt, answer.wants_halt
            scores = rows.cells_right, rows.all_right, rows.cell_loss
            return (carry, answer.logits.argmax(-1)), (*halting, *scores)

        at = start, jnp.zeros(batch.inputs.shape, int)
        (_, predictions), scores = jax.lax.scan(scored, at, length=num_steps)
        by_step = dict(zip(PER_STEP, scores, strict=True))
        return EvalOutput(predictions, **by_step, has_labels=batch.label_mask.any(-1))

    # Every process receives the rows of all processes.
    return jax.jit(in_mesh(eval_step, mesh), out_shardings=everywhere)


def stepper(
    recipe: Recipe,
    weights: Weights,
    batch: Batch,
    numbers: Array,
    num_steps: int,
    seed: int,
    keep: Keep | None = None,
) -> tuple[Carry, Callable[[Carry], tuple[Carry, Any]]]:
    """Return the first carry of an evaluation of these rows, and its step function."""
    params, constants, table = weights
    rule, num_rows = recipe.rule, batch.weight.shape[0]
    vectors = puzzle_vectors(table, batch.puzzle_id)
    model = bind(rule, recipe.model, params, constants, vectors)
    carry = init_carry(
        rule, recipe.model, (params, constants), num_rows, training=False
    )
    never = jnp.full(num_rows, num_steps, jnp.int32)
    fold_in = jax.vmap(jax.random.fold_in)
    # Fold in the number of the restart, always 0: an evaluation starts a row once.
    keys = fold_in(
        row_keys(seed_key(seed, EVAL), numbers), jnp.zeros(num_rows, jnp.int32)
    )

    def step(carry: Carry) -> tuple[Carry, Any]:
        return supervision_step(
            rule,
            model,
            carry,
            fold_in(keys, carry.steps),
            never,
            jnp.zeros((), jnp.int32),
            max_steps=num_steps,
            training=False,
            keep=keep,
        )

    carry = refill(carry, batch)
    return begin(rule, model, carry, fold_in(keys, carry.steps), training=False), step


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
