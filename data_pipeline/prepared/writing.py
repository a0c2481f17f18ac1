# SPDX-License-Identifier: Apache-2.0
"""Stores a data set with TFDS, for the commands that prepare data sets.

Exit code 0 means that the data set was prepared and read back: facts go to stdout,
warnings to stderr. Exit code 2 means that it was not.
"""

import argparse
import dataclasses
import importlib
import pathlib
import sys
from collections.abc import Callable
from typing import Any, get_args

import numpy as np

from .. import console
from ..errors import DataError
from ..settings import task_module
from .reading import NEEDS_TFDS, PreparedSet

Facts = Callable[[dict[str, dict[str, np.ndarray]]], str]  # columns by split -> a line


def prepare(
    prepared: PreparedSet, data_dir: str | pathlib.Path, **source: Any
) -> list[str]:
    """Stores all splits and their cache under `data_dir`; returns warnings.

    `source` holds the arguments of the builder's `read`. A folder that exists is
    refused. Nothing appears under its final name before all records are written.
    """
    folder = prepared.folder(data_dir)
    if folder.exists():
        raise DataError(f"{folder}: exists already; remove it to prepare it again")
    try:
        import array_record  # noqa: F401  TFDS imports it late
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(f"{folder}: to prepare it {NEEDS_TFDS}: {error}") from error
    name = prepared.name
    module = importlib.import_module(f".{name}.{name}_dataset_builder", __package__)
    warnings = [
        f"{path}: left by a preparation that was killed or still runs"
        for path in prepared.unfinished(data_dir)
    ]
    tfds.disable_progress_bar()
    builder = module.Builder(
        data_dir=folder.parents[2], config=prepared.config, **source
    )
    try:
        builder.download_and_prepare()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error}") from error
    for split in prepared.splits:
        prepared.open(data_dir, split)  # reads the records back, fills the cache
    return warnings + builder.warnings


def run(
    parser: argparse.ArgumentParser,
    argv: list[str],
    choose: Callable[[dict[str, Any]], PreparedSet],
    facts: Facts,
) -> int:
    """Prepares by command line; returns the exit code.

    `choose` removes its own options from the parsed ones. The others are passed to
    `prepare` as the source.
    """
    options = vars(parser.parse_args(argv))
    data_dir = options.pop("data_dir")
    try:
        prepared = choose(options)
        warnings = prepare(prepared, data_dir, **options)
        columns = {s: prepared.open(data_dir, s) for s in prepared.splits}
    except DataError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stderr.writelines(f"warning: {warning}\n" for warning in warnings)
    console.say(f"{prepared.folder(data_dir)}: {facts(columns)}\n")
    return 0


def parser_of(name: str) -> argparse.ArgumentParser:
    """The argument parser of a data set's command."""
    return argparse.ArgumentParser(prog=f"python -m {__package__}.{name}.prepare")


def data_dir_parser(name: str) -> argparse.ArgumentParser:
    """The option that all the commands have, as a parent of their parsers."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--data_dir", required=True, help=f"parent of {name}/")
    return parser


def puzzle_parser(
    name: str, common: argparse.ArgumentParser, task: str
) -> argparse.ArgumentParser:
    """The parser of a command that prepares puzzles from the hub, CSV or a generator.

    The generator's options are knobs of the task. `common` has the options that choose
    the config.
    """
    parser = parser_of(name)
    sources = parser.add_subparsers(dest="source", required=True)
    parents = [data_dir_parser(name), common]
    sources.add_parser("hub", parents=parents, help="download the public files")
    csv = sources.add_parser("csv", parents=parents, help="read files of your own")
    csv.add_argument("--train", required=True, help="path of a .csv or .csv.gz file")
    csv.add_argument("--test", required=True, help="the CSV file of test puzzles")
    new = sources.add_parser("generator", parents=parents, help="make new puzzles")
    fields = dataclasses.fields(task_module(task).Settings)
    for field in fields:
        if "sources" in field.metadata:  # only the generator reads it
            kind = (get_args(field.type) or (field.type,))[0]
            new.add_argument(
                f"--{field.name}",
                type=kind,
                nargs=len(get_args(field.type)) or None,
                default=field.default,
                help=field.metadata["doc"],
            )
    new.add_argument("--train_puzzles", type=int, required=True)
    new.add_argument("--test_puzzles", type=int, required=True)
    new.add_argument("--seed", type=int, default=0)
    return parser


def puzzle_facts(columns: dict[str, dict[str, np.ndarray]]) -> str:
    """How many puzzles each split holds."""
    counts = {split: len(arrays["inputs"]) for split, arrays in columns.items()}
    return ", ".join(f"{split} {count:,} rows" for split, count in counts.items())
