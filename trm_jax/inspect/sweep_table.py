# SPDX-License-Identifier: Apache-2.0
"""The table of a sweep (Markdown and CSV) and its figure, made from its results."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trm_jax.errors import ConfigError
from trm_jax.evaluation.voting import wilson_interval
from trm_jax.inspect import style
from trm_jax.inspect.sweep_results import Result

# Column and how its value is written; the values of an arm that was not run are absent.
COLUMNS = {
    "arm": "{arm}",
    "seeds": "{runs} of {planned}",
    "parameters": "{parameters:,}",
    "GFLOPs per step": "{gflops_per_step:,.2f}",
    "steps": "{steps:,}",
    "training TFLOPs": "{training_tflops:,.2f}",
    "temporaries, MiB": "{temporaries_mib:,.1f}",
    "minutes": "{minutes:.1f}",
    "exact, %": "{exact:.2f}",
    "sd": "{exact_sd:.2f}",
    "95 %": "{exact_low:.2f} to {exact_high:.2f}",
    "by seed": "{by_seed}",
    "valid, %": "{valid:.2f}",
    "cells, %": "{cells:.2f}",
    "paper": "{paper}",
}
MOST_IN_LEGEND = 10  # arms
NUMBERS = (
    *("parameters", "gflops_per_step", "steps", "training_tflops", "temporaries_mib"),
    *("minutes", "exact", "exact_sd", "exact_low", "exact_high", "by_seed", "cells"),
)


class Table(NamedTuple):
    """A sweep with its results: `arms` maps the name of an arm to a paper's number."""

    sweep: str
    title: str
    arms: Mapping[str, str]
    seeds: Sequence[int]
    results: Mapping[str, Result]

    def of_arm(self, arm: str) -> list[Result]:
        """The results of an arm in the order of the seeds."""
        names = (f"{arm}-{seed}" for seed in self.seeds)
        return [self.results[name] for name in names if name in self.results]

    def rows(self) -> list[dict[str, Any]]:
        """One row per arm; all numbers are None if no seed was run."""
        return [self._row(arm, paper) for arm, paper in self.arms.items()]

    def _row(self, arm: str, paper: str) -> dict[str, Any]:
        done = self.of_arm(arm)
        row = {"arm": arm, "runs": len(done), "planned": len(self.seeds)}
        if not done:
            return row | dict.fromkeys(NUMBERS) | {"paper": paper}
        for field in ("parameters", "steps", "puzzles"):
            if len(values := {getattr(result, field) for result in done}) > 1:
                raise ConfigError(
                    f"arm {arm!r}: its results differ in {field}: {sorted(values)}; "
                    "expected the same for all seeds"
                )
        first, shares = done[0], [result.exact / result.puzzles for result in done]
        mean = statistics.fmean(shares)
        low, high = wilson_interval(mean, first.puzzles)
        cells = statistics.fmean(result.cell_accuracy for result in done)
        valid = [r.valid_accuracy for r in done if r.valid_accuracy is not None]
        of_valid = {"valid": 100 * statistics.fmean(valid)} if valid else {}
        of_step = [result.flops_per_step / 1e9 for result in done]
        of_training = [result.training_flops / 1e12 for result in done]
        return (
            row
            | of_valid
            | {
                "parameters": first.parameters,
                "gflops_per_step": statistics.fmean(of_step),
                "steps": first.steps,
                "training_tflops": statistics.fmean(of_training),
                "temporaries_mib": max(r.temporaries_bytes for r in done) / 2**20,
                "minutes": statistics.fmean(result.minutes for result in done),
                "exact": 100 * mean,
                "exact_sd": 100 * statistics.stdev(shares) if len(done) > 1 else None,
                "exact_low": 100 * low,
                "exact_high": 100 * high,
                "by_seed": ", ".join(f"{100 * share:.2f}" for share in shares),
                "cells": 100 * cells,
                "paper": paper,
            }
            | _ends("gflops_per_step", of_step)
            | _ends("training_tflops", of_training)
        )

    def columns(self) -> dict[str, str]:
        """Those of COLUMNS that this task has."""
        absent = {"valid, %"} if not self.has_valid() else set[str]()
        return {name: form for name, form in COLUMNS.items() if name not in absent}

    def has_valid(self) -> bool:
        """Whether the task accepts answers beside the label."""
        return any(r.valid_accuracy is not None for r in self.results.values())

    def as_csv(self) -> str:
        """The rows with all digits."""
        out, rows = io.StringIO(), self.rows()
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()

    def as_markdown(self) -> str:
        """The rows, rounded, and below them what was run when, where and how."""
        columns, rows = self.columns(), self.rows()
        lines = [_line(columns), "|" + "---|" * len(columns)]
        for row in rows:
            values = {key: value for key, value in row.items() if value is not None}
            for name in [key for key in values if f"{key}_least" in values]:
                values[name] = Span(values[f"{name}_least"], values[f"{name}_most"])
            lines.append(_line(_cell(form, values) for form in columns.values()))
        is_mixed = any("gflops_per_step_least" in row for row in rows)
        words = _NOTES + _VALID * self.has_valid() + _COUNTED * is_mixed
        notes = "\n\n".join([words, self._provenance(), self._command()])
        return f"# {self.title}\n\n" + "\n".join(lines) + f"\n\n{notes}\n"

    def _provenance(self) -> str:
        done, planned = len(self.results), len(self.arms) * len(self.seeds)
        count = f"{done} of {planned} runs are done; seeds {_listed(self.seeds)}."
        results = [self.results[name] for name in sorted(self.results)]
        if not results:
            return count
        commits = _listed(sorted({c[:12] for r in results for c in r.commits}))
        sources = len({digest for r in results for digest in r.sources})
        mixed = f" ({sources} different states of the sources)" if sources > 1 else ""
        at_once = _listed(sorted({r.jobs for r in results}))
        return (
            f"{count} Finished: {_span({r.date for r in results})}. Processor: "
            f"{_listed(sorted({r.processor for r in results}))}. Runs at once: "
            f"{at_once}. jax {_listed(sorted({r.jax for r in results}))}; commit "
            f"{commits}{mixed}. Test puzzles: "
            f"{_listed(sorted({r.puzzles for r in results}))}."
        )

    def _command(self) -> str:
        command = f"python sweep.py configs/sweeps/{self.sweep}.py --out=FOLDER"
        return f"`{command}` wrote this table from the result files in the folder."


_NOTES = (
    "Exact: share of test puzzles whose cells are all correct, as the mean over the "
    "seeds, with the sample standard deviation (sd). 95 %: Wilson interval of this "
    "mean for the number of test puzzles, since all seeds share these puzzles; it does "
    "not contain the spread between seeds. Minutes: training of one run, with "
    "compilation and without evaluations. Temporaries: memory that a compiled step "
    "reserves beside the state. A paper's number is for the task in brackets."
)
_VALID = " Valid: share of answers that the rules of the task accept."
_COUNTED = (
    " FLOPs from a least to a most: the count of a step changed between the seeds, and "
    "the figure uses its mean."
)


class Span(NamedTuple):
    """The least and the most of different numbers; written once if they look equal."""

    least: float
    most: float

    def __format__(self, form: str) -> str:
        return " to ".join(dict.fromkeys(format(number, form) for number in self))


def _ends(name: str, values: Sequence[float]) -> dict[str, float]:
    """The least and the most of the values, if they differ."""
    if len(set(values)) == 1:
        return {}
    return {f"{name}_least": min(values), f"{name}_most": max(values)}


def _cell(form: str, values: Mapping[str, Any]) -> str:
    """The value as the column writes it."""
    try:
        return form.format_map(values)
    except KeyError:
        return "not run" if form == COLUMNS["exact, %"] else ""


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def _span(dates: set[str]) -> str:
    """The first and the last date."""
    return " to ".join(dict.fromkeys([min(dates), max(dates)]))


def draw(table: Table, path: Path) -> None:
    """Draw accuracy over training FLOPs, and the last accuracy of each arm.

    Bands and bars span the seeds. Of many arms, the lines that lead to the last
    accuracies are the legend of the curves. Raises ImportError without matplotlib, and
    SaveError.
    """
    size = 9.5, max(3.6, 1 + 0.2 * len(table.arms))
    with style.picture(path, 1, 2, size=size) as (figure, ((curves, ends),)):
        is_long = len(table.arms) > MOST_IN_LEGEND
        _draw_arms(table, curves, ends, with_lines=is_long)
        ends.set(xlabel="exact accuracy after training, %", ylim=(len(table.arms), -1))
        ends.set_yticks(range(len(table.arms)), list(table.arms))
        curves.set(xlabel="model TFLOPs of training", ylabel="exact accuracy, %")
        figure.suptitle(table.title, fontsize=10)
        if curves.get_legend_handles_labels()[0] and not is_long:
            curves.legend()


def _draw_arms(table: Table, curves: Any, ends: Any, *, with_lines: bool) -> None:
    for index, arm in enumerate(table.arms):
        if not (done := table.of_arm(arm)):
            continue
        look = style.line_style(index)
        color = look["color"]
        by_step = [{pair[0]: pair[1] for pair in result.curve} for result in done]
        common = sorted(set.intersection(*map(set, by_step)))
        if common:
            values = [[100 * each[step] for each in by_step] for step in common]
            flops = statistics.fmean(result.flops_per_step for result in done)
            x = [step * flops / 1e12 for step in common]
            means = list(map(statistics.fmean, values))
            curves.plot(x, means, marker="o", markersize=3, label=arm, **look)
            low, high = list(map(min, values)), list(map(max, values))
            curves.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
        shares = [100 * result.exact / result.puzzles for result in done]
        if with_lines:
            ends.plot([0, min(shares)], [index] * 2, **look)
        ends.plot([min(shares), max(shares)], [index] * 2, color=color, linewidth=4)
        ends.plot(shares, [index] * len(shares), "o", color="black", markersize=4)
