# SPDX-License-Identifier: Apache-2.0
"""Checks puzzle files: `python -m data_pipeline.check KIND PATH`.

Exit code 0 means that the data can be used: facts go to stdout, warnings to stderr.
Exit code 2 means that they cannot.
"""

import sys
from pathlib import Path

from . import console
from .arc import check as arc
from .arrays import read_arrays
from .errors import DataError
from .maze import check as maze
from .nonogram import check as nonogram
from .sudoku import check as sudoku
from .text_files import SPLITS


def main(argv: list[str]) -> int:
    """Runs the check; returns the exit code."""
    if argv in (["-h"], ["--help"]):
        console.say(USAGE)
        return 0
    if len(argv) != 2 or argv[0] not in KINDS:
        sys.stderr.write(USAGE)
        return 2
    try:
        facts, warnings = KINDS[argv[0]](Path(argv[1]))
    except DataError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    console.say("".join(f"{line}\n" for line in facts))
    sys.stderr.writelines(f"warning: {line}\n" for line in warnings)
    return 0


def check_built(folder: Path) -> tuple[list[str], list[str]]:
    """Facts about the splits of an array folder."""
    splits = [split for split in SPLITS if (folder / split).is_dir()]
    if not splits:
        raise DataError(f"{folder}: no folder train or test found in it")
    facts = []
    for split in splits:
        puzzles, spec = read_arrays(folder, split)
        facts += [
            f"{folder / split}: {len(puzzles):,} rows, "
            f"{len(puzzles.puzzle_ids):,} puzzles, "
            f"{len(puzzles.group_starts) - 1:,} groups, "
            f"vocab_size {spec.vocab_size}, "
            f"grid {spec.grid_shape[0]}x{spec.grid_shape[1]}, "
            f"num_puzzles {spec.num_puzzles:,}",
            puzzles.digest_line(),
        ]
    return facts, []


KINDS = {
    "sudoku": sudoku.check,
    "maze": maze.check,
    "arc": arc.check,
    "nonogram": nonogram.check,
    "built": check_built,
}
USAGE = f"usage: python -m {__package__}.check {{{','.join(KINDS)}}} PATH\n"


if __name__ == "__main__":
    console.run(main)
