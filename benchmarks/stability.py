# SPDX-License-Identifier: Apache-2.0
"""Compare the cycles of a run of Sudoku on puzzles that it solves and does not solve.

python benchmarks/stability.py --workdir=runs/demo [--rows=32] [--out=FILE]

The puzzles are the first R test puzzles that the run solves and the first R that it
does not solve, with as many supervision steps as in its evaluations. The table has
means and ranges over puzzles: the largest Lyapunov exponent over all cycles and over
the last third, the spectral radius of one cycle at the last state, the relative motion
of z in the last cycle, and the share of cells that the logit lens of z decodes as in
the solution, after the first cycle and after the last. FILE gets the numbers as JSON.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

import trm_jax
from data_pipeline import tasks
from data_pipeline.errors import DataError
from data_pipeline.sudoku.grid import decode
from trm_jax.errors import CheckpointError, ConfigError
from trm_jax.inspect.lens import lens
from trm_jax.inspect.paths import path_measures
from trm_jax.inspect.stability import lyapunov, spectrum

NAMES = {
    "exponent": "exponent, all cycles (nats)",
    "late_exponent": "exponent, last third (nats)",
    "radius": "spectral radius at the end",
    "motion": "motion of z in the last cycle",
    "first_lens": "lens of z, first cycle (share right)",
    "last_lens": "lens of z, last cycle (share right)",
}


def measure(
    model: trm_jax.Model, texts: list[str], labels: np.ndarray
) -> dict[str, Any]:
    """The measures of NAMES, one number per puzzle, and how many spectra converged."""
    traces = model.trace(texts, every="cycle")
    x = np.concatenate([np.asarray(model.embed(text)) for text in texts])
    paths = lyapunov(model, traces, x)
    y, z = (np.stack([trace.states[name][-1] for trace in traces]) for name in "yz")
    spectra = spectrum(model, y, z, x)
    third = max(1, len(traces[0]) // 3)
    right = [
        (lens(model, trace).tokens == label).mean(-1)
        for trace, label in zip(traces, labels, strict=True)
    ]
    return {
        "exponent": [path.exponent for path in paths],
        "late_exponent": [float(path.per_cycle[-third:].mean()) for path in paths],
        "radius": [one.radius for one in spectra],
        "converged": sum(one.converged for one in spectra),
        "motion": [float(path_measures(trace)["motion"][-1]) for trace in traces],
        "first_lens": [float(each[0]) for each in right],
        "last_lens": [float(each[-1]) for each in right],
    }


def compare(workdir: str, rows: int) -> dict[str, Any]:
    """The measures of solved and of unsolved test puzzles of a run."""
    model = trm_jax.load(workdir)
    puzzles = tasks.load(model.config["data"]).test.puzzles
    texts = [decode(tokens) for tokens in puzzles.inputs]
    answers = np.stack([solution.tokens for solution in model.solve(texts)])
    solved = (answers == puzzles.labels).all(-1)
    found: dict[str, Any] = {"step": model.step, "puzzles": len(texts)}
    for name, chosen in (("solved", solved), ("unsolved", ~solved)):
        numbers = np.flatnonzero(chosen)[:rows]
        found[name] = {"of": int(chosen.sum()), "numbers": numbers.tolist()}
        if len(numbers):
            some = [texts[i] for i in numbers]
            found[name] |= measure(model, some, puzzles.labels[numbers])
    return found


def as_text(found: dict[str, Any]) -> str:
    """A table: mean, and range over puzzles."""
    lines = [f"step {found['step']}, {found['puzzles']} test puzzles"]
    for group in ("solved", "unsolved"):
        values = found[group]
        count = len(values["numbers"])
        lines.append(f"\n{group}: {values['of']}, of which {count} measured")
        if not count:
            continue
        for name, title in NAMES.items():
            low, mean, high = (fn(values[name]) for fn in (np.min, np.mean, np.max))
            lines.append(f"  {title:<38} {mean:8.3f}   {low:8.3f} to {high:8.3f}")
        above = int((np.array(values["radius"]) > 1).sum())
        lines.append(
            f"  {above} radii above 1; {values['converged']} spectra converged"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Print the table and write the numbers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    if args.rows < 1:
        parser.error(f"--rows = {args.rows}; expected 1 or more")
    try:
        found = compare(args.workdir, args.rows)
        if args.out:
            args.out.write_text(json.dumps(found, indent=1) + "\n")
    except (ConfigError, CheckpointError, DataError, OSError) as error:
        parser.error(str(error))
    print(as_text(found))


if __name__ == "__main__":
    main()
