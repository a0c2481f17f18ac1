# SPDX-License-Identifier: Apache-2.0
"""Metrics are (sum, count) pairs until they are written: merging them is addition.

They are float32, or float64 in a model that computes in float64.
"""

import math
from collections.abc import Mapping
from datetime import timedelta

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from trm_jax.rules.losses import RowLosses
from trm_jax.types import Metrics, StepOutput

OVER_ALL_ROWS = ("loss", "cell_loss", "halt_loss")
OVER_STEPS = ("grad_norm", "skipped")  # "skipped": the share of the steps
OVER_HALTED_ROWS = ("cell_accuracy", "exact_accuracy", "halt_accuracy", "num_steps")


def zero_metrics(of_rule: tuple[str, ...]) -> Metrics:
    """Zero sums and counts of the common metrics and of the rule's own metrics."""
    names = (*OVER_ALL_ROWS, *of_rule, *OVER_HALTED_ROWS, *OVER_STEPS)
    # Each has its own buffer: a donated state may not hold one buffer twice.
    zeros = iter(jnp.zeros((2 * len(names), 1), float))
    return {name: (next(zeros)[0], next(zeros)[0]) for name in names}


def step_metrics(
    rows: RowLosses,
    output: StepOutput,
    steps: Int[Array, " b"],
    halted: Bool[Array, " b"],
    weight: Float[Array, " b"],
) -> Metrics:
    """Losses over every real row, scores over the labelled rows that just halted."""
    scored = jnp.where(halted & rows.has_labels, weight, 0)
    over_all = {
        "loss": rows.total,
        "cell_loss": rows.cell_loss,
        "halt_loss": rows.halt_loss,
        **rows.extra,
    }
    over_halted = {
        "cell_accuracy": rows.cells_right,
        "exact_accuracy": rows.all_right,
        "halt_accuracy": (output.q_halt >= 0) == rows.all_right,
        "num_steps": steps,
    }

    def total(values: Array, counted: Array) -> tuple[Array, Array]:
        pair = (counted * values).sum(), counted.sum()
        return jax.tree.map(lambda s: s.astype(float), pair)

    sums = {name: total(values, weight) for name, values in over_all.items()}
    return sums | {name: total(v, scored) for name, v in over_halted.items()}


def add_metrics(a: Metrics, b: Metrics) -> Metrics:
    """Merge the counts of two steps, micro-batches or hosts."""
    return jax.tree.map(jnp.add, a, b)


def mean_metrics(metrics: Metrics) -> dict[str, float | None]:
    """Fetch and divide; None where nothing was counted."""
    host = jax.device_get(metrics)
    return {k: float(s / n) if n else None for k, (s, n) in host.items()}


def all_finite(metrics: Metrics) -> Bool[Array, ""]:
    """Whether no sum is NaN or infinite."""
    return jnp.isfinite(jnp.stack([total for total, _ in metrics.values()])).all()


def unless_skipped(ok: Bool[Array, ""], metrics: Metrics) -> Metrics:
    """The metrics of a step; if not `ok`, only that it was skipped."""
    counted = jax.tree.map(lambda s: jnp.where(ok, s, 0), metrics)
    skipped = (~ok).astype(float), jnp.ones((), float)
    return counted | {"skipped": skipped}


def log_line(
    step: int, last: int, means: Mapping[str, float | None], steps_per_s: float
) -> str:
    """The progress of a run, in a line of at most 80 columns."""
    shown = {"loss": ("loss", "{:.4f}"), "cells": ("cell_accuracy", "{:.1%}")}
    shown |= {"exact": ("exact_accuracy", "{:.1%}")}
    parts = [f"step {step}/{last}"]
    for word, (name, form) in shown.items():
        if (value := means[name]) is not None:  # None: nothing was counted
            parts.append(f"{word} {form.format(value)}")
    eta = clock_time((last - step) / steps_per_s)
    return "  ".join([*parts, f"{steps_per_s:.3g}/s", f"ETA {eta}"])


def clock_time(seconds: float) -> str:
    """Seconds as [days,] h:mm:ss; `?` for a number that is not finite."""
    return str(timedelta(seconds=round(seconds))) if math.isfinite(seconds) else "?"
