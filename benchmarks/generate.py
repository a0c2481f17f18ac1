# SPDX-License-Identifier: Apache-2.0
"""Speed of the Sudoku generator: `python -m benchmarks.generate [COUNT]`.

It prints a table and, as the last line, the same rows as JSON. Half of the puzzles are
held out. Only 36 minimal puzzles with 2x2 boxes exist, so the cases with 2x2 and 2x3
boxes set a range of clues instead.
"""

import json
import sys
import time

import numpy as np

from data_pipeline.sudoku.generator import generate
from data_pipeline.sudoku.grid import SudokuShape

CASES = [((2, 2), (4, 8)), ((2, 3), (8, 12)), ((3, 3), (0, 0))]
MOST_SMALL = 1000  # some 2,200 puzzles with 4 to 8 clues exist


def measure(boxes: tuple[int, int], clues: tuple[int, int], count: int) -> dict:
    """Generate `count` puzzles, and return one row of the table."""
    if boxes == (2, 2):
        count = min(count, MOST_SMALL)
    start = time.perf_counter()
    sets = generate(
        SudokuShape(*boxes), (count - count // 2, count // 2), clues=clues, seed=0
    )
    seconds = time.perf_counter() - start
    rating, found = (
        np.concatenate([puzzles.attributes[name] for puzzles in sets])
        for name in ("rating", "clues")
    )
    return {
        "boxes": f"{boxes[0]}x{boxes[1]}",
        "asked_clues": list(clues) if any(clues) else "minimal",
        "puzzles": count,
        "seconds": round(seconds, 2),
        "puzzles_per_s": round(count / seconds, 1),
        "mean_rating": round(float(rating.mean()), 2),
        "median_rating": float(np.median(rating)),
        "max_rating": int(rating.max()),
        "clues": [int(found.min()), int(found.max())],
    }


def main(count: int) -> None:
    """Print the table and the JSON line."""
    rows = [measure(boxes, clues, count) for boxes, clues in CASES]
    for line in [list(rows[0]), *(row.values() for row in rows)]:
        print("".join(f"{value!s:>15}" for value in line))
    print(json.dumps({"benchmark": "generate", "rows": rows}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
