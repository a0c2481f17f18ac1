# SPDX-License-Identifier: Apache-2.0
"""Measure the loops of a sweep's runs, and print a table of all that were measured.

python benchmarks/loop_study.py --out=docs/sweeps/loops_4x4 [--workdirs=W]
                                [--loops=32] [--rows=512]

The workdirs in W are those that sweep.py left, one per run. Each finished run that has
no file in OUT/dynamics gets one, which `trm_jax.inspect.dynamics` computes. OUT then
receives dynamics.md, a table over all files in OUT/dynamics, and dynamics.png. Without
--workdirs it only writes these two again. Date and processor are those of the training,
from the results of the sweep in OUT.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from trm_jax.errors import CheckpointError, ConfigError, SaveError
from trm_jax.files import write_whole
from trm_jax.inspect import style
from trm_jax.inspect.dynamics import report
from trm_jax.inspect.loop_measures import THRESHOLDS

SHOWN = (1, 2, 4, 8, 10, 16, 32)  # loops at which the table has the exactness
TRAINED_LOOPS = 8
PANELS = (
    ("exact", "exact, share of puzzles", "linear"),
    ("entropy", "entropy of cells, nats", "linear"),
    ("motion", "relative motion", "log"),
    ("input_cosine", "cosine between inputs", "linear"),
)
AT_END = ("entropy", "norm", "motion", "input_cosine", "token_cosine", "effective_rank")


def measure(workdirs: Path, out: Path, *, loops: int, rows: int) -> None:
    """Write the measures of every run that has none yet."""
    out.mkdir(parents=True, exist_ok=True)
    for result in sorted(out.parent.glob("*-[0-9].json")):
        path, workdir = out / result.name, workdirs / result.stem
        if path.exists() or not workdir.is_dir():
            continue
        try:
            found = report(workdir, loops=loops, rows=rows)
        except (ConfigError, CheckpointError, OSError) as error:
            sys.stderr.write(f"{workdir}: {error}\n")
            continue
        found["commits"] = json.loads(result.read_text())["commits"]
        write_whole(path, json.dumps(found, indent=1) + "\n", SaveError)
        sys.stderr.write(f"{path.name}: {found['verdict']}\n")


def by_arm(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The measured runs of every arm, in order of names, with what trained them."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((out / "dynamics").glob("*.json")):
        arm = path.stem.rpartition("-")[0]
        run, result = (json.loads(p.read_text()) for p in (path, out / path.name))
        trained = {name: result[name] for name in ("date", "processor")}
        arms.setdefault(arm, []).append(run | trained)
    return arms


def table(arms: dict[str, list[dict[str, Any]]]) -> str:
    """Means over seeds: exactness by loop, the last loop's measures, verdicts."""
    last = max(SHOWN)
    head = ["arm", "seeds", *(f"exact, {k}" for k in SHOWN)]
    head += [f"{name}, {last}" for name in AT_END] + ["verdicts"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for arm, runs in arms.items():

        def mean(loop: int, name: str, runs: Any = runs) -> float:
            return fmean(run["loops"][loop - 1].get(name, 0.0) for run in runs)

        verdicts = Counter(run["verdict"] for run in runs)
        cells = [arm, str(len(runs)), *(f"{100 * mean(k, 'exact'):.1f}" for k in SHOWN)]
        cells += [f"{mean(last, name):.3g}" for name in AT_END]
        cells.append(", ".join(f"{n} {name}" for name, n in sorted(verdicts.items())))
        lines.append("| " + " | ".join(cells) + " |")
    limits = ", ".join(f"{name} {value:g}" for name, value in THRESHOLDS.items())
    runs = [run for each in arms.values() for run in each]
    gates = [run["gates"] for run in runs if "gates" in run]
    of_gates = (
        " Gates of the lifelines after training (0.5 at the start): "
        f"{min(g['least'] for g in gates):.2f} to {max(g['most'] for g in gates):.2f}."
        if gates
        else ""
    )
    commits = sorted({commit[:7] for run in runs for commit in run["commits"]})
    dates = sorted({run["date"] for run in runs})
    processors = sorted({run["processor"] for run in runs})
    return (
        "\n".join(lines)
        + f"\n\nMeans over the seeds, on {max(r['rows'] for r in runs)} test puzzles. "
        + f"Thresholds of the verdicts: {limits}. Trained: "
        + f"{' to '.join(dict.fromkeys([dates[0], dates[-1]]))}, on "
        + f"{', '.join(processors)}; commits: {', '.join(commits)}.{of_gates}\n\n"
        + "`python benchmarks/loop_study.py --out=FOLDER` wrote this table and "
        + "dynamics.png from the files in FOLDER/dynamics.\n"
    )


def draw(arms: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """One column per network; an arm's seeds are a band around their mean."""
    networks = sorted({arm.partition(".")[2] for arm in arms})
    kinds = sorted({arm.partition(".")[0] for arm in arms})
    size = 0.6 + 2.6 * len(networks), 0.6 + 1.9 * len(PANELS)
    shape = len(PANELS), len(networks)
    with style.picture(path, *shape, size=size) as (figure, axes):
        for (name, label, scale), row in zip(PANELS, axes, strict=True):
            row[0].set_ylabel(label)
            for axis, network in zip(row, networks, strict=True):
                axis.axvline(TRAINED_LOOPS, color=style.GREY, linestyle=":")
                axis.set_yscale(scale)
                axis.set_xscale("log", base=2)
                axis.sharey(row[0])
                axis.xaxis.set_major_formatter("{x:g}")
                for i, kind in enumerate(kinds):
                    runs = arms.get(f"{kind}.{network}", [])
                    curves = [[one.get(name) for one in run["loops"]] for run in runs]
                    if curves:
                        loops = [one["loop"] for one in runs[0]["loops"]]
                        values = np.array(curves, float)
                        look = style.line_style(i)
                        style.draw_band(axis, loops, values, label=kind, **look)
        for axis, network in zip(axes[0], networks, strict=True):
            axis.set_title(network)
        for axis in axes[-1]:
            axis.set_xlabel("loop")
        shown: dict[str, Any] = {}  # a network may have been run in few arms
        for axis in axes[0]:
            handles, labels = axis.get_legend_handles_labels()
            shown |= dict(zip(labels, handles, strict=True))
        handles, labels = [shown[kind] for kind in kinds], kinds
        figure.legend(handles, labels, loc="outside upper center", ncols=len(kinds))


def main() -> None:
    """Measure if workdirs are given, then write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workdirs", type=Path)
    parser.add_argument("--loops", type=int, default=max(SHOWN))
    parser.add_argument("--rows", type=int, default=512)
    args = parser.parse_args()
    if args.loops < max(SHOWN):
        parser.error(f"--loops = {args.loops}; expected at least {max(SHOWN)}")
    folder = args.out / "dynamics"
    if args.workdirs:
        measure(args.workdirs, folder, loops=args.loops, rows=args.rows)
    arms = by_arm(args.out)
    if not arms:
        parser.error(f"{folder} holds no measured run")
    text = table(arms)
    write_whole(args.out / "dynamics.md", text, SaveError)
    draw(arms, args.out / "dynamics.png")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
