# SPDX-License-Identifier: Apache-2.0
"""A trace as a plain record, for JSON files, replay pages and pictures."""

from typing import Any

import numpy as np

from trm_jax.inspect.trace import Trace

FORMAT = 1
EMPTY = 0  # the token PAD


def as_record(
    trace: Trace,
    task: Any,
    *,
    title: str,
    model: dict[str, Any],
    solution: np.ndarray | None = None,
    voted: Any = None,
) -> dict[str, Any]:
    """What a replay shows: the drawn cells of the question and of every record.

    `task` draws the tokens, `solution` are tokens `m`, and `voted` is the Solution by
    votes. Cells are listed row by row; entropies are in nats.
    """
    look, shape = task.look(), trace.grid_shape

    def drawn(tokens: np.ndarray) -> np.ndarray:
        return task.shown(tokens, trace.question).reshape(-1, *shape)

    question, cells = drawn(trace.question[None]), drawn(trace.tokens)
    answer = question[:0] if solution is None else drawn(solution[None])
    (first, *_) = cropped(*question, *cells, *answer)
    rows, columns = first.shape

    def flat(grid: np.ndarray) -> list[Any]:
        found: list[Any] = grid.reshape(shape)[:rows, :columns].ravel().tolist()
        return found

    changed = (cells != np.concatenate([question, cells[:-1]])).sum((1, 2))
    confidence, entropy = trace.confidence.round(4), trace.entropy.round(4)
    return {
        "format": FORMAT,
        "task": task.common.task,
        "title": title,
        "model": model,
        "every": trace.every,
        "shape": [rows, columns],
        "box": list(look.box) if look.box else None,
        "symbols": list(look.symbols),
        "colours": list(look.colours) if look.colours else None,
        "question": flat(question[0]),
        "given": flat(trace.given),
        "solution": None if solution is None else flat(answer[0]),
        "votes": voted
        and {
            "tokens": flat(drawn(voted.tokens[None])),
            "valid": voted.is_valid,
            "votes": voted.votes,
            "forms": voted.forms,
        },
        "steps": [
            {
                "step": int(trace.steps[k]),
                "tokens": flat(cells[k]),
                "confidence": flat(confidence[k]),
                "entropy": flat(entropy[k]),
                "q_halt": round(float(trace.q_halt[k]), 5),
                "halt_probability": round(float(trace.halt_probability[k]), 5),
                "changed": int(changed[k]),
                "valid": None if trace.valid is None else bool(trace.valid[k]),
            }
            for k in range(len(trace))
        ],
    }


def cropped(*grids: np.ndarray) -> list[np.ndarray]:
    """The grids `r c` without the last rows and columns that are empty in all."""
    used = np.any([grid != EMPTY for grid in grids], axis=0)
    rows = 1 + max(np.flatnonzero(used.any(1)), default=0)
    columns = 1 + max(np.flatnonzero(used.any(0)), default=0)
    return [grid[:rows, :columns] for grid in grids]


def marks(record: dict[str, Any], step: int) -> list[str]:
    """How each cell is marked after `step` (from 0), or in the question for -1.

    given; wrong or right if the solution is known; changed; or nothing.
    """
    if step < 0:
        return ["given" if given else "" for given in record["given"]]
    before = record["steps"][step - 1]["tokens"] if step else record["question"]
    return marks_between(record, before, record["steps"][step]["tokens"])


def marks_between(
    record: dict[str, Any], before: list[int], tokens: list[int]
) -> list[str]:
    """How the cells of an answer `tokens` are marked that comes after `before`."""
    solution, found = record["solution"], []
    for i, token in enumerate(tokens):
        if solution and token != solution[i]:
            found.append("wrong")
        elif record["given"][i] and token == record["question"][i]:
            found.append("given")
        elif token != before[i]:
            found.append("changed")
        else:
            found.append("right" if solution else "")
    return found
