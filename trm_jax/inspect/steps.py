# SPDX-License-Identifier: Apache-2.0
"""Accuracy by number of supervision steps, beyond those of training.

python -m trm_jax.inspect.steps WORKDIR [--step=N] [--steps=K] [--rows=R] [--out=D]

By default there are four times as many steps as training had at most, on the first 512
test puzzles. WORKDIR/steps (or the folder D) gets step_N.json, with the accuracies, the
95 % intervals and the overthinking gap, and step_N.png.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax.beside import pipeline
from trm_jax.errors import ConfigError
from trm_jax.evaluation.evaluate import EvalOutput, evaluate, joined, make_eval_step
from trm_jax.evaluation.report import by_step
from trm_jax.evaluation.voting import wilson_interval
from trm_jax.inspect import style
from trm_jax.inspect.loop_measures import overthinking
from trm_jax.inspect.opened import command, opened


def accuracy_by_step(output: EvalOutput) -> dict[str, Any]:
    """Accuracies after 1, 2, 3, ... supervision steps, and the overthinking gap.

    `by_step` lists exact accuracy with its 95 % interval (Wilson, over puzzles) and
    cell accuracy. `overthink` is the exact accuracy of `best_step`, the first of the
    most exact steps, less that of the last step. Raises ConfigError if no row has a
    solution.
    """
    if not (puzzles := int(output.has_labels.sum())):
        raise ConfigError("the test set has no puzzles with solutions")
    rows = by_step(output)
    for row in rows:
        row["exact_accuracy_95"] = wilson_interval(row["exact_accuracy"], puzzles)
    best, gap = overthinking(np.array([row["exact_accuracy"] for row in rows]))
    return {
        "puzzles": puzzles,
        "best_step": best + 1,
        "overthink": gap,
        "by_step": rows,
    }


def report(
    workdir: str | Path,
    *,
    step: int | None = None,
    steps: int | None = None,
    rows: int = 512,
) -> dict[str, Any]:
    """`accuracy_by_step` of a checkpoint of a run (None: the newest), as written.

    Raises the errors of reading a run and its data.
    """
    with opened(workdir, step=step, rows=rows) as run:
        built, num_steps = run.built, steps or run.loops
        eval_step = make_eval_step(
            built.recipe, built.mesh, num_steps=num_steps, seed=built.run.eval.seed
        )
        parts = evaluate(eval_step, run.weights, run.batches, built.mesh)
        return run.facts | accuracy_by_step(joined([*parts]))


def draw(found: dict[str, Any], path: Path) -> None:
    """Both accuracies over steps; a line marks the steps of training."""
    steps = [row["steps"] for row in found["by_step"]]
    with style.picture(path, size=(5.0, 3.0)) as (figure, axes):
        axis = axes[0, 0]
        for index, name in enumerate(("exact_accuracy", "cell_accuracy")):
            values = [100 * row[name] for row in found["by_step"]]
            look = style.line_style(index)
            axis.plot(steps, values, label=name.replace("_", " "), **look)
        ends = 100 * np.array([row["exact_accuracy_95"] for row in found["by_step"]])
        band = {"color": style.COLORS[0], "alpha": 0.2, "linewidth": 0}
        axis.fill_between(steps, *ends.T, label="95 % interval", **band)
        axis.axvline(found["training_loops"], color=style.GREY, linestyle=":")
        axis.set(xlabel="supervision steps (dotted: most in training)", ylabel="%")
        axis.legend()
        figure.suptitle(f"{found['workdir']}, step {found['step']}", fontsize=10)


def as_text(found: dict[str, Any]) -> str:
    """Some of the steps, and the gap, for a terminal."""
    rows = found["by_step"]
    lines = [f"{'steps':>5} {'exact %':>9} {'95 %':>16} {'cells %':>9}"]
    shown = {2**i for i in range(len(rows))} | {found["best_step"], len(rows)}
    for row in rows:
        if row["steps"] in shown:
            low, high = (100 * end for end in row["exact_accuracy_95"])
            lines.append(
                f"{row['steps']:5d} {100 * row['exact_accuracy']:9.2f} "
                f"{low:7.2f}..{high:6.2f}  {100 * row['cell_accuracy']:9.2f}"
            )
    lines.append(
        f"{found['puzzles']} puzzles; most exact after {found['best_step']} steps, "
        f"{100 * found['overthink']:.2f} points less at the end; "
        f"training had {found['training_loops']} steps"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main = partial(
        command, "steps", count="steps", report=report, draw=draw, as_text=as_text
    )
    pipeline("console").run(main)
