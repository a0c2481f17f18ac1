# SPDX-License-Identifier: Apache-2.0
"""Prepares ARC tasks: `python -m data_pipeline.prepared.arc_agi.prepare --help`.

Exit code 0 means that the data set was prepared and read back: facts go to stdout,
warnings to stderr. Exit code 2 means that it was not.
"""

import argparse
from typing import Any

import numpy as np

from ... import console
from .. import writing
from ..reading import PreparedSet
from .names import CUSTOM, NAME, SPLIT, SUBSETS, prepared_set


def main(argv: list[str]) -> int:
    """Prepares by command line; returns the exit code."""
    return writing.run(_parser(), argv, _choose, _facts)


def _parser() -> argparse.ArgumentParser:
    common = writing.data_dir_parser(NAME)
    common.add_argument("--source", required=True, help="folder of the JSON files")
    common.add_argument("--num_augmentations", type=int, default=1_000)
    common.add_argument("--seed", type=int, default=0)
    common.add_argument(
        "--allow_leaks",
        action="store_true",
        help="train on tasks that hold answers to test inputs",
    )
    parser = writing.parser_of(NAME)
    configs = parser.add_subparsers(dest="config", required=True)
    for config, (train, test) in SUBSETS.items():
        about = f"train on {', '.join(train)}; test on {test}"
        configs.add_parser(config, parents=[common], help=about)
    other = configs.add_parser(CUSTOM, parents=[common], help="subsets of your own")
    other.add_argument("--train_subsets", nargs="+", required=True)
    other.add_argument("--test_subset", required=True)
    return parser


def _choose(options: dict[str, Any]) -> PreparedSet:
    config = options.pop("config")
    if config in SUBSETS:
        options["train_subsets"], options["test_subset"] = SUBSETS[config]
    return prepared_set(options["train_subsets"], options["test_subset"])


def _facts(columns: dict[str, dict[str, np.ndarray]]) -> str:
    tasks = columns[SPLIT]
    num_test = int(tasks["is_test"].sum())
    return (
        f"{len(tasks['is_test']) - num_test:,} tasks to train on, "
        f"{num_test:,} to test on, {1 + len(tasks['codes']):,} puzzle ids"
    )


if __name__ == "__main__":
    console.run(main)
