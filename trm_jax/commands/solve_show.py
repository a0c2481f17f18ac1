# SPDX-License-Identifier: Apache-2.0
"""The record of a solved puzzle as text: grids, with what changed between them."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from trm_jax import api
from trm_jax.inspect.replay_record import marks, marks_between

LEGEND = "* changed, ! wrong"
LONG = 16  # records that are drawn one by one


def as_text(record: dict[str, Any], *, colour: bool) -> Iterator[str]:
    """Yield paragraphs: the question, the first answer, later ones if they change.

    Supervision steps in a row that change no cell share one line. Of more than LONG
    records, all but the first and the last are lists of changed cells.
    """
    yield _grid(record, -1, colour)
    if not colour:
        yield LEGEND
    steps = record["steps"]
    is_long, last = len(steps) > LONG, len(steps) - 1
    for quiet, group in itertools.groupby(
        range(len(steps)), lambda k: k > 0 and not steps[k]["changed"]
    ):
        found = [*group]
        if quiet:
            yield _quiet(steps, found[0], found[-1])
        for k in () if quiet else found:
            cells = f"{steps[k]['changed']} cells changed" if k else "first answer"
            line = f"supervision step {steps[k]['step']}: {cells}, {_sure(steps[k])}"
            listed = is_long and 0 < k < last
            more = (
                f": {_changes(record, k)}"
                if listed
                else "\n" + _grid(record, k, colour)
            )
            yield line + more
    if is_long and not steps[-1]["changed"]:
        yield "answer\n" + _grid(record, last, colour)


def of_votes(record: dict[str, Any], *, colour: bool) -> str:
    """The voted answer, marked where it differs from the last step's."""
    votes = record["votes"]
    count = f"votes: {votes['votes']} of {votes['forms']} forms gave this answer"
    last = record["steps"][-1]["tokens"]
    signs = marks_between(record, last, votes["tokens"])
    return f"{count}\n{_drawn(record, votes['tokens'], signs, colour)}"


def verdict(record: dict[str, Any]) -> tuple[str, bool]:
    """The last line, and whether the final answer is right as far as can be known.

    The rules of the puzzle judge it, or else the solution if it is known.
    """
    steps = record["steps"]
    final = record["votes"] or steps[-1]
    if final["valid"] is None and record["solution"] is not None:
        right = final["tokens"] == record["solution"]
        return f"right: {'yes' if right else 'no'}", right
    if final["valid"] is None:
        return "valid: unknown, since no rule and no solution judges it", True
    valid = [at["valid"] for at in steps]
    if final["valid"]:
        wrong = [k for k, good in enumerate(valid) if not good]
        first = wrong[-1] + 1 if wrong else 0
        if first == len(steps):  # by votes alone
            return "valid: yes", True
        return f"valid: yes (since supervision step {steps[first]['step']})", True
    if True in valid:
        once = steps[valid.index(True)]["step"]
        return f"valid: no (but it was after supervision step {once})", False
    return "valid: no", False


def _quiet(steps: list[dict[str, Any]], first: int, last: int) -> str:
    numbers = f"step {steps[first]['step']}"
    if first < last:
        numbers = f"steps {steps[first]['step']} to {steps[last]['step']}"
    return f"supervision {numbers}: nothing changed, {_sure(steps[last])}"


def _sure(at: dict[str, Any]) -> str:
    return f"sure of it to {100 * at['halt_probability']:.1f} %"


def _changes(record: dict[str, Any], k: int) -> str:
    """The cells that changed, as row, column and symbol."""
    before, after = (record["steps"][i]["tokens"] for i in (k - 1, k))
    columns = record["shape"][1]
    return ", ".join(
        f"r{1 + i // columns}c{1 + i % columns} {record['symbols'][new]}"
        for i, (old, new) in enumerate(zip(before, after, strict=True))
        if old != new
    )


def _grid(record: dict[str, Any], step: int, colour: bool) -> str:
    tokens = record["steps"][step]["tokens"] if step >= 0 else record["question"]
    return _drawn(record, tokens, marks(record, step), colour)


def _drawn(
    record: dict[str, Any], tokens: list[int], signs: list[str], colour: bool
) -> str:
    drawing = api.pipeline("drawing")
    box = tuple(record["box"]) if record["box"] else None
    look = drawing.Look(tuple(record["symbols"]), box)
    cells, shaped = (np.reshape(v, record["shape"]) for v in (tokens, signs))
    return "\n".join(drawing.grid_lines(cells, shaped, look, colour=colour))
