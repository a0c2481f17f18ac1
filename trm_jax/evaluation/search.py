# SPDX-License-Identifier: Apache-2.0
"""Search at test time: several chains per puzzle, and how one answer is picked.

Axes: r rows, n puzzles (examples), m cells. The rows of a puzzle are consecutive; they
are its chains, or its symmetric forms.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from trm_jax.evaluation import voting
from trm_jax.evaluation.chains import PLAIN, Chains
from trm_jax.evaluation.evaluate import EvalOutput, Numbered
from trm_jax.evaluation.judge import Questions
from trm_jax.evaluation.report import share

SEARCHES = ("steps", "restarts", "noise", "votes", "guided")
PICKS = ("q_halt", "mean_q", "residual", "majority", "oracle")


class Way(NamedTuple):
    """One way to evaluate: each row of the questions, in `num_chains` chains."""

    questions: Questions
    num_steps: int
    num_chains: int = 1
    chains: Chains = PLAIN

    @property
    def num_rows(self) -> int:
        """The number of rows, chain by chain."""
        return self.questions.num_rows * self.num_chains

    def batches(
        self, batch_size: int, num_devices: int, *, start: int, **ids: Any
    ) -> Iterator[Numbered]:
        """Batches from row `start` on, with numbers `b 2` of question and chain.

        Chains change fastest. A batch holds whole clouds, so its size may differ from
        `batch_size`; it is never much larger than all rows together. `ids` goes to
        Questions.batches.
        """
        needed = -(-self.num_rows // num_devices) * num_devices
        batch_size = min(batch_size, needed)
        if self.num_chains == 1:
            yield from self.questions.batches(batch_size, start=start, **ids)
            return
        count, cloud = self.num_chains, self.chains.cloud
        unit = math.lcm(cloud, num_devices)
        size = batch_size if cloud == 1 else max(unit, batch_size // unit * unit)
        first, skipped = divmod(start, count)
        waiting: dict[str, np.ndarray] = {}
        places = np.zeros((0, 2), np.int32)
        for rows, numbers in self.questions.batches(batch_size, start=first, **ids):
            real = rows["weight"] > 0
            more = {k: np.repeat(v[real], count, 0) for k, v in rows.items()}
            chain = np.tile(np.arange(count, dtype=np.int32), real.sum())
            place = np.stack([np.repeat(numbers[real], count), chain], axis=1)
            waiting = {
                k: np.concatenate([waiting.get(k, v[:0]), v[skipped:]])
                for k, v in more.items()
            }
            places, skipped = np.concatenate([places, place[skipped:]]), 0
            while len(places) >= size:
                yield {k: v[:size] for k, v in waiting.items()}, places[:size]
                waiting = {k: v[size:] for k, v in waiting.items()}
                places = places[size:]
        if missing := -len(places) % size:
            yield (
                {
                    k: np.pad(v, [(0, missing)] + [(0, 0)] * (v.ndim - 1))
                    for k, v in waiting.items()
                },
                np.pad(places, [(0, missing), (0, 0)]),
            )


class Found(NamedTuple):
    """What the rows of a way answered, and how many steps each took."""

    example: Int[np.ndarray, " r"]
    chain: Int[np.ndarray, " r"]  # number of the row among those of its puzzle
    answers: UInt8[np.ndarray, "r m"]  # turned back, so that they can be compared
    is_right: Bool[np.ndarray, " r"]
    q_halt: Float[np.ndarray, " r"]
    mean_q: Float[np.ndarray, " r"]  # mean sigmoid(q_halt) of the steps that led there
    residual: Float[np.ndarray, " r"]
    steps: Int[np.ndarray, " r"]


def found(way: Way, output: EvalOutput, *, refilled: bool, last: int = 0) -> Found:
    """The rows of a way after `last` steps (0: all).

    The answers are always those after all steps. With `refilled`, a row took the steps
    up to its halting.
    """
    questions, count = way.questions, way.num_chains
    last = last or way.num_steps
    predictions = np.asarray(output.predictions)
    answers = np.stack(
        [questions.turned_back(predictions[k::count]) for k in range(count)], axis=1
    )
    wants = np.asarray(output.wants_halt)[:last]
    halted = wants.any(0) & refilled
    example = np.repeat(questions.example, count)
    starts = np.flatnonzero(np.diff(example, prepend=-1))
    sizes = np.diff(starts, append=len(example))
    return Found(
        example=example,
        chain=np.arange(len(example)) - np.repeat(starts, sizes),
        answers=answers.reshape(len(example), -1),
        is_right=np.asarray(output.all_right)[last - 1],
        q_halt=np.asarray(output.q_halt)[last - 1],
        mean_q=1 - np.asarray(output.doubt)[last - 1].astype(np.float64),
        residual=np.asarray(output.residual)[last - 1],
        steps=np.where(halted, wants.argmax(0) + 1, last),
    )


def first_chains(rows: Found, count: int) -> Found:
    """The first `count` rows of every puzzle."""
    kept = rows.chain < count
    return Found(*(array[kept] for array in rows))


def picked(rows: Found, pick: str) -> Int[np.ndarray, " n"]:
    """The row that a pick chooses for each puzzle; equals go to the earliest row.

    q_halt, mean_q (Looped Flows): the largest. residual: the least. majority: the most
    frequent answer, then the larger mean sigmoid(q_halt). oracle: a correct row if
    there is one.
    """
    if pick == "majority":
        ballots = voting.count_votes(rows.example, rows.answers, rows.q_halt)
        return ballots.row[ballots.rank == 0]
    keys: Mapping[str, np.ndarray] = {
        "q_halt": -rows.q_halt,
        "mean_q": -rows.mean_q,
        "residual": rows.residual,
        "oracle": ~rows.is_right,
    }
    order = np.lexsort((keys[pick], rows.example))
    return order[np.flatnonzero(np.diff(rows.example[order], prepend=-1))]


def point(rows: Found, calls_per_step: int, **about: Any) -> dict[str, Any]:
    """Accuracy of every pick, and the mean network calls per puzzle."""
    num_puzzles = len(np.unique(rows.example))
    return about | {
        "puzzles": num_puzzles,
        "calls": float(rows.steps.sum() * calls_per_step / num_puzzles),
        "exact": {
            pick: share("accuracy", rows.is_right[picked(rows, pick)]) for pick in PICKS
        },
    }


def doubled(first: int, most: int) -> list[int]:
    """first, 2 first, 4 first, ... below `most`, and `most` itself."""
    counts = [first]
    while 2 * counts[-1] < most:
        counts.append(2 * counts[-1])
    return counts + [most] * (most > first)


def curve(
    name: str,
    way: Way,
    evaluated: Callable[[Way], Found],
    *,
    counts: list[int],
    calls_per_step: int,
    alone: bool,
) -> tuple[list[dict[str, Any]], Found]:
    """The points of a search over its numbers of rows, and the rows of the last one.

    With `alone`, each number is an evaluation of its own, whose rows form one cloud.
    Otherwise the first rows of the largest number serve for a smaller one.
    """
    points, whole = [], None if alone else evaluated(way)
    for count in counts:
        if whole is None:
            cloud = way.chains._replace(cloud=count)
            rows = evaluated(way._replace(num_chains=count, chains=cloud))
        else:
            rows = first_chains(whole, count)
        most = int(np.bincount(rows.example).max())
        about = {"search": name, "steps": way.num_steps, "chains": most}
        points.append(point(rows, calls_per_step, **about))
        if most < count:  # there are no more forms
            break
    return points, rows
