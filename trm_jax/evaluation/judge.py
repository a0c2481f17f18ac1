# SPDX-License-Identifier: Apache-2.0
"""Judge: scores answers to test puzzles, which may be shown in several forms."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from trm_jax.evaluation import coverage, report, voting
from trm_jax.evaluation.evaluate import EvalOutput, joined, take_rows


@runtime_checkable
class Questions(Protocol):
    """The rows that an evaluation shows. The data pipeline makes them.

    There are `r` rows: each of `n` examples in one or more forms, form 0 first.
    """

    @property
    def num_rows(self) -> int:
        """The number r."""

    @property
    def example(self) -> np.ndarray:
        """The example of each row, `r`."""

    @property
    def form(self) -> np.ndarray:
        """The form in which a row shows its example, `r`."""

    @property
    def inputs(self) -> np.ndarray:
        """The tokens of form 0 of every example, uint8 `n m`."""

    @property
    def labels(self) -> np.ndarray:
        """The answers to form 0 of every example, uint8 `n m`."""

    @property
    def has_solutions(self) -> bool:
        """Whether every example has labels: otherwise nothing can be scored."""

    @property
    def is_valid(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
        """(questions `n m`, answers `n m`) -> `n`: correct by the rules of the task."""

    @property
    def write_submission(self) -> Callable[[Path, np.ndarray], None] | None:
        """(path, first and second answers `n 2 m`): writes a file of attempts."""

    @property
    def id_map(self) -> str | None:
        """SHA-256 of what each puzzle id names, if puzzles have ids."""

    @property
    def attributes(self) -> Mapping[str, np.ndarray]:
        """Attributes of the examples by which scores are reported, `n` each."""

    def batches(
        self,
        batch_size: int,
        *,
        start: int = 0,
        puzzle_ids: str = "own",
        num_puzzles: int = 1,
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """The fields of Batch, padded with rows of weight 0, and the rows' numbers."""

    def turned_back(self, predictions: np.ndarray) -> np.ndarray:
        """Predicted tokens `r m` of all rows -> answers to form 0 of their example."""

    def group_of_example(self) -> np.ndarray:
        """The task that each example belongs to, `n`."""

    def digests(self) -> dict[str, str]:
        """SHA-256 of every array."""


class Count(NamedTuple):
    """Counted votes: the answers, turned back, and the ranking of the candidates."""

    answers: np.ndarray  # uint8 `r m`
    ballots: voting.Ballots
    is_right: np.ndarray  # bool, by candidate


class Judge:
    """Scores of the rows of `questions`, which show each example in `votes` forms."""

    def __init__(self, questions: Questions, *, votes: int) -> None:
        self.questions, self.votes = questions, votes

    def single_pass(self, output: EvalOutput) -> tuple[EvalOutput, dict[str, Any]]:
        """The rows of form 0, and their scores."""
        questions = self.questions
        single = take_rows(output, questions.form == 0)
        scores = report.summary(single)
        if questions.is_valid:
            tokens = np.asarray(single.predictions)
            valid = questions.is_valid(questions.inputs, tokens)
            scores |= report.share("valid_accuracy", valid)
        return single, scores

    def count(self, outputs: Sequence[EvalOutput]) -> Count:
        """Count the votes of one pass over all rows, or of several passes pooled."""
        questions = self.questions
        answers = np.concatenate(
            [questions.turned_back(np.asarray(o.predictions)) for o in outputs]
        )
        example = np.tile(questions.example, len(outputs))
        q_halt = np.concatenate([output.q_halt[-1] for output in outputs])
        ballots = voting.count_votes(example, answers, q_halt)
        is_right = voting.right_candidates(ballots, answers, questions.labels)
        return Count(answers, ballots, is_right)

    def scores(
        self, parts: Iterable[EvalOutput], on_rows: Callable[[int], None]
    ) -> dict[str, Any]:
        """Scores for the log of a run: of a single pass, and pass@K of the votes.

        After each part, `on_rows` gets the number of rows done; it may raise to stop.
        """
        if not self.questions.has_solutions:
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
        shares = voting.pass_at_k(ballots, is_right, self.questions.group_of_example())
        return scores | {f"pass@{k}": value for k, value in shares.items()}

    def vote_report(
        self, count: Count, steps: list[int], weights: str
    ) -> dict[str, Any]:
        """pass@K, coverage, and what the votes add to a single pass."""
        answers, ballots, is_right = count
        questions = self.questions
        result = coverage.vote_report(
            ballots,
            is_right,
            questions.group_of_example(),
            weights=weights,
            votes=self.votes,
            pooled_steps=steps,
        )
        last = answers[-questions.num_rows :][questions.form == 0]
        single = (last == questions.labels).all(-1)
        result["vote_gain"] = voting.vote_gain(ballots, is_right, single)
        majority = voting.right_ranks(ballots, is_right, len(single)) == 0
        result |= report.share("voted_accuracy", majority)
        if questions.is_valid:
            first = answers[voting.top_answers(ballots, len(single), k=1)[:, 0]]
            valid = questions.is_valid(questions.inputs, first)
            result |= report.share("voted_valid_accuracy", valid)
        return result

    def write_submission(self, path: Path, count: Count) -> bool:
        """Write the two best answers to every example, if the task has submissions."""
        if not self.questions.write_submission:
            return False
        num_examples = len(self.questions.labels)
        top = voting.top_answers(count.ballots, num_examples, k=2)
        attempts = np.where(top[..., None] >= 0, count.answers[top], 0)
        self.questions.write_submission(path, attempts.astype(np.uint8))
        return True
