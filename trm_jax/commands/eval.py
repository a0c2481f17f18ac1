# SPDX-License-Identifier: Apache-2.0
"""Evaluate a checkpoint: a table on the terminal, all numbers in eval/step_N.json.

python eval.py --workdir=D [--step=N] [--data=PATH] [--weights=ema|raw]
               [--supervision_steps=S] [--votes=V] [--puzzle_ids=own|blank|random]
               [--pool=N,N,...] [--puzzles=N] [--refill=P] [--devices=N]
               [--report[=FILE.html]]
               [--distributed | --coordinator=H:P --num_processes=N --process_id=I]
python eval.py --weights_file=PATH --out=FILE [--config=FILE] [--data=PATH] ...
python eval.py ... --search=NAME[,NAME...] --budget=CALLS [--noise=STD] [--out=FILE]

By default, this evaluates the averaged weights of the newest checkpoint on the test set
of the run. The names of the files contain --weights, --supervision_steps, --votes,
--puzzle_ids, --puzzles, --refill and --data (with a digest of its puzzles) if they are
given. With --votes=V each puzzle is solved in V forms (0: in all that it has); the
answers are turned back and counted as votes. With --refill=P, a row halts as soon as
the rule wants it to and the halting probability is at least P, and the next puzzle
takes its place. With --search, searches at test time are compared; docs/search.md
describes them. With --report, an HTML page with figures and wrong answers is written,
by default beside the JSON file. An evaluation that was cut short continues where it
stopped. With --weights_file no run is needed: the weights are any that trm_jax.load
knows, and --out names the JSON file. Exit codes: 0 done, 2 wrong input or config, 75
another process was lost, 1 otherwise.
"""

import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from absl import flags

from trm_jax import api
from trm_jax.commands import config_flag, eval_page, eval_search, shell
from trm_jax.commands.evaluated_run import EvaluatedRun
from trm_jax.errors import EXIT_OK, ConfigError, SaveError
from trm_jax.files import check_target, json_digest, write_whole
from trm_jax.runtime import processes

if TYPE_CHECKING:
    from trm_jax.evaluation.evaluate import EvalOutput

log = logging.getLogger(__name__)


def run() -> NoReturn:
    """Run eval.py as this process."""
    shell.run(main)


def main(argv: Sequence[str]) -> int:
    """Evaluate as the arguments after argv[0] say, and return the exit code."""
    values = flags.FlagValues()
    config_flag.define(values, argv)
    _define_flags(values)
    user_errors = (api.pipeline("errors").DataError, OSError)
    act = partial(_main, values, argv)
    return shell.call(act, values, argv, doc=__doc__, user_errors=user_errors)


def _define_flags(values: flags.FlagValues) -> None:
    text, number = (
        partial(define, flag_values=values)
        for define in (flags.DEFINE_string, flags.DEFINE_integer)
    )
    choice = partial(flags.DEFINE_enum, flag_values=values)
    text("workdir", None, "Folder of the run.")
    number("step", None, "Checkpoint to evaluate; the newest if unset.")
    text("data", None, "File or folder instead of the run's.")
    choice("weights", "ema", ["ema", "raw"], "Averaged or raw weights.")
    number(
        "supervision_steps",
        None,
        "Steps per puzzle; default: the config's.",
        lower_bound=1,
    )
    number(
        "votes",
        None,
        "Forms of each puzzle, 0 for all; default: the config's.",
        lower_bound=0,
    )
    ids = ["own", "blank", "random"]
    choice("puzzle_ids", "own", ids, "Ablation: hide which puzzle it is.")
    flags.DEFINE_list(
        "pool",
        [],
        "Checkpoints whose votes are counted together (not with --step).",
        flag_values=values,
    )
    number("puzzles", 0, "Only the first N puzzles; 0 = all.", lower_bound=0)
    flags.DEFINE_float(
        "refill",
        None,
        "Halting probability with which a row leaves for the next puzzle.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )
    eval_search.define_flags(values)
    text("report", None, "HTML page to write; beside the JSON file if empty.")
    number("devices", 0, "Devices that share each batch; 0 = all.", lower_bound=0)
    text("weights_file", None, "Weights without a run: a file, a name, a hub id.")
    text("out", None, "Report of --weights_file.")
    shell.define_process_flags(values)


def _main(values: flags.FlagValues, argv: Sequence[str]) -> int:
    """Restore, evaluate, write the report."""
    argv = ["--report=" if word == "--report" else word for word in argv]
    config = config_flag.read_optional(values, argv, like=api.get_config().to_dict())
    _check_source(values, config)
    eval_search.check(values)
    for target in filter(None, (values.out, values.report)):
        check_target(Path(target), ConfigError)
    steps_asked = _steps_to_pool(values)
    shell.join_processes(values)
    shell.check_devices()
    from trm_jax.evaluation import coverage, report

    run = EvaluatedRun(values, config)
    if values.search:
        return eval_search.act(run, _name)
    if values.report is not None:
        eval_page.check(run)
    done = [run.rows_of(step) for step in steps_asked]
    steps, outputs, rates = map(list, zip(*done, strict=True))
    result = _result(run, steps, outputs) | {"rows_per_s": rates[-1]}
    path = run.report_path(f"step_{_name(run, steps)}")
    if processes.is_first():
        write_whole(path, json.dumps(result, indent=2) + "\n", SaveError)
        if values.report is not None:
            place = Path(values.report or path.with_suffix(".html"))
            eval_page.write(place, run, result, outputs[-1])
            log.info("page written to %s", place)
        run.forget()
    if "exact_accuracy" in result:
        log.info("%s", report.as_text(result))
        if values.refill is not None:
            steps = result["halting"]["mean_steps"]
            log.info("\nrefill: %.2f steps per row, of up to %d", steps, run.num_steps)
    if "pass_at" in result:
        log.info("\n%s", coverage.as_text(result))
    log.info("written to %s", path)
    return EXIT_OK


def _check_source(values: flags.FlagValues, config: Any) -> None:
    """Raise ConfigError unless the flags name a run, or a file and its report."""
    if not values.weights_file:
        if not values.workdir:
            raise ConfigError("--workdir=FOLDER is missing")
        if config is not None or (values.out and not values.search):
            raise ConfigError(
                "--config and --out go with --weights_file, not --workdir"
            )
        return
    given = {"workdir": values.workdir, "step": values.step, "pool": values.pool}
    for name, value in given.items():
        if value not in (None, []):
            raise ConfigError(f"--weights_file and --{name} exclude each other")
    if not values.out:
        raise ConfigError("--out=FILE.json is missing; --weights_file needs it")


def _steps_to_pool(values: flags.FlagValues) -> Sequence[int | None]:
    """The checkpoints to evaluate, in order of steps; None is the newest."""
    if not values.pool:
        return [values.step]
    if values.step is not None or not all(step.isdecimal() for step in values.pool):
        raise ConfigError(
            f"--pool={','.join(values.pool)}; expected step numbers, and no --step"
        )
    return sorted({int(step) for step in values.pool})


def _name(run: EvaluatedRun, steps: Sequence[int] = ()) -> str:
    """The steps, and each of these flags that differs from its default.

    Files of the same name in different folders differ in the digest of their puzzles.
    """
    values, data = run.values, ""
    if values.data:
        digest = json_digest(run.about()["data"]["sha256"])[:8]
        data = f"{Path(values.data).name.split('.')[0]}_{digest}"
    flags_given = {
        "weights": values.weights if values.weights != "ema" else "",
        "steps": values.supervision_steps or "",
        "votes": "" if values.votes is None else str(values.votes),
        "ids": values.puzzle_ids if values.puzzle_ids != "own" else "",
        "data": data,
        "puzzles": values.puzzles or "",
        "refill": "" if values.refill is None else str(values.refill),
    }
    more = (f"-{key}_{value}" for key, value in flags_given.items() if value)
    return "_".join(map(str, steps)) + "".join(more)


def _result(
    run: EvaluatedRun, steps: list[int], outputs: list["EvalOutput"]
) -> dict[str, Any]:
    """Scores of the single pass in the last output, and of the votes in all outputs."""
    from trm_jax.evaluation import report

    judge, questions, flags_given = run.judge, run.questions, run.values
    result = {"step": steps[-1]} | run.about()
    if questions.has_solutions:
        single, scores = judge.single_pass(outputs[-1])
        result |= scores | {
            "by_step": report.by_step(single),
            "halting": report.halting(single),
            "calibration": report.calibration(single),
        }
        for name, values in questions.attributes.items():
            result[f"by_{name}"] = report.by_attribute(single, values)
    else:
        log.info("test inputs without a known answer: nothing is scored")
    if judge.votes != 1 or len(outputs) > 1 or questions.write_submission:
        count = judge.count(outputs)
        plain = len(steps) == 1 and not _name(run)
        name = "submission" if plain else f"submission_{_name(run, steps)}"
        path = run.submission_path(name)
        if processes.is_first() and judge.write_submission(path, count):
            log.info("submission written to %s", path)
        if questions.has_solutions:
            result |= judge.vote_report(count, steps, flags_given.weights)
    return result


if __name__ == "__main__":
    run()
