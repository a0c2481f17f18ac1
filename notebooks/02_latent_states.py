# %% [markdown]
# # 2. What the latent states do
#
# A supervision step of TRM consists of cycles. Each cycle updates a latent state z
# several times and then the state y, from which the answer is read. This notebook
# follows y and z from cycle to cycle on five puzzles that the model solves and on three
# that it does not solve: their paths, how fast they move, what the heads read from
# them, and whether small changes grow.
#
# It takes about half a minute on a CPU. [docs/inspect.md](../docs/inspect.md) lists the
# functions.

# %%
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

import trm_jax
from trm_jax.inspect import cells, grids, lens, notebook, operators, paths, stability
from trm_jax.inspect.replay_record import as_record
from trm_jax.inspect.style import COLORS, GREY, draw_band

model = trm_jax.load("sudoku_6x6")
solved = [
    "..4..23...5....2....3.64.3.....4...6",
    "....231......5.6....2.3.........6..5",
    ".4.3..3...6.......265.........5.6.2.",
    ".2.3....1.5....1...1..25..4....3..1.",
    "21.......3...461......4...46........",
]
unsolved = [
    ".....3..52...5..26...5..3.1.4.......",
    "....1...3........14..2...6.5.2..5.6.",
    "6..4...1...3.....4.3.1....2.......12",
]
traces = model.trace([*solved, *unsolved], every="cycle")
good, bad = traces[: len(solved)], traces[len(solved) :]
cycle = np.arange(1, 1 + len(traces[0]))
print(f"{len(traces)} puzzles, {len(cycle)} cycles each")
print("shape of y and of z:", good[0].z.shape[1:])
print("valid at the end:", *[bool(one.valid[-1]) for one in traces])

# %% [markdown]
# The states have one row for the puzzle id, one for each of the 36 cells, and 64
# channels.
#
# ## Paths
#
# Each state is one point in a space of 37 x 64 dimensions. The figure shows the two
# principal components of all these points, so that all paths share their axes. A ring
# marks the state after the first cycle, and a dot that after the last one. The states
# of solved puzzles come to rest, each at its own place. The states of unsolved puzzles
# go on moving.

# %%
kinds = [(good, COLORS[0], "solved"), (bad, COLORS[1], "unsolved")]
with notebook.figure("paths", 1, 2, size=(9, 4)) as (_, axes):
    for axis, name in zip(axes[0], "yz", strict=True):
        plane = paths.principal_components(traces, name)
        for group, color, label in kinds:
            for number, one in enumerate(group):
                first, second = plane.path(one).T
                axis.plot(first, second, color=color, linewidth=0.8, alpha=0.8)
                axis.plot(first[0], second[0], "o", color=color, fillstyle="none")
                named = "" if number else label
                axis.plot(first[-1], second[-1], "o", color=color, label=named)
        shares = [f"{share:.0%} of the variance" for share in plane.explained]
        axis.set(
            xlabel=f"component 1 of {name} ({shares[0]})",
            ylabel=f"component 2 of {name} ({shares[1]})",
        )
    axes[0, 0].legend()

# %% [markdown]
# ## Motion
#
# The relative motion of a state is its distance to the state one cycle before, divided
# by the norm of that state. The lines are means over the puzzles, and the bands reach
# from the least to the greatest value.

# %%
with notebook.figure("motion", 1, 2, size=(9, 2.9), sharey=True) as (_, axes):
    for axis, name in zip(axes[0], "yz", strict=True):
        for group, color, label in kinds:
            motion = [paths.path_measures(one, name)["motion"] for one in group]
            look = {"color": color, "label": f"{len(group)} {label}"}
            draw_band(axis, cycle, motion, **look)
        axis.set(yscale="log", xlabel="cycle", ylabel=f"relative motion of {name}")
    axes[0, 1].legend()

# %% [markdown]
# ## How alike the states are
#
# The cosine between the latents z of any two cycles shows when a path ends. On the
# solved puzzle, all states from cycle 15 on are alike. On the unsolved puzzle the
# states go on changing; the bright stripes beside the diagonal are earlier states to
# which they come near again.

# %%
with notebook.figure("cosines", 1, 2, size=(7.8, 3.4)) as (figure, axes):
    for axis, one, label in zip(
        axes[0], (good[3], bad[0]), ("solved", "unsolved"), strict=True
    ):
        edges = (0.5, len(cycle) + 0.5, len(cycle) + 0.5, 0.5)
        look = {"cmap": "viridis", "vmin": 0, "vmax": 1, "extent": edges}
        image = axis.imshow(paths.step_cosines(one, "z"), **look)
        axis.set(xlabel="cycle", ylabel="cycle", title=f"a puzzle that is {label}")
        axis.grid(visible=False)
    figure.colorbar(image, ax=axes[0], label="cosine of z")

# %% [markdown]
# The next figure looks at one cycle at a time, over the solved puzzles. The cosine
# between inputs compares the same cell of two puzzles. The cosine between tokens
# compares two cells of one puzzle. The effective rank counts the directions that the
# rows of all states take; 64 is the most. In a model whose latents collapse, the
# cosines would rise towards 1 and the rank would fall towards 1.

# %%
with notebook.figure("alike", 1, 2, size=(9, 2.9)) as (_, axes):
    for name, color in zip("yz", COLORS, strict=False):
        alike = paths.input_measures(good, name)
        for kind, line in (("input", "-"), ("token", "--")):
            look = {
                "color": color,
                "linestyle": line,
                "label": f"{name}, between {kind}s",
            }
            axes[0, 0].plot(cycle, alike[f"{kind}_cosine"], **look)
        axes[0, 1].plot(cycle, alike["effective_rank"], color=color, label=name)
    axes[0, 0].set(xlabel="cycle", ylabel="mean cosine", ylim=(0, 0.5))
    axes[0, 1].set(xlabel="cycle", ylabel="effective rank", ylim=(0, 64))
    axes[0, 0].legend(ncols=2)
    axes[0, 1].legend()

# %% [markdown]
# ## What the heads read from z
#
# The head that reads the answer from y can be applied to z as well (a logit lens). It
# was not trained for that, so what it says is a reading and no answer. The left panel
# shows the share of cells that agree with the final answer (the answer of y after the
# last cycle, so y ends at 100 %). The right panel follows single cycles of one solved
# puzzle, sublayer by sublayer, through their network calls: a cycle updates z twice,
# and then y.

# %%
with notebook.figure("lens", 1, 2, size=(9, 2.9)) as (_, axes):
    for name, line in (("y", "-"), ("z", "--")):
        for group, color, label in kinds:
            read = np.array([lens.lens(model, one, name).agreement for one in group])
            look = {"color": color, "linestyle": line, "label": f"{name}, {label}"}
            axes[0, 0].plot(cycle, 100 * read.mean(0), **look)
    one, x = good[3], model.embed(solved[3])
    for k, color in zip((0, 4, 12), COLORS, strict=False):
        agreement = []
        for network, hidden in operators.network_calls(
            model, one.y[k : k + 1], one.z[k : k + 1], x
        ):
            of_layers = lens.layer_lens(
                model, hidden, network, answer=one.tokens[-1], loss=one.loss
            )
            agreement += [layer.agreement[0] for layer in of_layers.values()]
        places = np.arange(1, 1 + len(agreement))
        axes[0, 1].plot(
            places, 100 * np.array(agreement), "o-", color=color, label=f"cycle {k + 2}"
        )
    for line in (4.5, 8.5):
        axes[0, 1].axvline(line, ymin=0.12, color=GREY, linestyle=":")
    axes[0, 0].set(
        xlabel="cycle", ylabel="cells as in the final answer, %", ylim=(50, 102)
    )
    axes[0, 1].set(xlabel="sublayer (dotted: between network calls)", ylim=(50, 102))
    axes[0, 1].set(ylabel="cells as in the final answer, %", xticks=places)
    axes[0, 0].legend(ncols=2, loc="lower right")
    axes[0, 1].legend(ncols=3, loc="lower right")

# %% [markdown]
# ## Do small changes grow?
#
# The Lyapunov exponent is the mean growth of a small change, in nats per cycle. The
# Jacobian of each cycle carries the change along the path. Below zero, nearby states
# come together. The growth in the first cycle is that of a random change and of the
# first state, which is the same for all puzzles.

# %%
embedded = np.concatenate([model.embed(text) for text in [*solved, *unsolved]])
found = stability.lyapunov(model, traces, embedded)
rates = np.array([one.per_cycle for one in found])
with notebook.figure("growth", size=(6, 2.9)) as (_, ((axis,),)):
    for group, color, label in kinds:
        rows = slice(None, len(good)) if group is good else slice(len(good), None)
        look = {"color": color, "label": f"{len(group)} {label}"}
        draw_band(axis, cycle, rates[rows], **look)
    axis.axhline(0, color=GREY, linestyle=":")
    axis.set(xlabel="cycle", ylabel="growth, nats per cycle")
    axis.legend()
for label, rows in (("solved", rates[: len(good)]), ("unsolved", rates[len(good) :])):
    late = rows[:, len(cycle) // 2 :].mean(1)
    print(
        f"{label}: exponent over the second half", *[f"{value:.2f}" for value in late]
    )

# %% [markdown]
# The Jacobian of one cycle has eigenvalues. If the largest of them has a size below 1
# at a state that no longer moves, then nearby states return to it. The figure shows
# eigenvalues at the last state of two puzzles, and the unit circle. They are estimates.
# The iteration ends when the largest one has converged, so the number of points has no
# meaning.

# %%
last = slice(-1, None)
spectra = []
for one, x in zip(traces, embedded, strict=True):
    spectra += stability.spectrum(model, one.y[last], one.z[last], x[None])
with notebook.figure("spectrum", 1, 2, size=(7, 3.6), sharex=True, sharey=True) as (
    _,
    axes,
):
    turn = np.exp(2j * np.pi * np.linspace(0, 1, 200))
    shown = (3, COLORS[0], "solved"), (len(good), COLORS[1], "unsolved")
    for axis, (row, color, label) in zip(axes[0], shown, strict=True):
        axis.plot(turn.real, turn.imag, color=GREY, linestyle=":")
        values = spectra[row].values
        axis.plot(values.real, values.imag, "o", color=color)
        title = f"a puzzle that is {label}: radius {spectra[row].radius:.2f}"
        axis.set(
            aspect="equal", xlabel="real part", ylabel="imaginary part", title=title
        )
for label, rows in (
    ("solved", spectra[: len(good)]),
    ("unsolved", spectra[len(good) :]),
):
    print(f"{label}: spectral radius", *[f"{one.radius:.2f}" for one in rows])

# %% [markdown]
# ## One cycle as a function
#
# `model.cycle` is a plain function of y, z and the question x, and JAX can
# differentiate it. `jax.jvp` gives what a cycle makes of a small change. Here the
# latent of one cell is changed in one channel, and the state y answers in all cells.

# %%
one, x, cell = good[0], model.embed(solved[0]), 14
y, z = jnp.asarray(one.y[:1]), jnp.asarray(one.z[:1])
change = jnp.zeros_like(z).at[0, 1 + cell, 0].set(1.0)
_, moved = jax.jvp(lambda latent: model.cycle(y, latent, x)[0], (z,), (change,))
size = np.linalg.norm(moved[0, 1:], axis=-1)
others = np.delete(size, cell).mean()
print(f"cell {cell} moves by {size[cell]:.3f}, the others by {others:.3f}")

# %% [markdown]
# `cells.influence` does this for all channels and all cells. Entry [i, j] says how much
# a change of z at cell i moves y at cell j: the size of the response divided by the
# size of the change. The maps show, for three cells (dots), where a change of their
# latent arrives.

# %%
record = as_record(one, model.task, title="", model=model.facts())
early = cells.influence(model, one.y[:1], one.z[:1], x)
late = cells.influence(model, one.y[last], one.z[last], x)
with notebook.figure("influence", 2, 3, size=(7.2, 4.8)) as (figure, axes):
    for row, (maps, when) in enumerate(((early, "the first"), (late, "the last"))):
        most = float(np.quantile(maps, 0.98))
        for axis, place in zip(axes[row], (14, 21, 35), strict=True):
            image = grids.draw_cells(axis, maps[place], record, most=most, mark=place)
        axes[row, 1].set_title(f"at the state after {when} cycle")
        figure.colorbar(image, ax=axes[row], label="response / change", extend="max")

# %% [markdown]
# MLP-t has one weight for each pair of cells, and nobody told it which cells share a
# row, a column or a box. The bars show the mean response of the cell itself, of cells
# that share a unit with it, and of all others, over all cells. Lines reach from the
# least to the greatest mean of a puzzle. Cells that share a unit respond more.

# %%
related = cells.relations((6, 6), (2, 3))
means = {
    when: [
        cells.by_relation(cells.influence(model, one.y[k], one.z[k], x[None]), related)
        for one, x in zip(good, embedded, strict=False)
    ]
    for when, k in (("first", slice(0, 1)), ("last", last))
}
with notebook.figure("relations", 1, 2, size=(9, 2.9)) as (_, axes):
    for axis, (when, by_puzzle) in zip(axes[0], means.items(), strict=True):
        names = list(by_puzzle[0])
        values = np.array([[of_one[name] for name in names] for of_one in by_puzzle])
        errors = np.abs(np.array([values.min(0), values.max(0)]) - values.mean(0))
        axis.bar(names, values.mean(0), yerr=errors, color=COLORS[5], capsize=3)
        axis.grid(axis="x", visible=False)
        title = f"at the state after the {when} cycle, {len(good)} puzzles"
        axis.set(ylabel="response / change", title=title)

# %% [markdown]
# ## What to try next
#
# * Replace the puzzles, or trace more cycles: `model.trace(puzzles, steps=64,
#   every="cycle")`. Does an unsolved puzzle come to rest?
# * `every="call"` records the state after every network call.
# * Take a model that you have trained: `trm_jax.load("runs/demo")`.
# * [The next notebook](03_trm_against_hybrids.ipynb) compares four networks.
