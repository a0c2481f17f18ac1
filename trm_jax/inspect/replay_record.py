# SPDX-License-Identifier: Apache-2.0
"""A trace as a plain record, for JSON files, replay pages and pictures."""

from typing import Any

import numpy as np

from trm_jax.inspect.trace import Trace

FORMAT = 1


def as_record(
    trace: Trace,
    task: Any,
    *,
    title: str,
    model: dict[str, Any],
    solution: np.ndarray | None = None,
) -> dict[str, Any]:
    """What a replay shows: the drawn cells of the question and of every record.

    `task` draws the tokens, and `solution` are tokens `m`. Cells are listed row by row;
    entropies are in nats.
    """
    look = task.look()
    question = task.shown(trace.question)
    cells = task.shown(trace.tokens)  # k r c
    blank = task.spec().blank
    given = question != blank if blank is not None else np.zeros(question.shape, bool)
    before = np.concatenate([question[None], cells[:-1]])
    changed = (cells != before).sum((1, 2))
    valid = trace.valid
    confidence, entropy = task.shown(trace.confidence), task.shown(trace.entropy)
    return {
        "format": FORMAT,
        "task": task.common.task,
        "title": title,
        "model": model,
        "every": trace.every,
        "shape": list(question.shape),
        "box": list(look.box) if look.box else None,
        "symbols": list(look.symbols),
        "colours": list(look.colours) if look.colours else None,
        "question": _flat(question),
        "given": _flat(given),
        "solution": None if solution is None else _flat(task.shown(solution)),
        "steps": [
            {
                "step": int(trace.steps[k]),
                "tokens": _flat(cells[k]),
                "confidence": _flat(confidence[k].round(4)),
                "entropy": _flat(entropy[k].round(4)),
                "q_halt": round(float(trace.q_halt[k]), 5),
                "halt_probability": round(float(trace.halt_probability[k]), 5),
                "changed": int(changed[k]),
                "valid": None if valid is None else bool(valid[k]),
            }
            for k in range(len(trace))
        ],
    }


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


def _flat(cells: np.ndarray) -> list[Any]:
    return list(cells.ravel().tolist())
