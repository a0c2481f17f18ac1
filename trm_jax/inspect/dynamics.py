# SPDX-License-Identifier: Apache-2.0
"""How the latents of a trained run move, loop by loop, and whether they collapse.

python -m trm_jax.inspect.dynamics WORKDIR [--step=N] [--loops=K] [--rows=R] [--out=D]

A loop is one supervision step of an evaluation. By default there are four times as many
loops as training had at most, on the first 512 test puzzles. WORKDIR/dynamics (or the
folder D) gets step_N.json, with all numbers and the verdict with its thresholds, and
step_N.png. `loop_measures.py` defines the numbers.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from trm_jax.beside import pipeline
from trm_jax.errors import ConfigError
from trm_jax.evaluation.evaluate import Weights, make_single_step
from trm_jax.inspect import style
from trm_jax.inspect.loop_measures import (
    THRESHOLDS,
    answer_measures,
    motion_measures,
    state_measures,
    verdict,
)
from trm_jax.inspect.opened import command, opened
from trm_jax.inspect.trace import on_host
from trm_jax.rules.base import answer_latent, innermost
from trm_jax.training.step import Recipe
from trm_jax.types import Batch, Params

PANELS = (
    ("share correct", ("exact", "cell_accuracy")),
    ("entropy of cells, nats", ("entropy",)),
    ("norm (RMS), relative motion", ("norm", "motion")),
    ("cosine", ("cosine", "input_cosine", "input_cosine_pooled", "token_cosine")),
    ("effective rank", ("effective_rank",)),
)
VERDICT_READS = ("exact", "entropy", "input_cosine", "effective_rank", "motion")


def loop_states(
    recipe: Recipe, weights: Weights, batches: list[Batch], *, loops: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the latents that the heads read `n l d` and the logits `n m v` per loop.

    All batches have the same number of rows; n counts the rows of all of them.
    """
    size = len(batches[0].weight)
    first, step = make_single_step(recipe, num_steps=loops, seed=seed)
    numbers = [jnp.arange(i * size, (i + 1) * size) for i in range(len(batches))]
    rows = list(zip(batches, numbers, strict=True))
    carries = [first(weights, *each) for each in rows]
    for _ in range(loops):
        states, logits = [], []
        for i, of_batch in enumerate(numbers):
            carries[i], answer, _ = step(weights, of_batch, carries[i])
            states.append(on_host(answer_latent(carries[i].state)))
            logits.append(np.asarray(answer.logits))
        yield np.concatenate(states), np.concatenate(logits)


def cell_loss(rule: Any) -> str:
    """The kind of probabilities that a rule trains; chains have those of their rule."""
    return getattr(innermost(rule), "cell_loss", "softmax")


def measure(
    recipe: Recipe, weights: Weights, rows: list[Batch], *, loops: int, seed: int = 0
) -> list[dict[str, Any]]:
    """The measures of every loop, from 1 on. Motion is that from the loop before.

    Rows of weight 0 and rows without labels are left out. Raises ConfigError if fewer
    than two rows remain.
    """
    every = [np.concatenate([np.asarray(b[i]) for b in rows]) for i in range(5)]
    _, labels, mask, _, weight = every
    kept = (weight > 0) & mask.any(-1)
    if kept.sum() < 2:
        raise ConfigError("the test set has fewer than 2 puzzles with solutions")
    labels, mask = labels[kept], mask[kept]
    loss = cell_loss(recipe.rule)
    found: list[dict[str, Any]] = []
    before = None
    for z, logits in loop_states(recipe, weights, rows, loops=loops, seed=seed):
        z = z[kept]
        one = answer_measures(logits[kept], labels, mask, loss=loss)
        one |= state_measures(z)
        if before is not None:
            one |= motion_measures(before, z)
        found.append({"loop": len(found) + 1} | one)
        before = z
    return found


def report(
    workdir: str | Path,
    *,
    step: int | None = None,
    loops: int | None = None,
    rows: int = 512,
) -> dict[str, Any]:
    """Measures and verdict of a checkpoint of a run (None: the newest), as written.

    Raises the errors of reading a run and its data, also if its test set has changed.
    """
    with opened(workdir, step=step, rows=rows) as run:
        measured = measure(
            run.built.recipe,
            run.weights,
            run.rows,
            loops=loops or run.loops,
            seed=run.built.run.eval.seed,
        )
        facts = run.facts | gates(run.weights[0])
    # The first loop has no motion: the verdict reads the last one alone.
    names = {name: [one.get(name, 0.0) for one in measured] for name in VERDICT_READS}
    found = {**verdict(names), "thresholds": THRESHOLDS, "loops": measured}
    return facts | found


def gates(params: Params) -> dict[str, dict[str, float]]:
    """The least and the largest gate of a lifeline (rules/loop.py), if there is one."""
    own = params.get("rule", {})
    if "lifeline" not in own:
        return {}
    gate = 1 / (1 + np.exp(-np.asarray(own["lifeline"], np.float64)))
    return {"gates": {"least": float(gate.min()), "most": float(gate.max())}}


def draw(found: dict[str, Any], path: Path) -> None:
    """One panel per kind of measure, over loops; a line marks the loops of training."""
    loops = [one["loop"] for one in found["loops"]]
    with style.picture(path, 1, len(PANELS), size=(14.0, 2.9)) as (figure, axes):
        for axis, (label, names) in zip(axes[0], PANELS, strict=True):
            for index, name in enumerate(names):
                values = [one.get(name, np.nan) for one in found["loops"]]
                words = name.replace("_", " ")
                axis.plot(loops, values, label=words, **style.line_style(index))
            axis.axvline(found["training_loops"], color=style.GREY, linestyle=":")
            axis.set(xlabel="loop (dotted: most in training)", ylabel=label)
            if len(names) > 1:
                axis.legend()
        title = f"{found['workdir']}, step {found['step']}: {found['verdict']}"
        figure.suptitle(title, fontsize=10)


def as_text(found: dict[str, Any]) -> str:
    """The verdict, its thresholds and some of the loops, for a terminal."""
    names = ("exact", "entropy", "norm", "motion", "input_cosine", "effective_rank")
    lines = [f"{'loop':>5} " + " ".join(f"{name:>14}" for name in names)]
    for one in found["loops"]:
        if one["loop"] & (one["loop"] - 1) == 0 or one is found["loops"][-1]:
            numbers = (f"{one.get(name, np.nan):14.4f}" for name in names)
            lines.append(f"{one['loop']:5d} " + " ".join(numbers))
    limits = ", ".join(f"{k} {v:g}" for k, v in found["thresholds"].items())
    best, lost = found["best_loop"], found["overthink"]
    lines.append(
        f"{found['verdict']}: most exact at loop {best}, {lost:.4f} less at the end; "
        f"training had {found['training_loops']} loops"
    )
    return "\n".join([*lines, f"thresholds: {limits}"])


if __name__ == "__main__":
    main = partial(
        command, "dynamics", count="loops", report=report, draw=draw, as_text=as_text
    )
    pipeline("console").run(main)
