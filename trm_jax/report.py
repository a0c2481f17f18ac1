# SPDX-License-Identifier: Apache-2.0
"""Evaluation rows -> the numbers of a report: overall, by step, by row attribute."""

import math
from typing import Any

import numpy as np

from trm_jax.evaluate import EvalOutput


def wilson_interval(successes: int, trials: int) -> list[float]:
    """95 % interval of a share (Wilson 1927)."""
    z, p = 1.959964, successes / trials
    centre = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    return [(centre + sign * half) / (1 + z * z / trials) for sign in (-1, 1)]


def summary(output: EvalOutput) -> dict[str, Any]:
    """Accuracies of the last step, with the interval of the exact one."""
    rows = output.has_labels
    exact = output.all_right[-1][rows]
    halts = output.q_halt[-1][rows] >= 0
    return {
        "puzzles": len(exact),
        "exact_accuracy": float(exact.mean()),
        "exact_accuracy_95": wilson_interval(int(exact.sum()), len(exact)),
        "cell_accuracy": float(output.cells_right[-1][rows].mean()),
        "cell_loss": float(output.cell_loss[-1][rows].mean()),
        "halt_accuracy": float((halts == exact).mean()),
    }


def by_step(output: EvalOutput) -> list[dict[str, Any]]:
    """Accuracies after 1, 2, 3, ... supervision steps."""
    rows = output.has_labels
    return [
        {
            "steps": step + 1,
            "exact_accuracy": float(output.all_right[step][rows].mean()),
            "cell_accuracy": float(output.cells_right[step][rows].mean()),
            "halted": float((output.q_halt[step][rows] > 0).mean()),
        }
        for step in range(len(output.all_right))
    ]


def by_attribute(
    output: EvalOutput, values: np.ndarray, *, max_rows: int = 12
) -> list[dict[str, Any]]:
    """Accuracies by a fact about the puzzle, `from` <= value <= `to` per row.

    Every value is its own row where there are few, else ranges of about equal counts.
    """
    rows = output.has_labels
    values = values[rows]
    starts = np.unique(values)
    if len(starts) > max_rows:
        cuts = np.linspace(0, 1, max_rows, endpoint=False)
        starts = np.unique(np.quantile(values, cuts, method="nearest"))
    bucket = np.searchsorted(starts, values, side="right") - 1
    table = []
    for i in range(len(starts)):
        inside = bucket == i
        table.append(
            {
                "from": int(values[inside].min()),
                "to": int(values[inside].max()),
                "puzzles": int(inside.sum()),
                "exact_accuracy": float(output.all_right[-1][rows][inside].mean()),
                "cell_accuracy": float(output.cells_right[-1][rows][inside].mean()),
            }
        )
    return table


def as_text(result: dict[str, Any]) -> str:
    """The result as lines for a terminal: the headline, then one table per `by_...`."""
    low, high = result["exact_accuracy_95"]
    lines = [
        f"step {result['step']}, {result['weights']} weights, "
        f"{result['puzzles']} puzzles, {result['supervision_steps']} supervision steps",
        f"exact accuracy {100 * result['exact_accuracy']:.2f} % "
        f"(95 %: {100 * low:.2f} to {100 * high:.2f})   whole grids right",
        f"cell accuracy  {100 * result['cell_accuracy']:.2f} %   givens too",
    ]
    for name in [key for key in result if key.startswith("by_")]:
        title = name.removeprefix("by_").replace("step", "supervision steps")
        lines.append(f"\n{title:<20} puzzles   exact %    cell %")
        rows = result[name]
        if name == "by_step":  # 1, 2, 4, 8, ... and the last
            shown = {2**i for i in range(len(rows))} | {len(rows)}
            rows = [row for row in rows if row["steps"] in shown]
        for row in rows:
            ends = dict.fromkeys(
                str(row[k]) for k in ("from", "to", "steps") if k in row
            )
            puzzles = row.get("puzzles", result["puzzles"])
            lines.append(
                f"{'-'.join(ends):<20} {puzzles:>7} {100 * row['exact_accuracy']:>9.2f}"
                f" {100 * row['cell_accuracy']:>9.2f}"
            )
    return "\n".join(lines)
