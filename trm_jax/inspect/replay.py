# SPDX-License-Identifier: Apache-2.0
"""A page that plays the reasoning of a model on one puzzle, step by step.

python -m trm_jax.inspect.replay RECORD.json page.html

A record is a dict of JSON values, with m cells and tokens from 0 on:

    format      1
    task        "sudoku", "maze", "arc" or "nonogram"
    title       text at the top of the page
    model       facts about the model: name -> text or number
    shape       [rows, columns], m = rows * columns
    box         [rows, columns] of a box, or null
    symbols     the text of every token
    colours     a CSS colour, or null, for every token; or null
    question    m tokens
    given       m booleans: which cells are clues
    solution    m tokens, or null if unknown
    steps       one dict per supervision step: tokens (m), confidence (m, probability of
                the token), entropy (m, nats), q_halt (a logit), halt_probability,
                changed (cells whose token differs from the step before, or from the
                question), valid (boolean, or null if unknown)
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trm_jax.beside import pipeline
from trm_jax.errors import ConfigError, SaveError
from trm_jax.files import write_whole
from trm_jax.inspect.html_page import assemble

FORMAT = 1
TASKS = ("sudoku", "maze", "arc", "nonogram")
DIGITS = 3  # decimals of confidence and entropy that the page shows
_FIELDS = {
    "title": str,
    "model": Mapping,
    "shape": list,
    "box": list | None,
    "symbols": list,
    "colours": list | None,
    "question": list,
    "given": list,
    "solution": list | None,
    "steps": list,
}
_STEP = {
    "tokens": list,
    "confidence": list,
    "entropy": list,
    "q_halt": float | int,
    "halt_probability": float | int,
    "changed": int,
    "valid": bool | None,
}


def page(record: Mapping[str, Any]) -> str:
    """The page of a record. Raises ConfigError, which names the place that is wrong."""
    check(record)
    steps = [
        dict(step)
        | {name: [round(v, DIGITS) for v in step[name]] for name in _ROUNDED}
        | {name: round(step[name], 5) for name in ("q_halt", "halt_probability")}
        for step in record["steps"]
    ]
    return assemble("replay.html", {**record, "steps": steps})


_ROUNDED = ("confidence", "entropy")


def check(record: Mapping[str, Any]) -> None:
    """Raise ConfigError if this is no record of format 1."""
    _check_fields(record, {"format": int, "task": str} | _FIELDS, "record")
    if record["format"] != FORMAT:
        raise ConfigError(f"record.format = {record['format']}; expected {FORMAT}")
    if record["task"] not in TASKS:
        expected = ", ".join(TASKS)
        raise ConfigError(
            f"record.task = {record['task']!r}; expected one of {expected}"
        )
    for name in ("shape", "box"):
        sizes = record[name]
        if sizes is not None and (
            len(sizes) != 2 or not all(isinstance(n, int) and n > 0 for n in sizes)
        ):
            raise ConfigError(
                f"record.{name} = {sizes}; expected two numbers, 1 or more"
            )
    num_tokens, (rows, columns) = len(record["symbols"]), record["shape"]
    if record["colours"] is not None:
        _check_length(record["colours"], num_tokens, "record.colours")
    _check_length(record["given"], rows * columns, "record.given")
    before = record["question"]
    for name in ("question", "solution"):
        if record[name] is not None:
            _check_tokens(record[name], rows * columns, num_tokens, f"record.{name}")
    if not record["steps"]:
        raise ConfigError("record.steps is empty; expected a supervision step")
    for i, step in enumerate(record["steps"]):
        place = f"record.steps[{i}]"
        _check_fields(step, _STEP, place)
        _check_tokens(step["tokens"], rows * columns, num_tokens, f"{place}.tokens")
        for name in _ROUNDED:
            _check_length(step[name], rows * columns, f"{place}.{name}")
        pairs = zip(step["tokens"], before, strict=True)
        if (changed := sum(a != b for a, b in pairs)) != step["changed"]:
            raise ConfigError(
                f"{place}.changed = {step['changed']}, but {changed} cells differ from "
                f"{'the step before' if i else 'the question'}"
            )
        before = step["tokens"]


def _check_fields(found: Any, fields: Mapping[str, Any], place: str) -> None:
    if not isinstance(found, Mapping):
        raise ConfigError(f"{place} is a {type(found).__name__}; expected an object")
    if found.keys() != fields.keys():
        odd = sorted(found.keys() ^ fields.keys())
        raise ConfigError(f"{place}: missing or unknown: {', '.join(map(str, odd))}")
    for name, kind in fields.items():
        if not isinstance(found[name], kind):
            actual = type(found[name]).__name__
            raise ConfigError(f"{place}.{name} is of type {actual}")


def _check_length(values: list[Any], length: int, place: str) -> None:
    if len(values) != length:
        raise ConfigError(f"{place} has {len(values)} values; expected {length}")


def _check_tokens(values: list[Any], length: int, count: int, place: str) -> None:
    _check_length(values, length, place)
    if wrong := [t for t in values if not (isinstance(t, int) and 0 <= t < count)]:
        raise ConfigError(f"{place} has {wrong[0]!r}; expected tokens 0 to {count - 1}")


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
