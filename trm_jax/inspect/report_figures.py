# SPDX-License-Identifier: Apache-2.0
"""The pictures of a report: curves and bars of an evaluation, and grids of puzzles."""

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from trm_jax.inspect import style

_SIZE = 4.4, 2.8  # inches; a page scales them to its width
_THICK, _THIN = 0.06, 0.02  # lines of a grid, in cells
_FILLED = "#4a4f57"


def accuracy_by_step(result: Mapping[str, Any]) -> str:
    """Exact and cell accuracy, and the share that wants to halt, over steps."""
    rows = result["by_step"]
    names = {"exact_accuracy": "exact", "cell_accuracy": "cells", "halted": "halted"}
    with style.drawing(size=_SIZE) as (figure, ((axis,),)):
        for index, (name, label) in enumerate(names.items()):
            values = [100 * row[name] for row in rows]
            look = style.line_style(index) | ({"linestyle": ":"} if index > 1 else {})
            steps = [row["steps"] for row in rows]
            axis.plot(steps, values, marker="o", label=label, **look)
        axis.set(xlabel="supervision steps", ylabel="puzzles or cells, %")
        axis.set_ylim(0, 102)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend()
        return style.as_svg(figure, "accuracy by supervision steps")


def halting_histogram(result: Mapping[str, Any]) -> str:
    """The number of puzzles by the step in which they first want to halt."""
    halting = result["halting"]
    counts, labels = (
        [*halting["first"], halting["never"]],
        range(1, 1 + len(halting["first"])),
    )
    places = np.arange(1, len(counts) + 1)
    with style.drawing(size=_SIZE) as (figure, ((axis,),)):
        colors = [style.COLORS[0]] * len(labels) + [style.COLORS[1]]
        axis.bar(places, counts, color=colors, width=0.8)
        every = -(-len(labels) // 12)  # no more labels than there is room for
        shown = [*labels[::every]]
        axis.set_xticks([*shown, len(counts)], [*map(str, shown), "never"])
        axis.grid(axis="x", visible=False)
        axis.set(xlabel="first step in which the model halts", ylabel="puzzles")
        return style.as_svg(figure, "first step in which the model halts")


def reliability(result: Mapping[str, Any]) -> str:
    """Share of right answers over the halting probability, with counts below."""
    bins = result["calibration"]["bins"]
    sure = [100 * b["probability"] for b in bins]
    right = [100 * b["exact_accuracy"] for b in bins]
    ends = np.array([b["exact_accuracy_95"] for b in bins]).T * 100
    blue, width, height = style.COLORS[0], *_SIZE
    ratios = {"height_ratios": (3, 1)}
    with style.drawing(
        2, 1, size=(width, 1.25 * height), sharex=True, gridspec_kw=ratios
    ) as (figure, ((above,), (below,))):
        above.plot([0, 100], [0, 100], color=style.GREY, linestyle="--")
        errors = np.abs(ends - right)
        above.errorbar(sure, right, errors, color=blue, marker="o", capsize=2)
        above.set(ylabel="right answers, %", ylim=(-2, 102), xlim=(-2, 102))
        middles = [50 * (b["from"] + b["to"]) for b in bins]
        bars = below.bar(middles, [b["puzzles"] for b in bins], width=9, color=blue)
        below.bar_label(bars, fontsize=7)
        below.set(yscale="log", ylabel="puzzles", xlabel="halting probability, %")
        below.set_ylim(0.5, 4 * max(b["puzzles"] for b in bins))
        return style.as_svg(figure, "right answers by halting probability")


def accuracy_by_attribute(result: Mapping[str, Any], name: str) -> str:
    """Exact accuracy by an attribute of the puzzles, with 95 % intervals."""
    rows = result[f"by_{name}"]
    labels = ["-".join(dict.fromkeys([str(r["from"]), str(r["to"])])) for r in rows]
    values = np.array([100 * row["exact_accuracy"] for row in rows])
    ends = np.array([row["exact_accuracy_95"] for row in rows]).T * 100
    with style.drawing(size=_SIZE) as (figure, ((axis,),)):
        look = {"error_kw": {"ecolor": style.COLORS[-1], "capsize": 2}}
        errors = np.abs(ends - values)
        axis.bar(range(len(rows)), values, yerr=errors, color=style.COLORS[5], **look)
        texts = [f"{x}\n({r['puzzles']})" for x, r in zip(labels, rows, strict=True)]
        axis.set_xticks(range(len(rows)), texts, fontsize=7)
        axis.grid(axis="x", visible=False)
        axis.set(xlabel=f"{name} (puzzles)", ylabel="exact accuracy, %", ylim=(0, 102))
        return style.as_svg(figure, f"exact accuracy by {name}")


def grid(
    tokens: np.ndarray, look: Any, title: str, *, given: np.ndarray, wrong: np.ndarray
) -> str:
    """A puzzle `r c` as an SVG element.

    `look` has the fields of `Look` of the data pipeline. Cells have the colours of
    their tokens, if there are any, or else their symbols; `#` is a filled cell, and
    `.` and `?` are empty ones. `given` and `wrong`, both `r c`, mark cells: given ones
    are bold, and wrong ones have a red frame.
    """
    rows, columns = tokens.shape
    filled = [_FILLED if symbol == "#" else "" for symbol in look.symbols]
    parts = [f'<rect width="{columns}" height="{rows}" fill="#fff"/>']
    for token in np.unique(tokens):
        if colour := (look.colours or filled)[token]:
            places = np.argwhere(tokens == token)
            cells = "".join(f"M{c} {r}h1v1h-1z" for r, c in places)
            parts.append(f'<path d="{cells}" fill="{colour}"/>')
    parts.append(_lines(range(rows + 1), columns, "h"))
    parts.append(_lines(range(columns + 1), rows, "v"))
    if look.box:
        across, down = look.box
        parts.append(_lines(range(0, rows + 1, across), columns, "h", _THICK))
        parts.append(_lines(range(0, columns + 1, down), rows, "v", _THICK))
    if wrong.any():
        corners = np.argwhere(wrong) + 0.06
        frames = "".join(f"M{c:.2f} {r:.2f}h.88v.88h-.88z" for r, c in corners)
        parts.append(f'<path d="{frames}" class="wrong" fill="none"/>')
    for (r, c), token in np.ndenumerate(tokens):
        text = "" if look.colours else look.symbols[token].strip("#.? ")
        if text:
            kind = "given" if given[r, c] else "wrong" if wrong[r, c] else "filled"
            place = f'x="{c + 0.5}" y="{r + 0.5}"'
            parts.append(f'<text {place} class="{kind}">{html.escape(text)}</text>')
    box, label = f"-.04 -.04 {columns + 0.08} {rows + 0.08}", html.escape(title)
    head = f'<svg class="puzzle" viewBox="{box}" role="img" aria-label="{label}">'
    return f"{head}{''.join(parts)}</svg>"


def _lines(places: range, length: int, way: str, width: float = _THIN) -> str:
    """Straight lines across a grid: "h" for horizontal, "v" for vertical ones."""
    starts = (f"M0 {p}h{length}" if way == "h" else f"M{p} 0v{length}" for p in places)
    look = f'fill="none" stroke="#9aa0a8" stroke-width="{width}"'
    return f'<path d="{"".join(starts)}" {look}/>'
