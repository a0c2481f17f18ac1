# SPDX-License-Identifier: Apache-2.0
"""Draw curves: `python -m trm_jax.inspect.plots OUT.png WORKDIR... [--givens=SHARE]`.

The curves are read from the metrics.jsonl of each workdir.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trm_jax.errors import ConfigError

PANELS = (
    ("loss", ("train/loss",)),
    ("cell accuracy", ("train/cell_accuracy", "eval/cell_accuracy")),
    ("exact accuracy", ("train/exact_accuracy", "eval/exact_accuracy")),
)


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """The records of one run, in order of steps.

    A line that the run is still writing is left out. Raises ConfigError if the file
    cannot be read.
    """
    path = Path(workdir) / "metrics.jsonl"
    try:
        lines, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    return [json.loads(line) for line in lines.splitlines()]


def plot_curves(
    workdirs: Sequence[str | Path], out: str | Path, *, givens: float | None = None
) -> None:
    """One panel per metric, one colour per run; evaluations have markers.

    `givens` adds a line at the cell accuracy of copying the question.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 3.6))
    for axis, (title, names) in zip(axes, PANELS, strict=True):
        for index, workdir in enumerate(workdirs):
            records = read_metrics(workdir)
            for name in names:
                values = {r["step"]: r[name] for r in records if name in r}
                evaluated = name.startswith("eval/")
                axis.plot(
                    list(values),
                    [math.nan if v is None else v for v in values.values()],
                    color=f"C{index}",
                    marker="o" if evaluated else None,
                    markersize=4,
                    linewidth=1.6 if evaluated else 0.8,
                    alpha=1.0 if evaluated else 0.5,
                    label=f"{Path(workdir).name}, {name.split('/')[0]}",
                )
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        if "accuracy" in title:
            axis.set_ylim(0, 1)
    if givens is not None:
        axes[1].axhline(givens, color="grey", linestyle=":", label="copying the givens")
    axes[1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plt.close(figure)


def figure_parser(module: str) -> argparse.ArgumentParser:
    """A parser of `python -m trm_jax.inspect.<module> OUT.png WORKDIR...`."""
    parser = argparse.ArgumentParser(prog=f"python -m trm_jax.inspect.{module}")
    parser.add_argument("out")
    parser.add_argument("workdir", nargs="+")
    return parser


def draw(figure: Callable[..., None], parser: argparse.ArgumentParser) -> None:
    """Draw as the command line says. A ConfigError exits with one line and code 2."""
    args = vars(parser.parse_args())
    try:
        figure(args.pop("workdir"), args.pop("out"), **args)
    except ConfigError as error:
        parser.error(str(error))


if __name__ == "__main__":
    of_curves = figure_parser("plots")
    of_curves.add_argument("--givens", type=float, help="share of cells that are given")
    draw(plot_curves, of_curves)
