# SPDX-License-Identifier: Apache-2.0
"""Evaluate a checkpoint: a table on the terminal, all numbers in eval/step_N.json.

python eval.py --workdir=D [--step=N] [--data=PATH] [--weights=ema|raw]
               [--supervision_steps=S] [--votes=V] [--puzzle_ids=own|blank|random]
               [--pool=N,N,...] [--devices=N]
               [--distributed | --coordinator=H:P --num_processes=N --process_id=I]

Takes the newest checkpoint, its averaged weights and the test set of the run where not
told otherwise; what was told otherwise is in the names of the files. With --votes=V
each puzzle is solved in V forms (0: in all it has), whose answers are turned back and
voted over. An evaluation that was cut short goes on where it stopped. Exit codes: 0
done, 2 wrong input or config, 75 another process was lost, 1 otherwise.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from data_pipeline import loader, sources
from data_pipeline.data import EvalSet
from data_pipeline.errors import DataError
from trm_jax.errors import CheckpointError, ConfigError
from trm_jax.files import write_whole
from trm_jax.runtime import cli, processes
from trm_jax.runtime.progress import RowProgress

if TYPE_CHECKING:
    from trm_jax.evaluation.evaluate import EvalOutput

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
STEP = flags.DEFINE_integer(
    "step", None, "Checkpoint to evaluate; the newest if unset."
)
DATA = flags.DEFINE_string("data", None, "File or folder instead of the run's.")
WEIGHTS = flags.DEFINE_enum(
    "weights", "ema", ["ema", "raw"], "Averaged or raw weights."
)
SUPERVISION_STEPS = flags.DEFINE_integer(
    "supervision_steps",
    None,
    "Steps per puzzle; as the config says if unset.",
    lower_bound=1,
)
VOTES = flags.DEFINE_integer(
    "votes",
    None,
    "Forms of each puzzle, 0 for all; as the config says if unset.",
    lower_bound=0,
)
PUZZLE_IDS = flags.DEFINE_enum(
    "puzzle_ids", "own", list(loader.PUZZLE_IDS), "Ablation: hide which puzzle it is."
)
POOL = flags.DEFINE_list(
    "pool", [], "Checkpoints whose votes are counted together (not with --step)."
)
DEVICES = flags.DEFINE_integer(
    "devices", 0, "Devices that share each batch; 0 = all.", lower_bound=0
)
cli.define_process_flags()
log = logging.getLogger("trm_jax.eval")


def test_set(config: dict[str, Any], identity: dict[str, Any]) -> EvalSet:
    """The puzzles of --data, or those of the run, which must be the same still."""
    data, folder = config["data"], WORKDIR.value
    if DATA.value:
        test = sources.load_test(DATA.value, **data)
    else:
        loaded = sources.load(**data)
        test = loaded.test
        if loaded.identity["test"] != identity["test"]:
            raise DataError(
                f"the test set (data.source = {data['source']!r}, data.test = "
                f"{data['test']!r}) has changed since the run began; "
                f"{folder}/dataset.json records other SHA-256 sums"
            )
    if PUZZLE_IDS.value == "own" and test.id_map != identity.get("id_map"):
        raise DataError(
            f"{DATA.value or data['train']}: its puzzle ids stand for other tasks or "
            f"augmentations than those the checkpoint was trained on (SHA-256 "
            f"{test.id_map}; {folder}/dataset.json: {identity.get('id_map')}). Scores "
            "would mean nothing; --puzzle_ids=blank asks the model without them"
        )
    return test


class Evaluation:
    """The run, its test set, and what is asked of each checkpoint."""

    def __init__(self, workdir: Path) -> None:
        from judge import Judge
        from trm_jax.evaluation.evaluate import make_eval_step
        from trm_jax.runtime.checkpoint import Checkpoints
        from trm_jax.runtime.workdir import read_run
        from trm_jax.training.build import build

        self.workdir = workdir
        config, identity = read_run(workdir)
        self.config = config
        self.judge = Judge(
            test_set(config, identity),
            votes=config["eval"]["votes"] if VOTES.value is None else VOTES.value,
            num_puzzles=identity["sizes"]["num_puzzles"],
            puzzle_ids=PUZZLE_IDS.value,
        )
        self.num_steps = (
            SUPERVISION_STEPS.value
            or config["eval"]["supervision_steps"]
            or config["model"]["max_supervision_steps"]
        )
        # Its own mesh: the devices that the run was trained on need not be here.
        mesh = {"data": DEVICES.value, "fsdp": 1}
        train = config["train"] | {"micro_batches": 1}
        try:
            mine = config | {"mesh": mesh, "train": train}
            self.built = build(mine, identity["sizes"])
        except ConfigError as error:
            hint = " (--devices=N sets it)" if "mesh.data" in str(error) else ""
            raise ConfigError(f"{error}{hint}") from error
        self.checkpoints = Checkpoints(workdir)
        self.eval_step = make_eval_step(
            self.built.model,
            self.built.mesh,
            num_steps=self.num_steps,
            loss=config["train"]["loss"],
        )

    def about(self) -> dict[str, Any]:
        """What the rows depend on, apart from the weights."""
        return {
            "weights": WEIGHTS.value,
            "puzzle_ids": PUZZLE_IDS.value,
            "data": {
                "path": DATA.value or "the run's",
                "sha256": self.judge.puzzles.digests(),
                "id_map": self.judge.test.id_map,
                "seed": self.config["data"]["seed"],
            },
            "supervision_steps": self.num_steps,
            "votes": self.judge.votes,
        }

    def name(self, steps: Sequence[int] = ()) -> str:
        """Of the files: the steps, and what differs from an evaluation of the run."""
        asked = {
            "weights": WEIGHTS.value if WEIGHTS.value != "ema" else "",
            "steps": SUPERVISION_STEPS.value or "",
            "ids": PUZZLE_IDS.value if PUZZLE_IDS.value != "own" else "",
            "data": Path(DATA.value).name.split(".")[0] if DATA.value else "",
        }
        more = (f"-{key}_{value}" for key, value in asked.items() if value)
        return "_".join(map(str, steps)) + "".join(more)

    def rows_of(self, step: int | None) -> tuple[int, "EvalOutput", float | None]:
        """All rows of one checkpoint: its step, the rows, and how many per second."""
        from trm_jax.evaluation.evaluate import evaluate
        from trm_jax.evaluation.parts import EvalParts
        from trm_jax.runtime.manifest import state_digest
        from trm_jax.runtime.workdir import code_version

        state = self.checkpoints.restore_step(self.built.state_like, step)
        params = state.ema_params if WEIGHTS.value == "ema" else state.params
        weights = params, state.constants, state.puzzle_table
        step = int(state.step)
        about = self.about() | {
            "step": step,
            "weights_sha256": state_digest(weights),
            "model": self.config["model"],
            "batch_size": self.config["eval"]["batch_size"],
            "backend": self.built.mesh.devices.flat[0].device_kind,
            "devices": self.built.mesh.size,
            "code": code_version(),
        }
        parts = EvalParts(self.workdir / "eval" / "parts", about)
        if parts.num_rows:
            line = "step %d: %d of %d rows are taken from %s"
            log.info(line, step, parts.num_rows, self.judge.num_rows, parts.folder)
        progress = RowProgress(cli.BAR, parts.num_rows, self.judge.num_rows)
        batches = self.judge.batches(
            self.config["eval"]["batch_size"], start=parts.num_rows
        )
        for output in evaluate(self.eval_step, weights, batches, self.built.mesh):
            parts.add(output)
            progress(parts.num_rows)
        return step, parts.finish(), progress.rate(parts.num_rows)

    def result(self, steps: list[int], outputs: list["EvalOutput"]) -> dict[str, Any]:
        """Scores of the last output's single pass, and of the votes of all of them."""
        from trm_jax.evaluation import report

        judge, result = self.judge, {"step": steps[-1]} | self.about()
        if judge.has_solutions:
            single, scores = judge.single_pass(outputs[-1])
            result |= scores | {"by_step": report.by_step(single)}
            for name, values in judge.puzzles.attributes.items():
                result[f"by_{name}"] = report.by_attribute(single, values)
        else:
            log.info("test inputs without a known answer: nothing is scored")
        if judge.votes != 1 or judge.test.write_submission:
            count = judge.count(outputs)
            plain = len(steps) == 1 and not self.name()
            name = "submission" if plain else f"submission_{self.name(steps)}"
            path = self.workdir / "eval" / f"{name}.json"
            if processes.is_first() and judge.write_submission(path, count):
                log.info("submission written to %s", path)
            if judge.has_solutions:
                result |= judge.vote_report(count, steps, WEIGHTS.value)
        return result


def steps_to_pool() -> Sequence[int | None]:
    """The checkpoints asked for, in order of steps; None is the newest."""
    if not POOL.value:
        return [STEP.value]
    if STEP.value is not None or not all(step.isdecimal() for step in POOL.value):
        raise ConfigError(
            f"--pool={','.join(POOL.value)}; expected step numbers, and no --step"
        )
    return sorted({int(step) for step in POOL.value})


def main() -> int:
    """Restore, evaluate, write the report."""
    if not WORKDIR.value:
        raise ConfigError("--workdir=FOLDER is missing")
    cli.join_processes()
    from trm_jax.evaluation import coverage, report

    evaluation = Evaluation(Path(WORKDIR.value))
    done = [evaluation.rows_of(step) for step in steps_to_pool()]
    steps, outputs, rates = map(list, zip(*done, strict=True))
    result = evaluation.result(steps, outputs) | {"rows_per_s": rates[-1]}
    path = evaluation.workdir / "eval" / f"step_{evaluation.name(steps)}.json"
    if processes.is_first():
        write_whole(path, json.dumps(result, indent=2) + "\n", CheckpointError)
    if "exact_accuracy" in result:
        log.info("%s", report.as_text(result))
    if "pass_at" in result:
        log.info("\n%s", coverage.as_text(result))
    log.info("written to %s", path)
    return cli.EXIT_OK


if __name__ == "__main__":
    cli.run(main, __doc__ or "", user_errors=(DataError, OSError))
