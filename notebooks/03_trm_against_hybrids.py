# %% [markdown]
# # 3. TRM against the hybrids
#
# Four networks are compared at equal parameters (within 5 %) and equal training FLOPs
# (within 2 % when they were trained; the scan of Mamba-2 became more exact since, and
# its FLOPs are now counted 5 to 7 % higher): TRM with MLP-t, TRM with attention, and
# the two hybrids with Mamba-2 layers. All of them were trained on the same 4,000
# generated Sudokus (`configs/sweeps/operators.py`, seed 0) and get the same unseen
# puzzles here.
#
# It takes about a minute on a CPU.
#
# The budget is small: less than two minutes of training for MLP-t on two CPU cores.
# Both networks with attention solve no puzzle, or nearly none, at this budget. So this
# notebook says how these four runs differ, and not which network is the best. There is
# one run of each.

# %%
# SPDX-License-Identifier: Apache-2.0
import numpy as np

import trm_jax
from trm_jax.evaluation.report import calibration, halting
from trm_jax.inspect import cells, grids, notebook, operators, steps
from trm_jax.inspect.replay_record import as_record
from trm_jax.inspect.style import GREY, draw_band, line_style
from trm_jax.training.build import build
from trm_jax.training.cost import flops_per_step

names = {
    "MLP-t": "sudoku_6x6",
    "Mamba-2, MLP-t": "sudoku_6x6_mamba2_mlp_t",
    "attention": "sudoku_6x6_attention",
    "Mamba-2, attention": "sudoku_6x6_mamba2_attn",
}
models = {label: trm_jax.load(name) for label, name in names.items()}
looks = {label: line_style(i) | {"label": label} for i, label in enumerate(models)}
task = models["MLP-t"].task

print(f"{'network':18} {'parameters':>10} {'updates':>7} {'training FLOPs':>14}")
for label, model in models.items():
    flops = flops_per_step(build(model.config, task.spec().sizes)) * model.step
    count = model.facts()["parameters"]
    print(f"{label:18} {count:10,} {model.step:7,} {flops:14.2e}")

# %% [markdown]
# ## Accuracy by supervision step
#
# `evaluate` gives the results of a model after every supervision step. Exact accuracy
# counts puzzles whose cells are all correct; its band is the 95 % interval of Wilson,
# over the puzzles. Cell accuracy counts cells, given ones too; its band is the mean +-
# 1.96 standard errors, over the puzzles. Copying the given digits alone would reach the
# dotted line.

# %%
questions = task.load().test.questions(max_puzzles=256)
outputs = {label: model.evaluate(questions) for label, model in models.items()}

# %%
step = np.arange(1, 17)
with notebook.figure("accuracy", 1, 2, size=(9, 3.3)) as (figure, axes):
    for label, output in outputs.items():
        rows = steps.accuracy_by_step(output)["by_step"]
        exact = 100 * np.array([row["exact_accuracy"] for row in rows])
        ends = 100 * np.array([row["exact_accuracy_95"] for row in rows]).T
        right = 100 * np.asarray(output.cells_right)
        mean, error = right.mean(1), right.std(1, ddof=1) / right.shape[1] ** 0.5
        band = {"color": looks[label]["color"], "alpha": 0.2, "linewidth": 0}
        axes[0, 0].plot(step, exact, marker="o", **looks[label])
        axes[0, 0].fill_between(step, *ends, **band)
        axes[0, 1].plot(step, mean, marker="o", **looks[label])
        axes[0, 1].fill_between(step, mean - 1.96 * error, mean + 1.96 * error, **band)
    given = 100 * (questions.inputs == questions.labels).mean()
    axes[0, 1].axhline(given, color=GREY, linestyle=":")
    axes[0, 0].set(ylabel="exact accuracy, %", ylim=(-3, 103))
    axes[0, 1].set(ylabel="cell accuracy, %", ylim=(0, 103))
    for axis in axes[0]:
        axis.set(xlabel="supervision step", xticks=step[::3])
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4
    )

for label, output in outputs.items():
    end, stops = 100 * output.all_right[-1].mean(), halting(output)
    exact, count = 100 * stops["exact_accuracy"], stops["mean_steps"]
    print(f"{label:18} {end:5.1f} % exact after 16 steps; if each puzzle ends where")
    print(f"{'':18} the model wants to halt, {exact:5.1f} % after {count:.1f} steps")

# %% [markdown]
# ## Do they agree?
#
# The left matrix gives the share of cells in which two networks have the same final
# answer, over the cells that are empty in the question. The right one counts the
# puzzles that both networks solve; on its diagonal are those that one network solves.

# %%
empty = questions.inputs != questions.labels
answers = [np.asarray(output.predictions) for output in outputs.values()]
solved = np.array([output.all_right[-1] for output in outputs.values()])
same = [[100 * (a == b)[empty].mean() for b in answers] for a in answers]
both = solved.astype(int) @ solved.T
with notebook.figure("agreement", 1, 2, size=(9, 3.7)) as (_, axes):
    labels = [label.replace(", ", ",\n") for label in models]
    titles = (
        "same digit, % of the empty cells",
        f"solved by both, of {len(empty)} puzzles",
    )
    for axis, matrix, title in zip(
        axes[0], (np.array(same), both), titles, strict=True
    ):
        axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1.6 * matrix.max())
        for (i, j), value in np.ndenumerate(matrix):
            axis.text(j, i, f"{value:.0f}", ha="center", va="center")
        axis.set_xticks(range(4), labels)
        axis.set_yticks(range(4), labels)
        axis.set(title=title)
        axis.grid(visible=False)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)

# %% [markdown]
# ## Are they as sure as they are right?
#
# The halting probability says how likely the answer is correct, in the opinion of the
# model. The figure shows, for five ranges of this probability, how many answers are
# correct, with 95 % intervals of Wilson. Ranges with fewer than five puzzles are left
# out. On the diagonal a model would be calibrated. The expected calibration error (ECE)
# is the mean distance from the diagonal, weighted by puzzles. It says little of the
# networks with attention, which are never sure and never right.

# %%
with notebook.figure("calibration", 1, 2, size=(9, 3.6), sharey=True) as (figure, axes):
    for axis, count in zip(axes[0], (2, 16), strict=True):
        axis.plot([0, 100], [0, 100], color=GREY, linestyle=":")
        for label, output in outputs.items():
            early = output._replace(
                q_halt=output.q_halt[:count], all_right=output.all_right[:count]
            )
            found = calibration(early, num_bins=5)
            bins = [one for one in found["bins"] if one["puzzles"] >= 5]
            sure = [100 * one["probability"] for one in bins]
            right = np.array([100 * one["exact_accuracy"] for one in bins])
            ends = 100 * np.array([one["exact_accuracy_95"] for one in bins]).T
            look = looks[label] | {"marker": "o", "capsize": 3}
            axis.errorbar(sure, right, np.abs(ends - right), **look)
            print(f"{count:2} steps, {label:18}: ECE {100 * found['ece']:4.1f} %")
        axis.set(
            title=f"after {count} supervision steps", xlabel="halting probability, %"
        )
    axes[0, 0].set(ylabel="correct answers, %", xlim=(-3, 103), ylim=(-3, 103))
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4
    )

# %% [markdown]
# ## What the attention layers attend to
#
# `operators.inside` opens one call of a network. The inputs here are those of the first
# network call in the last cycle, for eight puzzles. The maps show the weights that one
# cell (the dot) gives to the cells of one puzzle, for each head.

# %%
puzzles = [task.grid(tokens) for tokens in questions.inputs[:8]]
opened, traces = {}, {}
for label, model in models.items():
    traces[label] = several = model.trace(puzzles)
    y, z = (np.stack([one.states[name][-1] for one in several]) for name in "yz")
    x = np.concatenate([model.embed(puzzle) for puzzle in puzzles])
    network, hidden = operators.network_calls(model, y, z, x)[0]
    opened[label] = operators.inside(model, hidden, network)
maps = {
    f"{label}: {layer.layer}": layer.maps[:, :, 1:, 1:]  # without the puzzle id
    for label, found in opened.items()
    for layer in found.attention
}
record = as_record(traces["attention"][0], task, title="", model={})
cell, most = 14, 0.4
with notebook.figure("attention", len(maps), 4, size=(7.6, 5.2)) as (figure, axes):
    for row, (layer, weights) in zip(axes, maps.items(), strict=True):
        for head, axis in enumerate(row):
            image = grids.draw_cells(
                axis, weights[0, head, cell], record, most=most, mark=cell
            )
            axis.set_title(f"head {head + 1}")
        name = layer.replace(": ", "\n")
        row[0].text(-0.7, 3, name, rotation=90, ha="center", va="center", size=9)
    figure.colorbar(image, ax=axes, label="attention weight", extend="max", shrink=0.6)

# %% [markdown]
# A cell of a Sudoku needs to know the cells of its row, its column and its box. The
# figure compares the weights that go there with uniform attention, for each head: the
# mean over all cells and the eight puzzles, with the range over the puzzles. In the
# second layer of the network with attention, no head prefers the column. In the hybrid,
# heads 1 and 2 read the column, and heads 3 and 4 the row and the box.

# %%
related = cells.relations((6, 6), (2, 3))
with notebook.figure("relations", 1, len(maps), size=(9.5, 3), sharey=True) as (
    _,
    axes,
):
    for axis, (layer, weights) in zip(axes[0], maps.items(), strict=True):
        means = {k: 37 * v for k, v in cells.by_relation(weights, related).items()}
        for head in range(weights.shape[1]):
            values = np.array([of_kind[:, head] for of_kind in means.values()])
            errors = np.abs(np.stack([values.min(1), values.max(1)]) - values.mean(1))
            places = np.arange(len(means)) + 0.15 * (head - 1.5)
            look = line_style(head) | {"linestyle": "", "marker": "o", "capsize": 2}
            axis.errorbar(
                places, values.mean(1), errors, label=f"head {head + 1}", **look
            )
        axis.axhline(1, color=GREY, linestyle=":")
        axis.set_xticks(range(len(means)), list(means), rotation=30)
        axis.set(title=layer)
    axes[0, 0].set(ylabel="weight / uniform weight", ylim=(0, None))
    axes[0, 0].legend()

# %% [markdown]
# ## What the Mamba-2 layers remember
#
# A Mamba-2 layer reads the positions from the first to the last: the puzzle id, then
# the cells row by row. Each head has a state, and keeps a share of it (the decay) when
# it reads the next position. The upper panels show the size of the state of each head
# as the scan goes on: the mean over the eight puzzles, with the range as a band. Dotted
# lines are the starts of rows of the grid.
#
# The lower panels show the share that is kept when the next cell is given or empty: the
# median, with the range from the 10th to the 90th percentile. A head at 1 still has the
# first row when it reads the last one, and a head near 0 knows only the last cell. Some
# heads choose by the kind of cell. Head 3 in the first layer of the hybrid with
# attention, for example, forgets most of its state at a given cell, and keeps most of
# it at an empty one.

# %%
scans = [(label, one) for label, found in opened.items() for one in found.scans]
given = np.stack([one.given for one in traces["MLP-t"]])
kinds = ("given", given), ("empty", ~given)
with notebook.figure("scans", 2, len(scans), size=(9.8, 5.3), sharey="row") as (
    figure,
    axes,
):
    for (above, below), (label, scan) in zip(axes.T, scans, strict=True):
        for head in range(scan.norms.shape[-1]):
            look, sizes = line_style(head), scan.norms[..., head]
            draw_band(above, range(37), sizes, label=f"head {head + 1}", **look)
        for start in range(1, 37, 6):
            above.axvline(start - 0.5, color=GREY, linestyle=":", linewidth=0.8)
        above.set(title=f"{label}\n{scan.layer}", yscale="log", xlabel="position")
        above.grid(visible=False)
        heads = 1 + np.arange(scan.norms.shape[-1])
        for i, (name, cells_of_kind) in enumerate(kinds):
            kept = scan.decays[:, 1:][cells_of_kind]  # without the puzzle id
            low, middle, high = np.quantile(kept, (0.1, 0.5, 0.9), axis=0)
            look = line_style(i) | {"linestyle": "", "marker": "os"[i], "capsize": 2}
            errors = middle - low, high - middle
            below.errorbar(heads + 0.3 * i - 0.15, middle, errors, label=name, **look)
        below.set(xlabel="head", xticks=heads, ylim=(-0.02, 1.02))
        below.grid(axis="x", visible=False)
    axes[0, 0].set(ylabel="state, root mean square")
    axes[1, 0].set(ylabel="share kept (decay)")
    axes[1, 3].legend(title="the next cell is", loc="lower right")
    heads = axes[0, 0].get_legend_handles_labels()
    figure.legend(*heads, loc="outside lower center", ncols=8)

# %% [markdown]
# ## What to try next
#
# * Train longer: `python train.py --config=configs/demo.py:attention
#   --workdir=runs/attention --config.train.steps=10000`, then load `runs/attention`
#   here.
# * `configs/sweeps/operators.py` has more networks: Mamba-1, Mamba-2 that reads in both
#   directions, HRM.
# * `model.evaluate(questions, steps=64)` gives more supervision steps than training
#   had.
# * [The next notebook](04_reading_a_run.ipynb) trains a model and reads what the run
#   leaves.
