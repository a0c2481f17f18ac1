# %% [markdown]
# # 1. Solve a Sudoku and watch
#
# A small recursive model solves a 6x6 Sudoku. This notebook shows its answer after
# every supervision step, the cells that change, where the model doubts, and when it is
# sure. At the end there is a replay of the steps, and a page in which you can type
# puzzles of your own.
#
# It takes about 15 seconds on a CPU. It needs no network and no accelerator.

# %%
# SPDX-License-Identifier: Apache-2.0
import numpy as np

import trm_jax
from trm_jax.inspect import grids, notebook, playground, replay
from trm_jax.inspect.replay_record import as_record

model = trm_jax.load("sudoku_6x6")
for name, fact in model.facts().items():
    print(f"{name:10} {fact}")

# %% [markdown]
# The model is TRM with MLP-t, the network of `make demo`. Its weights come with the
# package. A puzzle is a text, row by row, with a point for each empty cell.

# %%
puzzle = "..4..23...5....2....3.64.3.....4...6"
solution = model.solve(puzzle)
print(solution.grid)
print(f"valid: {solution.is_valid}, sure: {solution.halt_probability:.0%}")

# %% [markdown]
# ## The answer after every step
#
# `trace` records the latents and the answers after every supervision step. Each step
# refines the answer of the step before. Below, given digits are bold and the digits of
# the model are blue. An orange corner marks a cell that has changed, and a red frame
# marks a wrong digit. The percentage is the probability that the model gives to its
# whole answer being correct.

# %%
trace = model.trace(puzzle)
record = as_record(
    trace, model.task, title="6x6 Sudoku", model=model.facts(), solution=solution.tokens
)
with notebook.figure("steps", 1, 5, size=(9.5, 2.2)) as (_, axes):
    for k, axis in enumerate(axes[0], start=-1):
        grids.draw_grid(axis, record, k)
        sure = trace.halt_probability[k]
        axis.set_title("question" if k < 0 else f"step {k + 1}: {sure:.1%} sure")

# %% [markdown]
# ## Where the model doubts
#
# Every cell has a probability for each token. The upper row shows one minus the
# probability of the digit that is written there. The lower row shows the entropy of the
# probabilities, which is 0 if one token is certain and ln 6 = 1.79 nats if six digits
# are equally likely. Most of the wrong cells are doubtful, but in step 1 the model is
# sure of the wrong 2 in the second row.
#
# The entropy does not fall to 0. The model was trained with stablemax in the place of
# softmax, which leaves more probability to the other tokens.

# %%
doubt, entropy = 1 - trace.confidence, trace.entropy
with notebook.figure("doubt", 2, 4, size=(9.5, 4.7)) as (figure, axes):
    for k in range(4):
        above = grids.draw_grid(axes[0, k], record, k, shade=doubt[k], most=0.8)
        below = grids.draw_grid(axes[1, k], record, k, shade=entropy[k], most=1.8)
        axes[0, k].set_title(f"step {k + 1}")
    figure.colorbar(above, ax=axes[0], label="1 - probability", shrink=0.8)
    figure.colorbar(below, ax=axes[1], label="entropy, nats", shrink=0.8)

# %% [markdown]
# ## Several puzzles
#
# The model solves the first five puzzles, which are from the test set. The last one is
# one of the seven test puzzles, of 1,024, that it does not solve. The halting
# probability is what the model says about its own answer. On the solved puzzles it ends
# above 90 %, and no cell changes any more. On the unsolved puzzle the answer keeps
# changing, and the model stays unsure.

# %%
solved = [
    puzzle,
    "....231......5.6....2.3.........6..5",
    ".4.3..3...6.......265.........5.6.2.",
    ".2.3....1.5....1...1..25..4....3..1.",
    "21.......3...461......4...46........",
]
unsolved = ".....3..52...5..26...5..3.1.4......."
traces = model.trace([*solved, unsolved])
steps = traces[0].steps
looks = {"color": "black", "linestyle": "--", "marker": "s", "label": "unsolved"}
with notebook.figure("halting", 1, 3, size=(9.5, 2.8)) as (figure, axes):
    for number, one in enumerate(traces, start=1):
        look = {"marker": "o", "label": f"puzzle {number}"}
        look = looks if number > len(solved) else look
        before = np.concatenate([one.question[None], one.tokens[:-1]])
        changed = (one.tokens != before).sum(1)
        axes[0, 0].plot(steps, 100 * one.halt_probability, **look)
        axes[0, 1].plot(steps, one.entropy[:, ~one.given].mean(1), **look)
        axes[0, 2].plot(steps[1:], changed[1:], **look)
    axes[0, 0].set(ylabel="halting probability, %", ylim=(-3, 103))
    axes[0, 1].set(ylabel="entropy of the empty cells, nats", ylim=(0, None))
    axes[0, 2].set(ylabel="cells that change", ylim=(-0.5, None))
    for axis in axes[0]:
        axis.set(xlabel="supervision step", xticks=steps[::3])
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(traces))

for number, one in enumerate(traces, start=1):
    first = f"first correct in step {steps[one.valid.argmax()]}"
    first = first if one.valid.any() else "never correct"
    sure = one.halt_probability[-1]
    print(f"puzzle {number}: {first}, sure at the end: {sure:.0%}")

# %% [markdown]
# ## Replay
#
# The replay is one HTML page that needs no other file. Press the space key or the
# button to play it. (Pages like this do not show where scripts in notebooks are
# switched off.)

# %%
notebook.page("replay", replay.page(record), height=820)

# %% [markdown]
# ## Playground
#
# The playground holds the model and runs it in the browser. Open the file that the cell
# names, and type a puzzle of your own.

# %%
notebook.write("playground.html", playground.page(model))

# %% [markdown]
# ## What to try next
#
# * Change `puzzle`. Does the model notice if it has no solution, or several?
# * Give the unsolved puzzle more steps, `model.solve(unsolved, steps=64)`, or let the
#   model vote over symmetric forms of it, `model.solve(unsolved, votes=16)`.
# * `model.trace(puzzle, every="cycle")` also records the states within a step. [The
#   next notebook](02_latent_states.ipynb) looks into them.
