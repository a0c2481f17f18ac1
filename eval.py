# SPDX-License-Identifier: Apache-2.0
"""Evaluate a checkpoint: a table on the terminal, all numbers in eval/step_N.json.

python eval.py --workdir=D [--step=N] [--data=PATH] [--weights=ema|raw]
               [--supervision_steps=S]

Takes the newest checkpoint, its averaged weights and the test set of the run where not
told otherwise. Exit codes: 0 done, 2 wrong input or config, 1 otherwise.
"""

import json
import logging
import time
from pathlib import Path
from typing import Any

from absl import flags

from data_pipeline import loader, sources
from data_pipeline.errors import DataError
from data_pipeline.spec import PuzzleSet
from trm_jax import cli
from trm_jax.clock import clock_time
from trm_jax.errors import ConfigError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
STEP = flags.DEFINE_integer(
    "step", None, "Checkpoint to evaluate; the newest if unset."
)
DATA = flags.DEFINE_string(
    "data", None, "CSV file or array folder instead of the run's."
)
WEIGHTS = flags.DEFINE_enum(
    "weights", "ema", ["ema", "raw"], "Averaged or raw weights."
)
SUPERVISION_STEPS = flags.DEFINE_integer(
    "supervision_steps",
    None,
    "Steps per puzzle; as the config says if unset.",
    lower_bound=1,
)
LINE_S = 5.0  # seconds between progress lines where there is no terminal
log = logging.getLogger("trm_jax.eval")


def test_set(config: dict[str, Any], identity: dict[str, Any]) -> PuzzleSet:
    """The puzzles of --data, or those of the run, which must be the same still."""
    if DATA.value:
        return sources.load_test(DATA.value, **config["data"])
    data = sources.load(**config["data"])
    if data.identity["test"] != identity["test"]:
        raise DataError(
            f"the test set (data.source = {config['data']['source']!r}, data.test = "
            f"{config['data']['test']!r}) has changed since the run began; "
            f"{WORKDIR.value}/dataset.json records other SHA-256 sums"
        )
    return data.test


def main() -> int:
    """Restore, evaluate, write the report."""
    if not WORKDIR.value:
        raise ConfigError("--workdir=FOLDER is missing")
    from trm_jax import report
    from trm_jax.build import build
    from trm_jax.checkpoint import Checkpoints
    from trm_jax.evaluate import evaluate, make_eval_step
    from trm_jax.workdirs import read_json

    workdir = Path(WORKDIR.value)
    config = read_json(workdir / "config.json")
    puzzles = test_set(config, read_json(workdir / "dataset.json"))
    spec = sources.spec_of(**config["data"])
    # One device: where the run was trained on more, they need not be here.
    built = build(config | {"mesh": {"data": 1}}, spec.sizes)
    checkpoints = Checkpoints(workdir)
    state = checkpoints.restore_step(built.state_like, STEP.value)
    params = state.ema_params if WEIGHTS.value == "ema" else state.params
    num_steps = (
        SUPERVISION_STEPS.value
        or config["eval"]["supervision_steps"]
        or config["model"]["max_supervision_steps"]
    )
    eval_step = make_eval_step(
        built.model, built.mesh, num_steps=num_steps, loss=config["train"]["loss"]
    )
    started = last_line = time.monotonic()

    def progress(done: int) -> None:
        nonlocal last_line
        cli.BAR.update(done, len(puzzles), "puzzles")
        now = time.monotonic()
        if not cli.BAR.live and (now - last_line > LINE_S or done == len(puzzles)):
            last_line, rate = now, done / (now - started)
            left = clock_time((len(puzzles) - done) / rate)
            log.info("%d/%d puzzles  %.1f/s  ETA %s", done, len(puzzles), rate, left)

    rows = evaluate(
        eval_step,
        (params, state.constants, state.puzzle_table),
        loader.eval_batches(puzzles, config["eval"]["batch_size"]),
        built.mesh,
        progress,
    )
    step = int(state.step)
    result = {
        "step": step,
        "weights": WEIGHTS.value,
        "data": {"path": DATA.value or "the run's", "sha256": puzzles.digests()},
        "supervision_steps": num_steps,
        **report.summary(rows),
        "puzzles_per_s": len(puzzles) / (time.monotonic() - started),
        "by_step": report.by_step(rows),
        **{
            f"by_{name}": report.by_attribute(rows, values)
            for name, values in puzzles.attributes.items()
        },
    }
    path = workdir / "eval" / f"step_{step}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    log.info("%s\nwritten to %s", report.as_text(result), path)
    return cli.EXIT_OK


if __name__ == "__main__":
    cli.run(main, __doc__ or "", user_errors=(DataError,))
