# SPDX-License-Identifier: Apache-2.0
"""Judge: what train.py and eval.py share to pose test puzzles and to score answers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipeline import loader
from data_pipeline.data import EvalSet
from data_pipeline.errors import DataError
from data_pipeline.variants import undone
from trm_jax.evaluation import coverage, report, voting
from trm_jax.evaluation.evaluate import EvalOutput, joined, take_rows


class Count(NamedTuple):
    """Counted votes: the answers they were given to, turned back, and the ranking."""

    answers: np.ndarray  # uint8 `r m`
    ballots: voting.Ballots
    is_right: np.ndarray  # bool, by candidate


class Judge:
    """Every puzzle in `votes` forms (0: all it has), form 0 first."""

    def __init__(
        self,
        test: EvalSet,
        *,
        votes: int,
        num_puzzles: int,
        max_puzzles: int = 0,
        puzzle_ids: str = "own",
    ) -> None:
        most = int(test.variants.num_forms.max())
        if votes > most:
            raise DataError(f"votes = {votes}, but a test puzzle has {most} form(s)")
        self.test, self.votes = test, votes
        self.puzzles = test.puzzles.first(max_puzzles)
        self.rows = loader.EvalRows.of(self.puzzles, test.variants, votes)
        self._num_puzzles, self._puzzle_ids = num_puzzles, puzzle_ids

    @property
    def num_rows(self) -> int:
        """Rows that one pass over all forms takes."""
        return len(self.rows.example)

    @property
    def has_solutions(self) -> bool:
        """Whether every puzzle has labels: else nothing can be scored."""
        return bool(self.puzzles.labels.any(-1).all())

    def batches(self, batch_size: int, *, start: int = 0) -> Iterator[loader.Batch]:
        """The rows from `start` on."""
        return loader.eval_batches(
            self.puzzles,
            batch_size,
            self.rows.part(slice(start, None)),
            self.test.variants,
            puzzle_ids=self._puzzle_ids,
            num_puzzles=self._num_puzzles,
        )

    def single_pass(self, output: EvalOutput) -> tuple[EvalOutput, dict[str, Any]]:
        """The rows of form 0, and their scores."""
        single = take_rows(output, self.rows.form == 0)
        scores = report.summary(single)
        if self.test.is_valid:
            tokens = np.asarray(single.predictions)
            valid = self.test.is_valid(self.puzzles.inputs, tokens)
            scores |= report.share("valid_accuracy", valid)
        return single, scores

    def count(self, outputs: Sequence[EvalOutput]) -> Count:
        """The votes of one pass, or those of several pooled."""
        rows = self.rows
        back = partial(undone, self.test.variants, rows.puzzle, rows.form)
        answers = np.concatenate([back(np.asarray(o.predictions)) for o in outputs])
        question = np.tile(rows.example, len(outputs))
        q_halt = np.concatenate([output.q_halt[-1] for output in outputs])
        ballots = voting.count_votes(question, answers, q_halt)
        is_right = voting.right_candidates(ballots, answers, self.puzzles.labels)
        return Count(answers, ballots, is_right)

    def scores(
        self, parts: Iterable[EvalOutput], on_rows: Callable[[int], None]
    ) -> dict[str, Any]:
        """Scores for the log of a run: of a single pass, and pass@K of the votes.

        `on_rows` is told the number of rows done and may raise to stop.
        """
        if not self.has_solutions:
            return {}
        kept, done = [], 0
        for part in parts:
            kept.append(part)
            done += len(part.predictions)
            on_rows(done)
        output = joined(kept)
        _, scores = self.single_pass(output)
        if self.votes == 1:
            return scores
        _, ballots, is_right = self.count([output])
        shares = voting.pass_at_k(ballots, is_right, self.puzzles.group_of_example())
        return scores | {f"pass@{k}": value for k, value in shares.items()}

    def vote_report(
        self, count: Count, steps: list[int], weights: str
    ) -> dict[str, Any]:
        """pass@K, coverage, and what the votes add to a single pass."""
        answers, ballots, is_right = count
        result = coverage.vote_report(
            ballots,
            is_right,
            self.puzzles.group_of_example(),
            weights=weights,
            votes=self.votes,
            pooled_steps=steps,
        )
        last = answers[-self.num_rows :][self.rows.form == 0]
        single = (last == self.puzzles.labels).all(-1)
        result["vote_gain"] = voting.vote_gain(ballots, is_right, single)
        majority = voting.right_ranks(ballots, is_right, len(single)) == 0
        result |= report.share("voted_accuracy", majority)
        if self.test.is_valid:
            first = answers[voting.top_answers(ballots, len(self.puzzles), k=1)[:, 0]]
            valid = self.test.is_valid(self.puzzles.inputs, first)
            result |= report.share("voted_valid_accuracy", valid)
        return result

    def write_submission(self, path: Path, count: Count) -> bool:
        """The two best answers to every test input, if the task has submissions."""
        if not self.test.write_submission:
            return False
        top = voting.top_answers(count.ballots, len(self.puzzles), k=2)
        attempts = np.where(top[..., None] >= 0, count.answers[top], 0)
        self.test.write_submission(path, attempts.astype(np.uint8))
        return True
