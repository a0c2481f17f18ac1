# SPDX-License-Identifier: Apache-2.0
"""A run that eval.py evaluates: its test set, its model, the rows of a checkpoint."""

import contextlib
import functools
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from trm_jax.commands import shell
from trm_jax.commands.progress import RowProgress
from trm_jax.errors import ConfigError
from trm_jax.runtime import processes
from trm_jax.version import sources_digest, versions

if TYPE_CHECKING:
    from trm_jax.evaluation.evaluate import EvalOutput
    from trm_jax.evaluation.judge import Questions
    from trm_jax.evaluation.parts import EvalParts
    from trm_jax.evaluation.search import Way

PARTS_FORMAT = 4  # of eval/parts; rows in another format are not reused
log = logging.getLogger(__name__)


class EvaluatedRun:
    """A run, its test set, and the evaluation that the flags request.

    With --weights_file, the weights and their record take the place of a run. `config`
    then replaces the config in the record.
    """

    def __init__(self, values: flags.FlagValues, config: Any = None) -> None:
        from trm_jax.evaluation.judge import Judge
        from trm_jax.evaluation.search import Way
        from trm_jax.loading import open_weights
        from trm_jax.runtime.workdir import read_run
        from trm_jax.training.build import build

        self.values, self._bundle = values, None
        if values.weights_file:
            self._bundle = open_weights(
                values.weights_file, weights=values.weights, config=config
            )
            record = self._bundle.record
            trained_on = {} if config else record["provenance"].get("data", {})
            self.config, identity = record["config"], record | trained_on
        else:
            self.config, identity = read_run(values.workdir)
        config = self.config
        shell.set_precision(config["model"]["dtype"])
        self.num_puzzles = identity["sizes"]["num_puzzles"]
        votes = config["eval"]["votes"] if values.votes is None else values.votes
        self.test = _test_set(values, config, identity)
        self.questions: Questions = self.shown(votes)
        self.judge = Judge(self.questions, votes=votes)
        # It has its own mesh: the devices of the training need not be available.
        mesh = {"data": values.devices, "fsdp": 1}
        settings = config["train"] | {"micro_batches": 1}
        try:
            mine = config | {"mesh": mesh, "train": settings}
            self.built = build(mine, identity["sizes"])
        except ConfigError as error:
            hint = " (--devices=N sets it)" if "mesh.data" in str(error) else ""
            raise ConfigError(f"{error}{hint}") from error
        self._parts: list[EvalParts] = []
        self._compiled: dict[Any, Any] = {}  # by number of steps and Chains
        asked = values.supervision_steps
        self.num_steps = asked or self.built.run.num_eval_steps
        self.way: Way = Way(self.questions, self.num_steps)

    def shown(self, votes: int) -> "Questions":
        """The puzzles of the evaluation in so many forms, 0 for all."""
        questions: Questions = self.test.questions(
            votes=votes, max_puzzles=self.values.puzzles
        )
        return questions

    @property
    def name(self) -> str:
        """The name of the run's folder, or of the weights."""
        return Path(self.values.weights_file or self.values.workdir).resolve().name

    def about(self) -> dict[str, Any]:
        """What the rows depend on besides the weights, as the report records it."""
        return {
            "weights": self.values.weights,
            "puzzle_ids": self.values.puzzle_ids,
            "data": {
                "path": self.values.data or "the run's",
                "sha256": self.questions.digests(),
                "id_map": self.questions.id_map,
                "seed": self.config["data"]["seed"],
            },
            "supervision_steps": self.num_steps,
            "votes": self.judge.votes,
            "refill": self.values.refill,
        }

    def rows_of(
        self, step: int | None, way: "Way | None" = None
    ) -> tuple[int, "EvalOutput", float | None]:
        """Evaluate a checkpoint: its step, all its rows, and the rows per second.

        `way` is another way than that of the flags.
        """
        from trm_jax.evaluation.parts import EvalParts
        from trm_jax.training.digest import state_digest

        way = way or self.way
        step, weights = self._read(step)
        about = self.about() | {
            "rows": way.num_rows,
            "supervision_steps": way.num_steps,
            "chains": [way.num_chains, *way.chains],
            "format": PARTS_FORMAT,
            "step": step,
            "weights_sha256": state_digest(weights),
            **{part: self.config[part] for part in ("model", "rule", "halting")},
            "seed": self.config["eval"]["seed"],
            "batch_size": self.config["eval"]["batch_size"],
            "backend": self.built.mesh.devices.flat[0].device_kind,
            "devices": self.built.mesh.size,
            "code": {"sources": sources_digest(), "versions": versions()},
        }
        parts = EvalParts(self._parts_path, about, writes=processes.is_first())
        self._parts.append(parts)
        found = f"number of rows in {parts.folder}"
        processes.check_same(str(parts.num_rows), found)
        total = way.num_rows
        if parts.num_rows:
            line = "step %d: %d of %d rows are taken from %s"
            log.info(line, step, parts.num_rows, total, parts.folder)
        progress = RowProgress(shell.BAR, parts.num_rows, total)
        batches = way.batches(
            self.config["eval"]["batch_size"],
            self.built.mesh.size,
            start=parts.num_rows,
            puzzle_ids=self.values.puzzle_ids,
            num_puzzles=self.num_puzzles,
        )
        for output in self._outputs(way, weights, batches):
            parts.add(output)
            progress(parts.num_rows)
        return step, parts.finish(), progress.rate(parts.num_rows)

    def _outputs(
        self, way: "Way", weights: Any, batches: Iterable[Any]
    ) -> Iterable["EvalOutput"]:
        """The results for all rows, with a fixed batch or with refill."""
        from trm_jax.evaluation import evaluate, refill

        mesh, probability = self.built.mesh, self.values.refill
        make: Any = evaluate.make_eval_step
        if probability is not None:
            make = functools.partial(refill.make_refilled, probability=probability)
        kind = way.num_steps, way.chains
        if kind not in self._compiled:
            self._compiled[kind] = make(
                self.built.recipe,
                mesh,
                num_steps=way.num_steps,
                seed=self.built.run.eval.seed,
                chains=way.chains,
            )
        if probability is None:
            return evaluate.evaluate(self._compiled[kind], weights, batches, mesh)
        return refill.evaluate_refilled(self._compiled[kind], weights, batches)

    def _read(self, step: int | None) -> tuple[int, Any]:
        """The step and the weights of a checkpoint, or of --weights_file."""
        from trm_jax.runtime.weights import read_weights
        from trm_jax.weights.tensors import to_weights

        if self._bundle is None:
            values = self.values
            return read_weights(values.workdir, self.built, step, values.weights)
        return self._bundle.record["step"], to_weights(self._bundle, self.built)

    def report_path(self, name: str) -> Path:
        """The file of the report: --out, or `name` in the workdir."""
        if self.values.out:
            return Path(self.values.out)
        return Path(self.values.workdir) / "eval" / f"{name}.json"

    def submission_path(self, name: str) -> Path:
        """The file of the submission: beside --out, or `name` in the workdir."""
        if self.values.out:
            out = Path(self.values.out)
            return out.with_name(f"{out.stem}-submission.json")
        return Path(self.values.workdir) / "eval" / f"{name}.json"

    @property
    def _parts_path(self) -> Path:
        if self.values.out:
            return Path(f"{self.values.out}.parts")
        return Path(self.values.workdir) / "eval" / "parts"

    def forget(self) -> None:
        """Remove the rows on disk: only an interrupted evaluation reuses them."""
        for parts in self._parts:
            parts.remove()
        if self.values.out:
            with contextlib.suppress(OSError):  # it holds rows of another evaluation
                self._parts_path.rmdir()


def _test_set(
    values: flags.FlagValues, config: dict[str, Any], identity: dict[str, Any]
) -> Any:
    """The EvalSet of --data, or the run's, which must not have changed since."""
    from trm_jax.runtime.workdir import read_test_set

    own_ids = values.puzzle_ids == "own"
    source = values.weights_file or f"{values.workdir}/dataset.json"
    return read_test_set(source, config, identity, path=values.data, own_ids=own_ids)
