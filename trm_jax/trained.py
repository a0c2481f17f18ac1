# SPDX-License-Identifier: Apache-2.0
"""A trained model for notebooks and programs: it solves puzzles."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from trm_jax.beside import pipeline
from trm_jax.errors import ConfigError
from trm_jax.evaluation import voting
from trm_jax.evaluation.evaluate import (
    EvalStep,
    Weights,
    evaluate,
    joined,
    make_eval_step,
)
from trm_jax.model.model import BoundModel, ReasoningModel
from trm_jax.rules.latents import Latents
from trm_jax.training.build import Built
from trm_jax.training.supervision import bind


@dataclasses.dataclass(frozen=True)
class Solution:
    """An answer to one puzzle."""

    answer: Any  # in the form of the question: text, or rows of numbers
    grid: np.ndarray  # the cells, `r c`: digits, characters or colours
    is_valid: bool | None  # whether it solves the puzzle; None if unknown
    halt_probability: float  # the model's estimate that the answer is correct
    steps: int  # supervision steps that were done
    votes: int  # forms of the puzzle that gave this answer


class Model:
    """Weights and everything that is needed to use them, on one device.

    Attributes: `config` (of the run), `step` (number of updates so far), `params`,
    `constants`, `table` (the puzzle table, `ids e`).
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
        self._task = pipeline("tasks").task_of(config["data"])
        self._eval_steps: dict[int, EvalStep] = {}  # by number of supervision steps

    def __repr__(self) -> str:
        count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        rule, task = self.config["rule"]["name"], self.config["data"]["task"]
        layers = ", ".join(self.config["model"]["layers"])
        sizes = f"{count:,} parameters; task {task}; step {self.step}"
        return f"<Model: {rule} of {layers}; {sizes}>"

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
        is_many = _is_many(puzzle)
        puzzles = list(puzzle) if is_many else [puzzle]
        if not puzzles:
            return []
        tokens = np.stack([self._task.parse(one) for one in puzzles])
        with jax.enable_x64(self.config["model"]["dtype"] == "float64"):
            found = self._solutions(puzzles, tokens, steps, votes, task)
        return found if is_many else found[0]

    def _solutions(
        self,
        puzzles: Sequence[Any],
        tokens: np.ndarray,
        steps: int | None,
        votes: int,
        task: str | None,
    ) -> list[Solution]:
        posed = self._task.pose(tokens, task)
        if posed.id_map not in (None, self._id_map):
            raise ConfigError(
                "the puzzle ids of config.data stand for other tasks or augmentations "
                "than those that the model was trained on"
            )
        questions, run = posed.questions(votes=votes), self._built.run
        num_steps = run.num_eval_steps if steps is None else steps
        if num_steps < 1:
            raise ConfigError(f"steps = {steps}; expected 1 or more")
        # Few different numbers of rows mean few compilations.
        power_of_two = 2 ** math.ceil(math.log2(questions.num_rows))
        batches = questions.batches(min(run.eval.batch_size, power_of_two))
        weights = self.params, self.constants, self.table
        parts = evaluate(self._eval_step(num_steps), weights, batches, self._built.mesh)
        output = joined([*parts])
        answers = questions.turned_back(np.asarray(output.predictions))
        ballots = voting.count_votes(
            questions.example, answers, np.asarray(output.q_halt[-1])
        )
        best = np.flatnonzero(ballots.rank == 0)  # one of each puzzle, in order
        chosen = answers[ballots.row[best]]
        valid = posed.is_valid(tokens, chosen) if posed.is_valid else None
        return [
            Solution(
                answer=self._task.written(chosen[i], puzzles[i]),
                grid=self._task.grid(chosen[i]),
                is_valid=None if valid is None else bool(valid[i]),
                halt_probability=float(ballots.mean_q[best[i]]),
                steps=num_steps,
                votes=int(ballots.votes[best[i]]),
            )
            for i in range(len(puzzles))
        ]

    def embed(self, puzzle: Any) -> Float[Array, "1 l d"]:
        """The embedded question x of one puzzle, with the blank puzzle id."""
        tokens = jnp.asarray(self._task.parse(puzzle)[None].astype(np.int32))
        return self._bound().embed(tokens)

    def cycle(
        self,
        y: Float[Array, "b l d"],
        z: Float[Array, "b l d"],
        x: Float[Array, "b l d"],
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b l d"]]:
        """One h-cycle of TRM or HRM: `l_cycles` updates of z, then one of y.

        `jax.jvp`, `jax.jacfwd` and `jax.grad` work, since no gradient or tangent is
        stopped in a cycle. The derivatives of a whole supervision step by its first y
        and z are 0, since `iterate` stops them before the last cycle. The cycle takes
        the forms that have a forward-mode derivative: float32 for a bfloat16 model, and
        scans token by token. Raises ConfigError if the rule has no y and z.
        """
        rule: Any = self._built.recipe.rule
        if getattr(rule, "latents", None) is not Latents:
            name = self.config["rule"]["name"]
            raise ConfigError(f"rule.name = {name!r} has no cycle of two latents y, z")
        return tuple(rule.latent_recursion((self._bound(), x), Latents(y, z), 0))

    def _bound(self) -> BoundModel:
        recipe = self._built.recipe
        config = recipe.model.config.in_form("forward_mode")
        dtype = jnp.promote_types(config.compute_dtype, jnp.float32)
        settings = dataclasses.replace(config.settings, dtype=dtype.name)
        config = dataclasses.replace(config, settings=settings)
        module = ReasoningModel(config, recipe.model.networks)
        blank = self.table[:1]
        return bind(recipe.rule, module, self.params, self.constants, blank)

    def _eval_step(self, num_steps: int) -> EvalStep:
        if num_steps not in self._eval_steps:
            built = self._built
            self._eval_steps[num_steps] = make_eval_step(
                built.recipe, built.mesh, num_steps=num_steps, seed=built.run.eval.seed
            )
        return self._eval_steps[num_steps]


def _is_many(puzzle: Any) -> bool:
    """Whether this is a list of puzzles: texts, or grids (rows of numbers)."""
    if isinstance(puzzle, str):
        return False
    if isinstance(puzzle, np.ndarray):
        return puzzle.ndim > 2
    first = next(iter(puzzle), "")
    return isinstance(first, str) or np.ndim(next(iter(first), 0)) > 0
