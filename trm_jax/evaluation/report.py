# SPDX-License-Identifier: Apache-2.0
"""Evaluation rows -> the numbers of a report: overall, by step, by row attribute."""

from typing import Any

import numpy as np

from trm_jax.evaluation.evaluate import EvalOutput
from trm_jax.evaluation.voting import wilson_interval


def share(name: str, right: np.ndarray) -> dict[str, Any]:
    """The share of true values, and its 95 % interval as `<name>_95`."""
    value = float(right.mean())
    return {name: value, f"{name}_95": wilson_interval(value, len(right))}


def summary(output: EvalOutput) -> dict[str, Any]:
    """Accuracies of the last step, with the interval of the exact one."""
    rows = output.has_labels
    exact = np.asarray(output.all_right[-1][rows])
    halts = output.q_halt[-1][rows] >= 0
    return {
        "puzzles": len(exact),
        **share("exact_accuracy", exact),
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
            "halted": float(output.wants_halt[step][rows].mean()),
        }
        for step in range(len(output.all_right))
    ]


def halting(output: EvalOutput) -> dict[str, Any]:
    """When rows first want to halt, and the accuracy if each stopped there.

    `first` counts the rows by supervision step, from step 1 on. A row that never wants
    to halt is counted in `never` and stops after the last step.
    """
    wants = np.asarray(output.wants_halt)[:, output.has_labels]
    stops, never = wants.argmax(0), ~wants.any(0)
    at = np.where(never, len(wants) - 1, stops)
    exact = np.asarray(output.all_right)[:, output.has_labels]
    return {
        "first": np.bincount(stops[~never], minlength=len(wants)).tolist(),
        "never": int(never.sum()),
        "mean_steps": float(at.mean() + 1),
        "exact_accuracy": float(exact[at, np.arange(len(at))].mean()),
    }


def calibration(output: EvalOutput, *, num_bins: int = 10) -> dict[str, Any]:
    """How often answers are right, by the halting probability after the last step.

    `ece` is the expected calibration error: the mean distance between the probability
    and the share of right answers in its bin. Bins have equal widths; empty bins are
    left out.
    """
    rows = output.has_labels
    sure = probability(np.asarray(output.q_halt[-1][rows], np.float64))
    right = np.asarray(output.all_right[-1][rows])
    of_row = np.minimum((sure * num_bins).astype(int), num_bins - 1)
    bins = []
    for number in np.unique(of_row):
        inside = of_row == number
        bins.append(
            {
                "from": number / num_bins,
                "to": (number + 1) / num_bins,
                "puzzles": int(inside.sum()),
                "probability": float(sure[inside].mean()),
                **share("exact_accuracy", right[inside]),
            }
        )
    gaps = [b["puzzles"] * abs(b["probability"] - b["exact_accuracy"]) for b in bins]
    return {"ece": sum(gaps) / len(right), "bins": bins}


def probability(logits: np.ndarray) -> np.ndarray:
    """The sigmoid, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits))


def by_attribute(
    output: EvalOutput, values: np.ndarray, *, max_rows: int = 12
) -> list[dict[str, Any]]:
    """Accuracies by an attribute of the puzzle, `from` <= value <= `to` per row.

    Few values have one row each; many are grouped into ranges of about equal counts.
    """
    rows = output.has_labels
    values, exact = values[rows], np.asarray(output.all_right[-1][rows])
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
                **share("exact_accuracy", exact[inside]),
                "cell_accuracy": float(output.cells_right[-1][rows][inside].mean()),
            }
        )
    return table


def as_text(result: dict[str, Any]) -> str:
    """The result as lines for a terminal: the headline, then one table per `by_...`."""
    lines = [
        f"step {result['step']}, {result['weights']} weights, "
        f"{result['puzzles']} puzzles, {result['supervision_steps']} supervision steps",
        _headline("exact accuracy", result, "exact_accuracy", "whole grids right"),
        f"cell accuracy  {100 * result['cell_accuracy']:>6.2f} %   givens too",
    ]
    if "valid_accuracy" in result:
        lines.append(_headline("valid", result, "valid_accuracy", "breaking no rule"))
    if "vote_gain" in result:
        gain = result["vote_gain"]
        single = 100 * gain["single_pass"]["value"]
        changes = f"form 0: {single:.2f} %, +{gain['gained']} -{gain['lost']} by votes"
        lines.append(_headline("voted exact", result, "voted_accuracy", changes))
    if "voted_valid_accuracy" in result:
        lines.append(_headline("voted valid", result, "voted_valid_accuracy", ""))
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


def _headline(title: str, result: dict[str, Any], name: str, note: str) -> str:
    low, high = result[f"{name}_95"]
    return (
        f"{title:<14} {100 * result[name]:>6.2f} % "
        f"(95 %: {100 * low:.2f} to {100 * high:.2f})   {note}"
    ).rstrip()
