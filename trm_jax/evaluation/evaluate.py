# SPDX-License-Identifier: Apache-2.0
"""Evaluation: the supervision step, scanned to a fixed count without early halts."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from trm_jax.model.model import TRM
from trm_jax.rules.losses import row_losses
from trm_jax.training.sharding import in_mesh, own_rows, put_batch, puzzle_vectors
from trm_jax.training.supervision import init_carry, refill, supervision_step
from trm_jax.types import Batch, Carry, Params


class EvalOutput(NamedTuple):
    """Row results; `s` counts supervision steps."""

    predictions: Int[Array, "b m"]  # after the last step
    q_halt: Float[Array, "s b"]
    cells_right: Float[Array, "s b"]  # share of the labelled cells
    all_right: Bool[Array, "s b"]
    cell_loss: Float[Array, "s b"]
    has_labels: Bool[Array, " b"]


PER_STEP = ("q_halt", "cells_right", "all_right", "cell_loss")
EvalStep = Callable[[Params, Params, Array, Batch], EvalOutput]


def make_eval_step(model: TRM, mesh: Mesh, *, num_steps: int, loss: str) -> EvalStep:
    """Compiled (params, constants, puzzle_table, batch) -> EvalOutput, on the mesh."""
    everywhere = NamedSharding(mesh, P())

    def eval_step(
        params: Params, constants: Params, table: Array, batch: Batch
    ) -> EvalOutput:
        num_rows = batch.weight.shape[0]
        params = jax.lax.with_sharding_constraint(params, everywhere)
        carry = refill(init_carry(model.config, num_rows), batch, constants)
        vectors = puzzle_vectors(table, carry.batch.puzzle_id)
        never = jnp.full(num_rows, num_steps, jnp.int32)

        def step(carry: Carry, _: None) -> tuple[Carry, tuple[Array, ...]]:
            carry, output = supervision_step(
                model, params, vectors, carry, never, max_steps=num_steps
            )
            rows = row_losses(output, carry.batch, loss=loss)
            scores = (output.q_halt, rows.cells_right, rows.all_right, rows.cell_loss)
            return carry, scores

        carry, scores = jax.lax.scan(step, carry, length=num_steps)
        last: Any = model.apply({"params": params}, carry.y, method="predict")
        predictions = last.logits.argmax(-1)
        has_labels = carry.batch.label_mask.any(-1)
        q, cells, right, cell_loss = scores
        return EvalOutput(predictions, q, cells, right, cell_loss, has_labels)

    # Each process gets the rows of all.
    return jax.jit(in_mesh(eval_step, mesh), out_shardings=everywhere)


def evaluate(
    eval_step: EvalStep,
    weights: tuple[Params, Params, Array],
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: Mesh,
) -> Iterator[EvalOutput]:
    """The rows of each batch, on every host, without padding.

    `weights` are (params or their average, constants, puzzle table); `batches` hold the
    fields of Batch.
    """
    for rows in batches:
        own = own_rows(mesh, len(rows["weight"]))
        batch = put_batch({name: array[own] for name, array in rows.items()}, mesh)
        output = jax.device_get(eval_step(*weights, batch))
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


def answers_by_step(
    model: TRM, weights: tuple[Params, Params, Array], batch: Batch, *, num_steps: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """After each supervision step: predictions `b m` and q_halt `b`, on the host."""
    params, constants, table = weights
    # Outside of the jitted step: the whole table would become one of its constants.
    vectors = puzzle_vectors(table, batch.puzzle_id)

    @jax.jit
    def step(carry: Carry) -> tuple[Carry, Array, Array]:
        never = jnp.full(carry.steps.shape, num_steps, jnp.int32)
        carry, output = supervision_step(
            model, params, vectors, carry, never, max_steps=num_steps
        )
        return carry, output.logits.argmax(-1), output.q_halt

    carry = refill(init_carry(model.config, len(batch.weight)), batch, constants)
    for _ in range(num_steps):
        carry, predictions, q_halt = step(carry)
        yield np.asarray(predictions), np.asarray(q_halt)
