# SPDX-License-Identifier: Apache-2.0
"""Train a model, or resume it where it stopped.

python train.py --config=configs/X.py[:variant] --workdir=D [--config.a.b=v] [--dry_run]
                [--init_from=WEIGHTS] [--init_table=keep|mean|reset]
                [--deterministic] [--wandb=PROJECT] [--profile=FIRST,LAST]
                [--distributed | --coordinator=H:P --num_processes=N --process_id=I]

A second start with the same workdir and config resumes the run. With --init_from a new
run starts from the weights of another run or of a file. --wandb also sends the records
of metrics.jsonl to Weights & Biases, and --profile writes a profile of some steps to
WORKDIR/profile; neither changes the run. Exit codes: 0 done, 2 wrong input or config,
75 stopped and resumable, 1 otherwise.
"""

import json
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import ConfigDict

from trm_jax import api
from trm_jax.commands import config_flag, shell, stop_signal
from trm_jax.errors import EXIT_OK, EXIT_STOPPED, ConfigError, Stopped
from trm_jax.runtime.watch import NOTHING, Watch

log = logging.getLogger(__name__)


def run() -> NoReturn:
    """Run train.py as this process."""
    shell.run(main)


def main(argv: Sequence[str]) -> int:
    """Train as the arguments after argv[0] say, and return the exit code."""
    values = flags.FlagValues()
    config_flag.define(values, argv)
    _define_flags(values)
    user_errors = (api.pipeline("errors").DataError,)
    act = partial(_main, values, argv)
    return shell.call(act, values, argv, doc=__doc__, user_errors=user_errors)


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "Folder of this run.", flag_values=values)
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Print sizes, FLOPs, memory and the resolved config, as JSON.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "deterministic",
        False,
        "The same bits in every run, on a GPU too; slower there.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "init_from",
        None,
        "Weights for a new run: a run, a file, shipped weights, a hub id.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "init_table",
        "keep",
        ["keep", "mean", "reset"],
        "The puzzle table of --init_from: as it is, its mean row for each id, zeros.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "wandb", "", "Project of Weights & Biases for the records.", flag_values=values
    )
    flags.DEFINE_list(
        "profile", [], "First and last step to profile.", flag_values=values
    )
    shell.define_process_flags(values)


def _main(values: flags.FlagValues, argv: Sequence[str]) -> int:
    config = config_flag.read(values, argv, like=api.get_config().to_dict())
    if values.deterministic:  # JAX reads the flag when it first uses a device
        deterministic = "--xla_gpu_deterministic_ops=true"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {deterministic}"
    shell.set_precision(config.model.dtype)
    if values.dry_run:
        if values.init_from:
            raise ConfigError("--init_from reads weights, --dry_run does not")
        shell.check_devices()
        return _dry_run(config.to_dict())
    if not values.workdir:
        raise ConfigError("--workdir=FOLDER is missing")
    _watch(values).check(config.train.steps)
    return train(config, values.workdir, values)


def _watch(values: flags.FlagValues | None) -> Watch:
    """What the flags say about observers. Raises ConfigError."""
    if values is None:
        return NOTHING
    ends = values.profile
    if ends and (len(ends) != 2 or not all(end.isdecimal() for end in ends)):
        raise ConfigError(
            f"--profile={','.join(ends)}; expected FIRST,LAST, two step numbers"
        )
    profile = (int(ends[0]), int(ends[1])) if ends else None
    return Watch(wandb=values.wandb, profile=profile)


def _dry_run(config: dict[str, Any]) -> int:
    """Print what the run would cost; no file is written."""
    from trm_jax.training.build import build
    from trm_jax.training.cost import dry_run_report

    built = build(config, api.sizes_of(config))
    report = dry_run_report(built) | {"config": config}
    shell.say(json.dumps(report, indent=2) + "\n")
    return EXIT_OK


def train(
    config: ConfigDict, workdir: str | Path, values: flags.FlagValues | None = None
) -> int:
    """Train until the last step or a signal; join other processes as `values` say."""
    stop = stop_signal.StopSignal()  # first, since joining and compiling take long
    if values:
        shell.join_processes(values)
    shell.check_devices()
    try:
        api.run(
            config.to_dict(),
            workdir,
            stop_requested=stop,
            progress=shell.BAR.update,
            init_from=values.init_from if values else None,
            init_table=values.init_table if values else "keep",
            watch=_watch(values),
        )
    except Stopped as stopped:
        log.info("%s", stopped)
        return EXIT_STOPPED
    return EXIT_OK
