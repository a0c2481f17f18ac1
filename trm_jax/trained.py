# SPDX-License-Identifier: Apache-2.0
"""A trained model for notebooks and programs: it solves and traces puzzles."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from trm_jax.beside import pipeline
from trm_jax.errors import ConfigError
from trm_jax.evaluation import voting
from trm_jax.evaluation.evaluate import (
    EvalOutput,
    EvalStep,
    Numbered,
    Weights,
    evaluate,
    joined,
    make_eval_step,
)
from trm_jax.inspect.cycle import States, bound, cycle
from trm_jax.inspect.trace import Trace, record
from trm_jax.model.model import BoundModel
from trm_jax.rules.latents import Latents
from trm_jax.training.build import Built
from trm_jax.training.sharding import put_batch


@dataclasses.dataclass(frozen=True)
class Solution:
    """An answer to one puzzle."""

    answer: Any  # in the form of the question: text, or rows of numbers
    grid: np.ndarray  # the cells, `r c`: digits, characters or colours
    tokens: np.ndarray  # the same as tokens, `m`
    is_valid: bool | None  # whether it solves the puzzle; None if unknown
    halt_probability: float  # the model's estimate that the answer is correct
    steps: int  # supervision steps that were done
    votes: int  # forms of the puzzle that gave this answer
    forms: int  # forms that were solved


class Model:
    """Weights and everything that is needed to use them, on one device.

    Attributes: `config` (of the run), `step` (number of updates so far), `task` (of the
    data pipeline), `params`, `constants`, `table` (the puzzle table, `ids e`).
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        built: Built,
        weights: Weights,
        *,
        step: int,
        id_map: str | None,
    ) -> None:
        self.config, self.step = config, step
        self.params, self.constants, self.table = weights
        self._built, self._id_map = built, id_map
        self.task = pipeline("tasks").task_of(config["data"])
        self._eval_steps: dict[int, EvalStep] = {}  # by number of supervision steps

    def __repr__(self) -> str:
        facts = self.facts()
        task, count = self.config["data"]["task"], facts["parameters"]
        sizes = f"{count:,} parameters; task {task}; step {self.step}"
        return f"<Model: {facts['rule']} of {facts['layers']}; {sizes}>"

    def facts(self) -> dict[str, Any]:
        """Rule, layers, number of parameters and of updates."""
        return {
            "rule": self.config["rule"]["name"],
            "layers": ", ".join(self.config["model"]["layers"]),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self.params)),
            "updates": self.step,
        }

    def solve(
        self,
        puzzle: Any,
        steps: int | None = None,
        votes: int = 1,
        *,
        task: str | None = None,
    ) -> Any:
        """Return the Solution of one puzzle, or a list of them for a list of puzzles.

        The model is compiled once for each number of steps and each number of rows,
        which is rounded up to a power of two.

        Args:
          puzzle: Sudoku: text, row by row, `.` or 0 for a blank, or rows of digits.
            Mazes: text, `#` wall, space free, S start, G goal. ARC: rows of colours.
            Nonograms: text, the clues of the rows and columns, `1 1/5/...|2/1/...`.
          steps: supervision steps; None means as many as in the run's evaluations.
          votes: forms (symmetries) of the puzzle that are solved; the most frequent
            answer is returned. 0 means all forms.
          task: for ARC, the name of the task, whose puzzle id the model gets. Without
            it, or if the task was not trained, the model gets the blank id and warns.

        Raises:
          DataError: the puzzle does not fit the task; the message says where.
          ConfigError: `steps` is less than 1.
        """
        return self._one_or_many(
            puzzle, lambda puzzles: self._solutions(puzzles, steps, votes, task)
        )

    def _one_or_many(self, puzzle: Any, answer: Callable[..., list[Any]]) -> Any:
        """`answer` of a list of puzzles; the only result if `puzzle` is one."""
        is_many = pipeline("written").is_many(puzzle)
        puzzles = list(puzzle) if is_many else [puzzle]
        if not puzzles:
            return []
        with jax.enable_x64(self.config["model"]["dtype"] == "float64"):
            found = answer(puzzles)
        return found if is_many else found[0]

    def _solutions(
        self, puzzles: Sequence[Any], steps: int | None, votes: int, task: str | None
    ) -> list[Solution]:
        posed, run = self._posed(puzzles, task), self._built.run
        questions, num_steps = posed.questions(votes=votes), self._num_steps(steps)
        # Few different numbers of rows mean few compilations.
        power_of_two = 2 ** math.ceil(math.log2(questions.num_rows))
        batches = questions.batches(min(run.eval.batch_size, power_of_two))
        output = self._output(batches, num_steps)
        answers = questions.turned_back(np.asarray(output.predictions))
        ballots = voting.count_votes(
            questions.example, answers, np.asarray(output.q_halt[-1])
        )
        best = np.flatnonzero(ballots.rank == 0)  # one of each puzzle, in order
        chosen = answers[ballots.row[best]]
        asked, is_valid = questions.inputs, posed.is_valid
        valid = is_valid(asked, chosen) if is_valid else [None] * len(puzzles)
        return [
            Solution(
                answer=self.task.reply(chosen[i], puzzles[i]),
                grid=self.task.grid(chosen[i]),
                tokens=chosen[i],
                is_valid=None if valid[i] is None else bool(valid[i]),
                halt_probability=float(ballots.mean_q[best[i]]),
                steps=num_steps,
                votes=int(ballots.votes[best[i]]),
                forms=int((questions.example == i).sum()),
            )
            for i in range(len(puzzles))
        ]

    def trace(
        self,
        puzzle: Any,
        steps: int | None = None,
        every: str = "step",
        *,
        task: str | None = None,
    ) -> Any:
        """Return the Trace of one puzzle, or a list of them for a list of puzzles.

        It records the state after every "step", after every "cycle" (an h-cycle, or a
        loop) or after every network "call". The other arguments are those of `solve`.
        Raises the errors of `solve`, and ConfigError for an unknown `every`.
        """

        def traces(puzzles: list[Any]) -> list[Trace]:
            posed = self._posed(puzzles, task)
            ((rows, _),) = posed.questions().batches(len(puzzles))
            return record(
                self._built.recipe,
                (self.params, self.constants, self.table),
                put_batch(rows, self._built.mesh),
                num_steps=self._num_steps(steps),
                every=every,
                seed=self._built.run.eval.seed,
                is_valid=posed.is_valid,
            )

        return self._one_or_many(puzzle, traces)

    def evaluate(self, questions: Any = None, steps: int | None = None) -> EvalOutput:
        """The results on test puzzles, which `trm_jax.evaluation.report` reads.

        `questions` are those of the data pipeline, such as the first 256 test puzzles
        of the config, `model.task.load().test.questions(max_puzzles=256)`; None means
        all of them. It is not checked that they are what the run had; `eval.py` does.
        """
        with jax.enable_x64(self.config["model"]["dtype"] == "float64"):
            posed = questions or self.task.load().test.questions()
            size = min(self._built.run.eval.batch_size, posed.num_rows)
            return self._output(posed.batches(size), self._num_steps(steps))

    def _output(self, batches: Iterable[Numbered], num_steps: int) -> EvalOutput:
        """The results on some rows."""
        weights = self.params, self.constants, self.table
        step = self._eval_step(num_steps)
        return joined([*evaluate(step, weights, batches, self._built.mesh)])

    def _posed(self, puzzles: Sequence[Any], task: str | None) -> Any:
        """The puzzles as an EvalSet."""
        posed = self.task.pose(np.stack([*map(self.task.tokens, puzzles)]), task)
        if posed.id_map not in (None, self._id_map):
            raise ConfigError(
                "the puzzle ids of config.data stand for other tasks or augmentations "
                "than those that the model was trained on"
            )
        return posed

    def _num_steps(self, steps: int | None) -> int:
        num_steps: int = self._built.run.num_eval_steps if steps is None else steps
        if num_steps < 1:
            raise ConfigError(f"steps = {num_steps}; expected 1 or more")
        return num_steps

    def embed(self, puzzle: Any) -> Float[Array, "1 l d"]:
        """The embedded question x of one puzzle, with the blank puzzle id."""
        tokens = jnp.asarray(self.task.tokens(puzzle)[None].astype(np.int32))
        return self.bound().embed(tokens)

    def cycle(
        self, y: States, z: States, x: States
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b l d"]]:
        """One h-cycle of TRM or HRM: `l_cycles` updates of z, then one of y.

        `jax.jvp`, `jax.jacfwd` and `jax.grad` work, since no gradient or tangent is
        stopped in a cycle. The derivatives of a whole supervision step by its first y
        and z are 0, since `iterate` stops them before the last cycle. The cycle takes
        the forms that have a forward-mode derivative: float32 for a bfloat16 model, and
        scans token by token. Raises ConfigError if the rule has no y and z.
        """
        state = Latents(jnp.asarray(y), jnp.asarray(z))
        return cycle(self._built.recipe, self.bound(), state, jnp.asarray(x))

    def bound(self) -> BoundModel:
        """Networks and heads as functions of states, in the forms of `cycle`."""
        return bound(self._built.recipe, (self.params, self.constants, self.table))

    def _eval_step(self, num_steps: int) -> EvalStep:
        if num_steps not in self._eval_steps:
            built = self._built
            self._eval_steps[num_steps] = make_eval_step(
                built.recipe, built.mesh, num_steps=num_steps, seed=built.run.eval.seed
            )
        return self._eval_steps[num_steps]
