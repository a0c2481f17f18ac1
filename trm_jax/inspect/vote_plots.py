# SPDX-License-Identifier: Apache-2.0
"""Figures of votes: `python -m trm_jax.inspect.vote_plots RUN... [--out=FILE.png]`.

The inputs are RUN/eval/step_*.json, as `coverage.vote_report` describes them, and the
pass@K in RUN/metrics.jsonl, which a run with config.eval.votes logs. Files of
ablations, which have a `-` in their names, are not read. Each run has a column with
pass@K over training steps, and with selection against coverage at the last step. The
last column compares the runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax.errors import ConfigError
from trm_jax.inspect import style
from trm_jax.inspect.plots import draw, figure_parser
from trm_jax.inspect.run_records import check_workdir, names_of, read_metrics
from trm_jax.runtime.workdir import read_json

OUTCOMES = (  # of a test input, by the rank of its correct answer
    ("right answer first", style.COLORS[5], lambda rank: rank == 0),
    ("found, not first", style.COLORS[4], lambda rank: rank > 0),
    ("not found", "#BBBBBB", lambda rank: rank < 0),
)


def read_reports(workdir: str | Path) -> list[dict[str, Any]]:
    """The reports of a run that hold votes, by step; ConfigError if none does."""
    check_workdir(workdir)
    folder = Path(workdir) / "eval"
    paths = [p for p in folder.glob("step_*.json") if "-" not in p.name]
    reports = [report for report in map(read_json, paths) if "pass_at" in report]
    if not reports:
        raise ConfigError(
            f"{folder} holds no step_*.json with votes; run eval.py first"
        )
    # A pooled report is sorted before the report of only its last step.
    return sorted(reports, key=lambda r: (r["step"], -len(r["pooled_steps"])))


def read_logged(workdir: str | Path) -> list[dict[str, Any]]:
    """Records of the evaluations with votes during training: step, eval/pass@K."""
    if not (Path(workdir) / "metrics.jsonl").exists():
        return []
    return [record for record in read_metrics(workdir) if "eval/pass@1" in record]


def plot_votes(workdirs: Sequence[str | Path], out: str | Path) -> None:
    """Write the figure. Raises ConfigError if a run has no evaluation with votes.

    Raises SaveError if it cannot be written, and ImportError without matplotlib.
    """
    reports = [read_reports(workdir) for workdir in workdirs]
    logged = [read_logged(workdir) for workdir in workdirs]
    runs = list(zip(names_of(workdirs), reports, strict=True))
    width = len(runs) + 1
    with style.picture(out, 2, width, size=(3.7 * width, 6.0)) as (_, axes):
        for index, (name, of_run) in enumerate(runs):
            _draw_curves(axes[0, index], name, of_run, logged[index])
            _draw_selection(axes[1, index], of_run[-1])
            _draw_over_k(axes[0, -1], name, of_run[-1], index)
        _draw_outcomes(axes[1, -1], [(name, of_run[-1]) for name, of_run in runs])
        right = max(axis.get_xlim()[1] for axis in axes[1, :-1])
        for axis in axes[1, :-1]:
            axis.set_xlim(0.8, right)
        top = max(axis.get_ylim()[1] for axis in axes[0])
        for axis in axes[0]:
            axis.set_ylim(0, min(top, 102))
            axis.set_ylabel("pass@K, %")


def _draw_curves(
    axis: Any,
    name: str,
    reports: Sequence[dict[str, Any]],
    logged: Sequence[dict[str, Any]],
) -> None:
    """All pass@K of a run over its steps, the largest K on top.

    Lines connect the evaluations during training, or those of eval.py if there are no
    others. Dots mark the evaluations of eval.py.
    """
    from matplotlib import colormaps

    ks = sorted(reports[-1]["pass_at"], key=int)
    colors = colormaps["viridis"](np.linspace(0, 0.9, len(ks)))
    for k, color in reversed(list(zip(ks, colors, strict=True))):
        had = [report for report in reports if k in report["pass_at"]]
        steps = [report["step"] for report in had]
        values = [100 * report["pass_at"][k]["value"] for report in had]
        dots = "o" if logged else "o-"
        axis.plot(steps, values, dots, color=color, markersize=4, label=f"pass@{k}")
        axis.plot(
            [record["step"] for record in logged],
            [100 * record.get(f"eval/pass@{k}", np.nan) for record in logged],
            color=color,
        )
        pooled = [len(report["pooled_steps"]) > 1 for report in had]
        axis.plot(
            np.compress(pooled, steps),
            np.compress(pooled, values),
            "o",
            color=color,
            markersize=4,
            markerfacecolor="white",
        )
    if any(len(report["pooled_steps"]) > 1 for report in reports):
        name += "\n(white: steps pooled)"
    axis.set(title=name, xlabel="training step")
    axis.legend()


def _draw_over_k(axis: Any, name: str, report: dict[str, Any], index: int) -> None:
    """pass@K over K, with its 95 % interval."""
    ks = sorted(report["pass_at"], key=int)
    shares = [report["pass_at"][k] for k in ks]
    places = [int(k) for k in ks]
    pooled = ", steps pooled" if len(report["pooled_steps"]) > 1 else ""
    values = [100 * share["value"] for share in shares]
    look = style.line_style(index)
    axis.plot(places, values, marker="o", label=name + pooled, **look)
    low, high = np.transpose([s["ci95"] for s in shares])
    low, high, color = 100 * low, 100 * high, look["color"]
    axis.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)
    axis.set(title="last evaluation, with 95 % intervals", xlabel="K", xscale="log")
    axis.set_xticks(places, ks)
    axis.minorticks_off()
    axis.legend(loc="lower right")


def _draw_selection(axis: Any, report: dict[str, Any]) -> None:
    """Vote share of the first candidate against the number of candidates, per input."""
    values = {name: np.array(rows) for name, rows in report["per_input"].items()}
    # Equal points would hide each other, so each has a small fixed offset.
    move = (np.arange(len(values["unique"])) * [[0.618], [0.755]]) % 1 - 0.5
    for label, color, belongs in reversed(OUTCOMES):
        here = belongs(values["right_rank"])
        axis.scatter(
            # An input without votes is drawn at (1, 0), where no other can be.
            np.maximum(values["unique"], 1)[here] * (1 + 0.08 * move[0, here]),
            values["top1_share"][here] + 0.03 * move[1, here],
            s=14,
            color=color,
            alpha=0.7,
            linewidths=0,
            label=f"{label} ({here.sum()})",
        )
    axis.set(
        title=report["coverage"]["label"],
        xlabel="different candidates (coverage)",
        ylabel="share of votes of the first (selection)",
        xscale="log",
        ylim=(-0.03, 1.03),
    )
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.legend()


def _draw_outcomes(axis: Any, reports: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """One bar per run: test inputs by the rank of their correct answer."""
    for place, (name, report) in enumerate(reports):
        axis.text(0.5, place - 0.25, name)
        ranks = np.array(report["per_input"]["right_rank"])
        start = 0.0
        for label, color, belongs in OUTCOMES:
            share = 100 * float(belongs(ranks).mean())
            bar = axis.barh(place, share, left=start, color=color, height=0.4)
            if place == 0:
                bar.set_label(label)
            if share >= 6:  # narrower parts have no room for the number
                axis.bar_label(bar, [f"{share:.1f}"], label_type="center")
            start += share
    axis.set_yticks([])
    axis.set(
        title="where the right answer ranks",
        xlabel="% of test inputs",
        xlim=(0, 100),
        ylim=(len(reports) - 0.5, -0.7),
    )
    axis.grid(axis="y", visible=False)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)


if __name__ == "__main__":
    draw(plot_votes, figure_parser("vote_plots", "votes.png"))
