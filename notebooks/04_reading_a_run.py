# %% [markdown]
# # 4. Reading a run
#
# This notebook trains a toy model on 4x4 Sudokus, stops it half-way, resumes it, and
# reads what the run has left: its files, the curves, the evaluation, when the model
# halts, and whether its latent states settle. All files go into a temporary folder.
#
# It takes about a minute on a CPU. The numbers were computed on one processor with one
# version of JAX; on another one, rounding leads to a slightly different model.

# %%
# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

import trm_jax
from trm_jax.inspect import dynamics, notebook, plots, steps
from trm_jax.inspect.run_records import read_metrics
from trm_jax.inspect.style import COLORS, GREY

folder = tempfile.TemporaryDirectory()
runs = Path(folder.name)

# %% [markdown]
# ## Train, stop, resume
#
# `get_config` returns a config as a program may edit it. The first call of `train`
# makes 200 updates. The second one wants 400 and resumes the run. A third run makes 400
# updates without a break, and ends with exactly the same weights.

# %%
config = trm_jax.get_config("smoke")
config.train.steps = 200
trm_jax.train(config, runs / "resumed")
config.train.steps = 400
model = trm_jax.train(config, runs / "resumed")
unbroken = trm_jax.train(config, runs / "unbroken")

pairs = zip(
    jax.tree.leaves(model.params), jax.tree.leaves(unbroken.params), strict=True
)
print(model)
print("the same bits:", all(np.array_equal(a, b) for a, b in pairs))

# %% [markdown]
# ## What lies in the folder of a run
#
# * `config.json` and `dataset.json` say what was trained on which data. A run with
#   another config or with other data is refused.
# * `runs.jsonl` has one line for each start: there were two.
# * `metrics.jsonl` has one line for each logged step. `events/` has the same for
#   TensorBoard, if tensorboardX is installed.
# * `checkpoints/` has the newest states, from which a run resumes.

# %%
run = runs / "resumed"
print(*sorted(path.name for path in run.iterdir() if path.name != "events"))
print("checkpoints:", *sorted(path.name for path in (run / "checkpoints").iterdir()))
for line in (run / "runs.jsonl").read_text().splitlines():
    start = json.loads(line)
    print(f"started at step {start['from_step']}")

# %% [markdown]
# ## Curves
#
# `read_metrics` gives the records of `metrics.jsonl`, and docs/metrics.md says what
# they mean. `plot_curves` draws runs by updates, by minutes or by FLOPs. Here one run
# is on each line; runs that differ only in their seeds would become one line with a
# band. The pauses in the curves by minutes are compilations: of the evaluation, and of
# the training step when the run resumed. (The command `python -m trm_jax.inspect.plots`
# does the same.)

# %%
records = read_metrics(run)
last = records[-1]
print(f"{len(records)} records; the last one is of step {last['step']}:")
for name in ("train/exact_accuracy", "eval/exact_accuracy", "eval/cell_accuracy"):
    print(f"  {name:20} {100 * last[name]:.0f} %")
print(f"  {'train/flops':20} {last['train/flops']:.2e}")
plots.plot_curves([run], runs / "curves.png", x="all")
notebook.picture(runs / "curves.png", width=900)

# %% [markdown]
# ## Evaluation
#
# The command `trm-eval` (`eval.py` in a checkout) evaluates a checkpoint and writes
# JSON. With `--report` it also writes a page with figures and wrong answers.

# %%
line = [sys.executable, "-m", "trm_jax.commands.eval", f"--workdir={run}"]
subprocess.run(line, check=True, capture_output=True)
report = json.loads((run / "eval" / "step_400.json").read_text())
low, high = report["exact_accuracy_95"]
print("keys:", ", ".join(report))
print(
    f"{100 * report['exact_accuracy']:.0f} % of {report['puzzles']} puzzles are exact"
)
print(f"95 % interval: {100 * low:.0f} to {100 * high:.0f} %")

# %% [markdown]
# ## When does the model halt?
#
# `by_step` has the accuracies after each supervision step and the share of puzzles for
# which the model wants to halt. A good halting curve follows the exact accuracy: where
# it is above, the model stops with wrong answers, and where it is below, it thinks
# longer than it must. The bars count the puzzles by the first step in which the model
# wants to halt.

# %%
rows = report["by_step"]
step = [row["steps"] for row in rows]
with notebook.figure("halting", 1, 2, size=(9, 3)) as (_, axes):
    curves = {
        "exact_accuracy": "exact",
        "cell_accuracy": "cells",
        "halted": "wants to halt",
    }
    for (name, label), color in zip(curves.items(), COLORS, strict=False):
        look = {"color": color, "linestyle": "--" if name == "halted" else "-"}
        axes[0, 0].plot(
            step, [100 * row[name] for row in rows], "o", label=label, **look
        )
    axes[0, 0].set(
        xlabel="supervision step", ylabel="puzzles or cells, %", ylim=(70, 101)
    )
    axes[0, 0].legend()
    first, never = report["halting"]["first"], report["halting"]["never"]
    places = np.arange(1, 2 + len(first))
    axes[0, 1].bar(places, [*first, never], color=COLORS[5])
    axes[0, 1].set_xticks(places, [*map(str, step), "never"])
    axes[0, 1].grid(axis="x", visible=False)
    axes[0, 1].set(xlabel="first step in which the model halts", ylabel="puzzles")
halting = report["halting"]
exact, count = 100 * halting["exact_accuracy"], halting["mean_steps"]
print(
    f"if each puzzle ended where the model wants to halt: {exact:.0f} % exact", end=""
)
print(f" after {count:.1f} steps on average")

# %% [markdown]
# ## More steps than in training
#
# The loop monitor takes four times as many supervision steps as training had, and
# measures the latent states in each. Its verdict is `settled` (the states stop moving
# and no answer is lost), `drift` or `static` (two ways to lose answers), or
# `undecided`. The thresholds are choices; the report contains them. (The command is
# `python -m trm_jax.inspect.dynamics`.)

# %%
found = dynamics.report(run)
dynamics.draw(found, runs / "dynamics.png")
notebook.picture(runs / "dynamics.png", width=1100)
print("verdict:", found["verdict"])
print(f"relative motion in the last step: {found['loops'][-1]['motion']:.3f}")

# %%
accuracy = steps.report(run)
exact = [100 * row["exact_accuracy"] for row in accuracy["by_step"]]
ends = 100 * np.array([row["exact_accuracy_95"] for row in accuracy["by_step"]]).T
with notebook.figure("steps", size=(5.5, 2.9)) as (_, ((axis,),)):
    axis.plot(range(1, 1 + len(exact)), exact, color=COLORS[0])
    axis.fill_between(
        range(1, 1 + len(exact)), *ends, color=COLORS[0], alpha=0.2, linewidth=0
    )
    axis.axvline(accuracy["training_loops"], color=GREY, linestyle=":")
    axis.set(xlabel="supervision step (dotted: most in training)", ylim=(70, 101))
    axis.set(ylabel="exact accuracy, %")
print(f"lost by thinking longer: {100 * accuracy['overthink']:.0f} points")

# %%
folder.cleanup()

# %% [markdown]
# ## What to try next
#
# * Train a larger model: `trm_jax.get_config("demo")` takes two minutes on two cores,
#   and docs/settings.md lists what can be changed.
# * `get_config("smoke:attention")`: does the verdict change?
# * Train three seeds (`config.seed`) and give all three folders to `plot_curves`.
# * `logging.basicConfig(level=logging.INFO)` shows the progress of `train`.
