# SPDX-License-Identifier: Apache-2.0
"""Evaluate weights on 9x9 Sudokus of rising difficulty, rung by rung.

python benchmarks/rungs.py --out=docs/sudoku_9x9 [--weights=PATH,PATH,...]
    [--hard=test.csv] [--puzzles=200] [--steps=16] [--hard_steps=512] [--votes=9]

The rungs are new puzzles of the generator: 36 clues, 31 clues, and minimal ones in
three groups of rating (guesses of the solver). --hard adds the first puzzles of a list
that the repository does not hold. eval.py evaluates each PATH on each rung, once for
all steps up to --steps (--hard_steps for the list), and with 16 steps for each number
of votes. --cache keeps its reports, so that the command continues where it stopped. OUT
receives a JSON file per PATH, and the table rungs.md and the figure rungs.png over all
JSON files there. Without --weights it only writes these two again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from data_pipeline.generate import as_csv
from data_pipeline.spec import PuzzleSet
from data_pipeline.sudoku.generator import generate
from data_pipeline.sudoku.grid import SudokuShape
from trm_jax.errors import SaveError
from trm_jax.files import write_whole
from trm_jax.inspect import style
from trm_jax.loading import open_weights

SEED = 1_000  # runs draw their puzzles with data.seed = 0
CLUES = {"36 clues": (36, 36), "31 clues": (31, 31)}
RATINGS = {
    "minimal, rating 0": (0, 0),
    "minimal, rating 1-4": (1, 4),
    "minimal, rating 5+": (5, 10_000),
}
HARD = "hard list"
VOTE_STEPS = 16
SHOWN = (1, 4, 16, 64, 128, 512)


def rung_sets(count: int) -> Iterator[tuple[str, PuzzleSet]]:
    """The name and `count` puzzles of every generated rung."""
    shape = SudokuShape(3, 3)
    for name, clues in CLUES.items():
        yield name, generate(shape, (1, count), clues=clues, seed=SEED)[1]
    drawn = generate(shape, (1, 30 * count), clues=(0, 0), seed=SEED)[1]
    rating = drawn.attributes["rating"]
    for name, (low, high) in RATINGS.items():
        rows = np.flatnonzero((rating >= low) & (rating <= high))[:count]
        if len(rows) < count:
            raise SystemExit(f"{name}: only {len(rows)} puzzles found")
        yield name, drawn.subset(rows)


def rung_files(folder: Path, count: int, hard: Path | None) -> dict[str, Path]:
    """Write every rung as a CSV file, unless it is there already."""
    names = [*CLUES, *RATINGS, *([HARD] if hard else [])]
    paths = {name: folder / f"{slug(name)}-{count}.csv" for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    if not all(paths[name].exists() for name in (*CLUES, *RATINGS)):
        for name, puzzles in rung_sets(count):
            write_whole(paths[name], as_csv(puzzles), SaveError)
    if hard:
        lines = hard.read_text().splitlines(keepends=True)[: count + 1]
        write_whole(paths[HARD], "".join(lines), SaveError)
    return paths


def slug(name: str) -> str:
    """A name of a rung as part of a file name."""
    return name.replace(", ", "_").replace(" ", "_").rstrip("+")


def evaluated(
    weights: str, data: Path, cache: Path, *, steps: int, votes: int
) -> dict[str, Any]:
    """The report of eval.py, which runs unless the cache has the report."""
    name = weights.strip("/").replace("/", "-")
    out = cache / name / f"{data.stem}-steps_{steps}-votes_{votes}.json"
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).parent.parent / "eval.py"
        flags = {
            "weights_file": weights,
            "data": data,
            "supervision_steps": steps,
            "votes": votes,
            "out": out,
        }
        command = [sys.executable, script, *(f"--{k}={v}" for k, v in flags.items())]
        subprocess.run(command, check=True)
    return json.loads(out.read_text())


def measure(
    weights: str,
    rungs: dict[str, Path],
    cache: Path,
    steps: dict[str, int],
    votes: Sequence[int],
) -> dict[str, Any]:
    """The exact accuracy of these weights on every rung, by steps and by votes."""
    record = open_weights(weights).record
    step = all_updates(record)
    found: dict[str, Any] = {
        "weights": weights,
        "step": step,
        "training_flops": step * step_flops(record),
        "commit": record["provenance"].get("git"),
        "rungs": {},
    }
    for name, path in rungs.items():
        report = evaluated(weights, path, cache, steps=steps[name], votes=1)
        shown = [row for row in report["by_step"] if row["steps"] in SHOWN]
        rung = {
            "puzzles": report["puzzles"],
            "by_step": {row["steps"]: row["exact_accuracy"] for row in shown},
            "votes": {},
        }
        for count in votes:
            args = {"steps": VOTE_STEPS, "votes": count}
            report = evaluated(weights, path, cache, **args)
            gain = report["vote_gain"]
            rung["votes"][count] = {
                "exact": report["voted_accuracy"],
                "gained": gain["gained"],
                "lost": gain["lost"],
            }
        found["rungs"][name] = rung
    return found


def all_updates(record: dict[str, Any]) -> int:
    """The updates of a run, and of the runs of one config that it began from."""
    updates, before = record["step"], record["provenance"].get("init")
    while before:
        updates += before["step"]
        before = before.get("init")
    return updates


def step_flops(record: dict[str, Any]) -> int:
    """FLOPs of one training step of the run that these weights come from."""
    from trm_jax.training.build import make_recipe
    from trm_jax.training.config import read_run
    from trm_jax.training.cost import step_flops

    config = record["config"]
    recipe = make_recipe(config, record["sizes"], read_run(config))
    return step_flops(recipe, config["train"]["batch_size"])


def table(models: dict[str, dict[str, Any]]) -> str:
    """One line per weights and rung: exact accuracy in %, by steps and by votes."""
    rungs = [rung for model in models.values() for rung in model["rungs"].values()]
    steps = [str(k) for k in SHOWN if any(str(k) in rung["by_step"] for rung in rungs)]
    votes = sorted({count for rung in rungs for count in rung["votes"]}, key=int)
    head = ["weights", "TFLOPs", "rung", "puzzles", *steps]
    head += [f"{count} votes, {VOTE_STEPS} steps (gained, lost)" for count in votes]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, model in sorted(models.items(), key=lambda m: m[1]["training_flops"]):
        for rung_name, rung in model["rungs"].items():
            cells = [name, f"{model['training_flops'] / 1e12:,.0f}", rung_name]
            cells.append(str(rung["puzzles"]))
            for k in steps:
                share = rung["by_step"].get(k)
                cells.append("not run" if share is None else f"{100 * share:.1f}")
            for count in votes:
                vote = rung["votes"].get(count)
                cells.append(
                    f"{100 * vote['exact']:.1f} (+{vote['gained']} -{vote['lost']})"
                    if vote
                    else "not run"
                )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(models: dict[str, dict[str, Any]], path: Path) -> None:
    """Exact accuracy of one model by training FLOPs, and by steps of the last one."""
    ordered = sorted(models, key=lambda name: models[name]["training_flops"])
    of_last = ordered[-1].rpartition("-")[0]
    held = [models[name] for name in ordered if name.rpartition("-")[0] == of_last]
    last, shown = held[-1]["rungs"], str(VOTE_STEPS)
    with style.picture(path, 1, 2, size=(8.4, 3.6)) as (figure, axes):
        for i, name in enumerate(last):
            look = style.line_style(i) | {"marker": "o", "label": name}
            rungs = [(m["training_flops"], m["rungs"].get(name)) for m in held]
            points = [(flops, 100 * r["by_step"][shown]) for flops, r in rungs if r]
            axes[0][0].plot(*zip(*points, strict=True), **look)
            by_step = last[name]["by_step"]
            steps = [int(k) for k in by_step]
            axes[0][1].plot(steps, [100 * v for v in by_step.values()], **look)
        for axis, label in zip(
            axes[0], ("training FLOPs", "supervision steps at test"), strict=True
        ):
            axis.set(xscale="log", xlabel=label, ylabel="exact, %", ylim=(-3, 103))
        axes[0][1].set_xscale("log", base=2)
        axes[0][1].xaxis.set_major_formatter("{x:g}")
        axes[0][0].set_title(f"{VOTE_STEPS} supervision steps, without votes")
        axes[0][1].set_title("the last weights, without votes")
        handles, labels = axes[0][1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)


def main() -> None:
    """Measure if there are weights, then write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=lambda text: text.split(","), default=[])
    parser.add_argument("--hard", type=Path)
    parser.add_argument("--puzzles", type=int, default=200)
    parser.add_argument("--steps", type=int, default=VOTE_STEPS)
    parser.add_argument("--hard_steps", type=int, help="default: --steps")
    parser.add_argument(
        "--votes", type=lambda text: [int(v) for v in text.split(",") if v], default=[]
    )
    parser.add_argument("--cache", type=Path, default=Path("runs/rungs"))
    args = parser.parse_args()
    if args.steps < VOTE_STEPS:
        parser.error(f"--steps = {args.steps}; expected at least {VOTE_STEPS}")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.weights:
        rungs = rung_files(args.cache, args.puzzles, args.hard)
        for weights in args.weights:
            steps = dict.fromkeys(rungs, args.steps)
            steps[HARD] = args.hard_steps or args.steps
            found = measure(weights, rungs, args.cache, steps, args.votes)
            path = args.out / f"{Path(weights).name}-{found['step']}.json"
            write_whole(path, json.dumps(found, indent=1) + "\n", SaveError)
    models = {p.stem: json.loads(p.read_text()) for p in args.out.glob("*.json")}
    if not models:
        parser.error(f"{args.out} holds no measured weights")
    text = table(models)
    write_whole(args.out / "rungs.md", text, SaveError)
    draw(models, args.out / "rungs.png")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
