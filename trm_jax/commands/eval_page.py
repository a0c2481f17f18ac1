# SPDX-License-Identifier: Apache-2.0
"""`eval.py --report`: what the page says about the run, and which failures it shows."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trm_jax import api
from trm_jax.commands.evaluated_run import EvaluatedRun
from trm_jax.errors import ConfigError, SaveError
from trm_jax.files import json_digest, write_whole
from trm_jax.version import git_commit, versions

if TYPE_CHECKING:
    from trm_jax.evaluation.evaluate import EvalOutput
    from trm_jax.inspect.report_page import Failure

MOST_FAILURES = 8


def check(run: EvaluatedRun) -> None:
    """Raise ConfigError if no page can be written."""
    if importlib.util.find_spec("matplotlib") is None:
        hint = "pip install 'trm-jax[plots]' installs it"
        raise ConfigError(f"--report: matplotlib is not installed; {hint}")
    if not run.questions.has_solutions:
        raise ConfigError("--report: the test inputs have no known answer to compare")


def write(
    path: Path, run: EvaluatedRun, result: dict[str, Any], output: "EvalOutput"
) -> None:
    """Write the page of an evaluation; `output` has the rows of the last checkpoint."""
    from trm_jax.inspect.report_page import page

    task = api.pipeline("tasks").task_of(run.config["data"])
    title = f"{run.name}, step {result['step']}: {run.config['data']['task']}"
    failures = _failures(run, task, output)
    text = page(title, result, _facts(run, result), failures, task.look())
    write_whole(path, text, SaveError)


def _facts(run: EvaluatedRun, result: dict[str, Any]) -> dict[str, Any]:
    """What was evaluated, and what identifies it."""
    rule, layers = run.config["rule"]["name"], run.config["model"]["layers"]
    commit = (git_commit() or "unknown")[:12]
    return {
        "run": run.name,
        "step": f"{result['step']:,}, {result['weights']} weights",
        "model": f"{rule}: {', '.join(layers)}",
        "puzzles": f"{result['puzzles']:,}, from {run.values.data or 'the test set'}",
        "supervision steps": result["supervision_steps"],
        "votes": result["votes"],
        "puzzle ids": result["puzzle_ids"],
        "config": f"SHA-256 {json_digest(run.config)}",
        "data": f"SHA-256 {json_digest(result['data']['sha256'])}",
        "code": f"commit {commit}, jax {versions()['jax']}",
    }


def _failures(run: EvaluatedRun, task: Any, output: "EvalOutput") -> list["Failure"]:
    """The wrong answers to form 0 of which the model is most sure, in this order."""
    from trm_jax.evaluation.evaluate import take_rows
    from trm_jax.evaluation.report import probability
    from trm_jax.inspect.replay_record import cropped
    from trm_jax.inspect.report_page import Failure

    questions = run.questions
    single = take_rows(output, questions.form == 0)
    probabilities = probability(np.asarray(single.q_halt[-1], np.float64))
    wrong = ~np.asarray(single.all_right[-1], bool)
    answers = np.asarray(single.predictions)
    if questions.is_valid:
        wrong &= ~questions.is_valid(questions.inputs, answers)
    rows = np.flatnonzero(wrong)
    rows = rows[np.argsort(-probabilities[rows], kind="stable")][:MOST_FAILURES]
    config = run.built.recipe.model.config
    found = []
    for row in rows:
        question = questions.inputs[row]
        pair = np.stack([answers[row], questions.labels[row]])
        answer, truth = task.shown(pair, question)
        given = (question != config.blank) & (config.blank >= 0)
        off = answer != truth
        about = [
            f"puzzle {row + 1}",
            f"{100 * probabilities[row]:.1f} % sure",
            f"{int(off.sum())} cells wrong",
            *(f"{key} {values[row]}" for key, values in questions.attributes.items()),
        ]
        if not run.values.data and (name := task.name_of(int(row))):
            about.insert(1, f"task {name}")
        (asked,) = task.shown(question[None], question)
        shape = config.grid_shape
        drawn = [each.reshape(shape) for each in (answer, truth, given, off)]
        asked = cropped(asked.reshape(shape))
        found.append(Failure("; ".join(about), *asked, *cropped(*drawn)))
    return found
