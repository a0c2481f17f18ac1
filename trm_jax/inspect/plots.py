# SPDX-License-Identifier: Apache-2.0
"""Draw the curves of runs: `python -m trm_jax.inspect.plots RUN... [--out=FILE.png]`.

[--x=step|minutes|flops|all] [--givens=SHARE]

The curves are read from the metrics.jsonl of each workdir RUN. Lines show metrics of
training, dots show evaluations. Runs whose config.json differ only in `seed` and
`data.seed` become one line, the mean, in a band from the least to the greatest value.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trm_jax.errors import ConfigError, SaveError
from trm_jax.inspect import style
from trm_jax.inspect.run_records import Group, read_groups

X_AXES = ("step", "minutes", "flops")
PANELS = (
    ("loss", ("train/loss",)),
    ("cell accuracy, %", ("train/cell_accuracy", "eval/cell_accuracy")),
    ("exact accuracy, %", ("train/exact_accuracy", "eval/exact_accuracy")),
)
_PREFIXES = {1e18: "E", 1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1.0: ""}


def plot_curves(
    workdirs: Sequence[str | Path],
    out: str | Path,
    *,
    x: str = "step",
    givens: float | None = None,
) -> None:
    """Write a picture with a panel per metric, and a row per x axis for x = "all".

    `givens` adds a line at the cell accuracy of copying the question, a share. Raises
    ConfigError, SaveError, and ImportError without matplotlib.
    """
    groups = read_groups(workdirs)
    rows = X_AXES if x == "all" else (x,)
    for group, axis in ((g, a) for g in groups for a in rows if a != "step"):
        _require(group, {"minutes": "train/seconds", "flops": "train/flops"}[axis])
    height = 2.5 * len(rows) + 0.5
    with style.picture(out, len(rows), len(PANELS), size=(9.5, height)) as drawn:
        figure, axes = drawn
        for row, axis_name in enumerate(rows):
            for column, (title, names) in enumerate(PANELS):
                _draw_panel(axes[row, column], groups, title, names, axis_name)
            if givens is not None:
                axes[row, 1].axhline(100 * givens, color=style.GREY, linestyle="-.")
        _add_legend(figure, groups, givens)


def _require(group: Group, name: str) -> None:
    """Raise ConfigError if a record of the group lacks this x value."""
    for run in group.runs:
        for step, record in run.items():
            if record.get(name) is None:
                raise ConfigError(
                    f"{group.label}: metrics.jsonl has no {name} at step {step}, since "
                    "an older version wrote it; expected --x=step"
                )


def _draw_panel(
    axis: Any, groups: Sequence[Group], title: str, names: Sequence[str], x: str
) -> None:
    """One metric of all groups over x, in training and in evaluations."""
    curves = [(i, n, *g.curve(n, x)) for i, g in enumerate(groups) for n in names]
    most = max((places.max(initial=0) for *_, places, _ in curves), default=0)
    unit, prefix = next(u for u in _PREFIXES.items() if most >= u[0] or u[0] == 1)
    scale = unit if x == "flops" else 1.0
    for index, name, places, values in curves:
        look: dict[str, Any] = dict(style.line_style(index))
        if evaluated := name.startswith("eval/"):
            look |= {"marker": "o", "markersize": 3.5}
        values = values * (100 if title.endswith("%") else 1)
        place = places / scale
        width, alpha = (1.5, 1.0) if evaluated else (0.9, 0.6)
        axis.plot(place, values.mean(0), linewidth=width, alpha=alpha, **look)
        if len(values) > 1:
            low, high = values.min(0), values.max(0)
            color = look["color"]
            axis.fill_between(place, low, high, color=color, alpha=0.2, linewidth=0)
    labels = {"step": "training step", "minutes": "training time, minutes"}
    labels["flops"] = f"model {prefix}FLOPs of training"
    axis.set(xlabel=labels[x], ylabel=title, xlim=(0, None))
    if title.endswith("%"):
        axis.set_ylim(-2, 102)


def _add_legend(figure: Any, groups: Sequence[Group], givens: float | None) -> None:
    from matplotlib.lines import Line2D

    line: Callable[[int], Any] = style.line_style
    handles = [
        Line2D([], [], label=group.label, linewidth=2, **line(i))
        for i, group in enumerate(groups)
    ]
    handles.append(
        Line2D([], [], label="training", linewidth=0.9, alpha=0.7, color=style.GREY)
    )
    handles.append(Line2D([], [], label="evaluation", marker="o", color=style.GREY))
    if givens is not None:
        handles.append(
            Line2D([], [], label="copying the givens", linestyle="-.", color=style.GREY)
        )
    columns = min(len(handles), 4)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def figure_parser(module: str, out: str) -> argparse.ArgumentParser:
    """A parser of `python -m trm_jax.inspect.<module> RUN... [--out=FILE]`."""
    parser = argparse.ArgumentParser(prog=f"python -m trm_jax.inspect.{module}")
    parser.add_argument("run", nargs="+", help="workdir of a run")
    parser.add_argument("--out", default=out, help=f"the picture; default: {out}")
    return parser


def draw(figure: Callable[..., None], parser: argparse.ArgumentParser) -> None:
    """Draw as the command line says. Wrong input exits with one line and code 2."""
    args = vars(parser.parse_args())
    try:
        figure(args.pop("run"), args.pop("out"), **args)
    except (ConfigError, SaveError) as error:
        parser.error(str(error))
    except ImportError as error:
        parser.error(f"{error}; pip install 'trm-jax[plots]' installs it")


if __name__ == "__main__":
    of_curves = figure_parser("plots", "curves.png")
    of_curves.add_argument("--x", default="step", choices=(*X_AXES, "all"))
    of_curves.add_argument("--givens", type=float, help="share of cells that are given")
    draw(plot_curves, of_curves)
