# SPDX-License-Identifier: Apache-2.0
"""Prepares a set of ARC tasks: `python -m data_pipeline.arc_agi.prepare --help`.

Exit code 0: prepared and read back; facts on stdout, warnings on stderr. 2: not.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import preparing
from ..prepared import PreparedSet
from .reader import CUSTOM, NAME, SPLIT, SUBSETS, prepared_set


def main(argv: list[str]) -> int:
    """Prepares by command line; returns the exit code."""
    return preparing.run(_parser(), argv, _choose, _facts)


def prepare(
    data_dir: str | pathlib.Path,
    *,
    train_subsets: Sequence[str],
    test_subset: str,
    **source: Any,
) -> list[str]:
    """Stores the tasks under `data_dir`, see preparing.prepare; returns warnings."""
    return preparing.prepare(
        prepared_set(train_subsets, test_subset),
        data_dir,
        train_subsets=train_subsets,
        test_subset=test_subset,
        **source,
    )


def _parser() -> argparse.ArgumentParser:
    common = preparing.data_dir_parser(NAME)
    common.add_argument("--source", required=True, help="folder of the JSON files")
    common.add_argument("--num_augmentations", type=int, default=1_000)
    common.add_argument("--seed", type=int, default=0)
    common.add_argument(
        "--allow_leaks",
        action="store_true",
        help="train on tasks that hold answers to test inputs",
    )
    parser = argparse.ArgumentParser(prog=f"python -m data_pipeline.{NAME}.prepare")
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
    sys.exit(main(sys.argv[1:]))
