# SPDX-License-Identifier: Apache-2.0
"""A page that plays the reasoning of a model on one puzzle, step by step.

python -m trm_jax.inspect.replay RECORD.json page.html

A record is a dict of JSON values, with m cells and tokens from 0 on:

    format      1
    task        "sudoku", "maze", "arc" or "nonogram"
    title       text at the top of the page
    model       facts about the model: name -> text or number
    every       what a record follows: "step", "cycle" or "call"
    shape       [rows, columns], m = rows * columns
    box         [rows, columns] of a box, or null
    symbols     the text of every token
    colours     a CSS colour, or null, for every token; or null
    question    m tokens
    given       m booleans: which cells are clues
    solution    m tokens, or null if unknown
    votes       the answer by votes: tokens (m), valid, votes (forms that gave it),
                forms (all that were solved); or null
    steps       one dict per record: step (its supervision step, from 1), tokens (m),
                confidence (m, probability of the token), entropy (m, nats), q_halt (a
                logit), halt_probability, changed (cells whose token differs from the
                record before, or from the question), valid (boolean, or null if
                unknown)

`replay_record.py` makes such a record of a trace, and `solve.py --json` writes it.
"""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trm_jax.beside import pipeline
from trm_jax.errors import ConfigError, SaveError
from trm_jax.files import write_whole
from trm_jax.inspect.html_page import assemble
from trm_jax.inspect.replay_record import FORMAT

TASKS = ("sudoku", "maze", "arc", "nonogram")
DIGITS = 3  # decimals of confidence and entropy that the page shows
_PER_CELL = ("confidence", "entropy")
_FIELDS = {
    "format": int,
    "task": str,
    "title": str,
    "model": Mapping,
    "every": str,
    "shape": list,
    "box": list | None,
    "symbols": list,
    "colours": list | None,
    "question": list,
    "given": list,
    "solution": list | None,
    "votes": Mapping | None,
    "steps": list,
}
_STEP = {
    "step": int,
    "tokens": list,
    "confidence": list,
    "entropy": list,
    "q_halt": float | int,
    "halt_probability": float | int,
    "changed": int,
    "valid": bool | None,
}


def page(record: Any) -> str:
    """The page of a record. Raises ConfigError, which names the place that is wrong."""
    check(record)
    steps = [
        dict(step)
        | {name: [round(v, DIGITS) for v in step[name]] for name in _PER_CELL}
        | {name: round(step[name], 5) for name in ("q_halt", "halt_probability")}
        for step in record["steps"]
    ]
    return assemble("replay.html", {**record, "steps": steps})


def check(record: Any) -> None:
    """Raise ConfigError if this is no record of format 1."""
    _check_fields(record, _FIELDS, "record")
    if record["format"] != FORMAT:
        raise ConfigError(f"record.format = {record['format']}; expected {FORMAT}")
    if record["task"] not in TASKS:
        expected = f"expected one of {', '.join(TASKS)}"
        raise ConfigError(f"record.task = {record['task']!r}; {expected}")
    for name in ("shape", "box"):
        if record[name] is not None:
            _check_list(record[name], 2, int, f"record.{name}", low=1)
    num_tokens, m = len(record["symbols"]), math.prod(record["shape"])
    _check_list(record["symbols"], num_tokens, str, "record.symbols")
    if record["colours"] is not None:
        _check_list(record["colours"], num_tokens, str | None, "record.colours")
    _check_list(record["given"], m, bool, "record.given")
    for name in ("question", "solution"):
        if record[name] is not None:
            _check_list(record[name], m, int, f"record.{name}", high=num_tokens - 1)
    if not record["steps"]:
        raise ConfigError("record.steps is empty; expected a supervision step")
    before = record["question"]
    for i, step in enumerate(record["steps"]):
        place = f"record.steps[{i}]"
        _check_fields(step, _STEP, place)
        _check_list(step["tokens"], m, int, f"{place}.tokens", high=num_tokens - 1)
        for name in _PER_CELL:
            _check_list(step[name], m, float | int, f"{place}.{name}")
        changed = sum(a != b for a, b in zip(step["tokens"], before, strict=True))
        if changed != step["changed"]:
            than = "the step before" if i else "the question"
            found = f"{changed} cells differ from {than}"
            raise ConfigError(f"{place}.changed = {step['changed']}, but {found}")
        before = step["tokens"]


def _check_fields(found: Any, fields: Mapping[str, Any], place: str) -> None:
    if not isinstance(found, Mapping):
        raise ConfigError(f"{place} is a {type(found).__name__}; expected an object")
    if odd := sorted(map(str, found.keys() ^ fields.keys())):
        raise ConfigError(f"{place}: missing or unknown: {', '.join(odd)}")
    for name, kind in fields.items():
        if not isinstance(found[name], kind):
            raise ConfigError(f"{place}.{name} is a {type(found[name]).__name__}")


def _check_list(
    values: list[Any],
    length: int,
    kind: Any,
    place: str,
    *,
    low: int = 0,
    high: int | None = None,
) -> None:
    """Raise ConfigError if length or type differ, or an integer is out of range."""
    if len(values) != length:
        raise ConfigError(f"{place} has {len(values)} values; expected {length}")
    most = math.inf if high is None else high
    for i, value in enumerate(values):
        if not isinstance(value, kind) or (kind is int and not low <= value <= most):
            limits = f"{low} or more" if high is None else f"{low} to {high}"
            expected = limits if kind is int else "another type"
            raise ConfigError(f"{place}[{i}] = {value!r}; expected {expected}")


def main(argv: list[str]) -> int:
    """Run as the command line says; wrong input is one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m trm_jax.inspect.replay")
    parser.add_argument("record", type=Path, metavar="RECORD.json")
    parser.add_argument("out", type=Path, metavar="page.html")
    args = parser.parse_args(argv)
    try:
        record = json.loads(args.record.read_text(encoding="utf-8"))
        write_whole(args.out, page(record), SaveError)
    except (OSError, ConfigError, SaveError) as error:
        parser.error(str(error))
    except ValueError as error:
        parser.error(f"{args.record} is not JSON: {error}")
    pipeline("console").say(f"written to {args.out}; open it in a browser\n")
    return 0


if __name__ == "__main__":
    pipeline("console").run(main)
