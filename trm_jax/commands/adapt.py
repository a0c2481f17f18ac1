# SPDX-License-Identifier: Apache-2.0
"""Adapt trained weights to new ARC tasks, then answer the tasks (test-time training).

python -m trm_jax.commands.adapt WEIGHTS --data=FOLDER --workdir=D [--subset=NAME]
                                 [--minutes=M] [--votes=V] [--config.KEY=VALUE ...]

WEIGHTS is anything that trm_jax.load knows, trained on ARC. FOLDER holds the tasks of
the subset. A new run in D trains on their demonstrations, each in its augmentations.
Every puzzle id starts with the mean row of the table in WEIGHTS. At first only the
table is trained, then the whole network too. At the end, or after M minutes, all test
inputs are answered by votes over V forms (0: over all). D/eval then holds the
submission, and the scores if the answers are known. --minutes=0 answers without any
training, as a baseline.

The config of the run is that of WEIGHTS, but for the data, train.steps (500),
optim.table_only_steps (250), optim.warmup_steps (50, after these) and optim.ema_ramp
(so that the averaged weights, which answer, follow a short run). Schedules of its rule,
such as a curriculum, stay where they ended. Flags override it:
--config.train.steps=200 --config.optim.table_only_steps=100 is a shorter run with the
same halves, and --config.data.num_augmentations=64 takes fewer forms. The same command
continues a run that was stopped. Exit codes: as for train.py.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from absl import flags

from trm_jax import api
from trm_jax.commands import config_flag, shell
from trm_jax.commands import eval as eval_command
from trm_jax.errors import EXIT_STOPPED, ConfigError, Stopped
from trm_jax.runtime.interrupts import interrupts

STEPS = 500
log = logging.getLogger(__name__)


def run() -> NoReturn:
    """Adapt as this process."""
    shell.run(main)


def main(argv: Sequence[str]) -> int:
    """Adapt as the arguments after argv[0] say, and return the exit code."""
    values = flags.FlagValues()
    text = partial(flags.DEFINE_string, flag_values=values)
    text("data", None, "Folder with the new tasks.")
    text("workdir", None, "Folder of the new run.")
    text("subset", "evaluation", "The subset of FOLDER that is answered.")
    flags.DEFINE_float(
        "minutes",
        None,
        "Training ends after so many minutes of this call; unset: with its last step.",
        lower_bound=0.0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "votes",
        0,
        "Forms of each test input, 0 for all.",
        lower_bound=0,
        flag_values=values,
    )
    user_errors = (api.pipeline("errors").DataError, OSError)
    act = partial(_main, values, argv)
    return shell.call(act, values, argv, doc=__doc__, user_errors=user_errors)


def changes(folder: str, subset: str) -> dict[str, Any]:
    """What differs from the config of the weights, before any override."""
    return {
        "data.source": "json",
        "data.train": folder,
        "data.test": "",
        "data.train_puzzles": 0,
        "data.test_puzzles": 0,
        "data.arc.train_subsets": (),
        "data.arc.test_subset": subset,
        "optim.table_only_steps": STEPS // 2,
        "optim.warmup_steps": STEPS // 10,
        "optim.ema_ramp": True,  # else 78 % of the average would be the old weights
        "train.steps": STEPS,
        "train.eval_every": STEPS,
    }


def _main(values: flags.FlagValues, argv: Sequence[str]) -> int:
    """Train from the weights, then evaluate."""
    overrides, others = config_flag.split(argv)
    (weights,) = shell.parse_flags(values, others, positional=("WEIGHTS",))
    for name in ("data", "workdir"):
        if not values[name].value:
            raise ConfigError(f"--{name}=FOLDER is missing")
    shell.check_devices()
    from trm_jax.loading import open_weights

    trained = open_weights(weights).record["config"]
    if (task := trained["data"]["task"]) != "arc":
        raise ConfigError(f"{weights}: trained on data.task = {task!r}; expected 'arc'")
    config = config_flag.over(_adapted(trained, values), overrides)
    shell.set_precision(config.model.dtype)
    with interrupts() as interrupted:
        try:
            api.run(
                config.to_dict(),
                values.workdir,
                stop_requested=_until(interrupted, values.minutes),
                progress=shell.BAR.update,
                init_from=weights,
                init_table="mean",
            )
        except Stopped as stopped:
            log.info("%s", stopped)
            if interrupted():
                return EXIT_STOPPED
            log.info("--minutes=%g are over: the last step answers", values.minutes)
            alone = config.optim.table_only_steps
            log.info("(the first %d updates train the table alone)", alone)
    flags_given = [f"--workdir={values.workdir}", f"--votes={values.votes}"]
    return eval_command.main([argv[0], *flags_given])


def _adapted(trained: Mapping[str, Any], values: flags.FlagValues) -> dict[str, Any]:
    """The config of the weights with the changes."""
    config = api.get_config()
    config.update(trained)
    config.update_from_flattened_dict(changes(values.data, values.subset))
    for rule in config.rule.values():
        if not isinstance(rule, str):  # not rule.name
            rule.update(ended(rule.to_dict()))
    adapted: dict[str, Any] = config.to_dict()
    return adapted


def ended(rule: Mapping[str, Any]) -> dict[str, Any]:
    """What the schedules of a rule end in: adaptation does not begin them anew."""
    phases = ("phase_ends", "phase_h_cycles", "phase_l_cycles")
    found: dict[str, Any] = {name: () for name in phases if name in rule}
    for unit in ("cycles", "calls"):
        if last := rule.get(f"grow_{unit}_to", 0):
            found |= {f"grad_{unit}": last, f"grow_{unit}_to": 0, "grow_updates": 0}
    if rule.get("pseudo_steps", 0):
        found["pseudo_steps"] = 1
    return found


def _until(stop: Callable[[], bool], minutes: float | None) -> Callable[[], bool]:
    """`stop`, or true once the minutes from now are over."""
    end = time.monotonic() + 60 * (float("inf") if minutes is None else minutes)
    return lambda: stop() or time.monotonic() > end


if __name__ == "__main__":
    run()
