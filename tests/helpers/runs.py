# SPDX-License-Identifier: Apache-2.0
"""Short runs, in this process and in others."""

import contextlib
import io
import json
import logging
import subprocess
import sys
from pathlib import Path

from data_pipeline import tasks
from tests.helpers import short_run
from trm_jax.commands.progress import ProgressBar
from trm_jax.files import json_digest
from trm_jax.runtime import workdir as workdirs
from trm_jax.runtime.checkpoint import Checkpoints
from trm_jax.training.build import build
from trm_jax.training.digest import state_digest

ROOT = Path(__file__).parents[2]


def short_config(variant="mlp_t", **train):
    config = short_run.get_config(variant)
    config.train.update(train)
    return config.lock()


def as_flags(config_file, **overrides):
    flags = [f"--config={config_file}"]
    return flags + [f"--config.{key}={value}" for key, value in overrides.items()]


def short_flags(**overrides):
    return as_flags("tests/helpers/short_run.py", **overrides)


def command(script, *flags):
    """The words of `python SCRIPT FLAGS`; the script "-m" takes a module."""
    script = script if script == "-m" else ROOT / script
    return [sys.executable, *map(str, (script, *flags))]


def call(script, *flags, **kwargs):
    kwargs = {
        "capture_output": True,
        "text": True,
        "timeout": 300,
        "cwd": ROOT,
    } | kwargs
    return subprocess.run(command(script, *flags), check=False, **kwargs)


def call_here(main, *flags):
    """Run `main` of a command in this process, and return its code and output.

    Callers must replace its signal handlers (`stop_signal.StopSignal`).
    """
    out, err = io.StringIO(), io.StringIO()
    line = [main.__module__, *map(str, flags)]
    log, handler = logging.getLogger("trm_jax"), ProgressBar(out).handler()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(line)
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
    return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())


def metric_lines(workdir):
    """The records of metrics.jsonl, without their timings."""
    lines = (Path(workdir) / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    timings = ("steps_per_s", "train/seconds")
    return [{k: v for k, v in r.items() if k not in timings} for r in records]


def edit_config(workdir, edit):
    """Apply `edit` to the config of a run and give its record a new checksum."""
    path = Path(workdir) / "config.json"
    config = json.loads(path.read_text())
    del config["checksum"]
    edit(config)
    record = config | {"checksum": json_digest(config)}
    path.write_text(json.dumps(record))


def digest(workdir, step=None):
    """The number of a saved step (the newest if None) and the digest of its state."""
    config, _ = workdirs.read_run(workdir)
    built = build(config, tasks.spec_of(config["data"]).sizes)
    checkpoints = Checkpoints(workdir)
    state = checkpoints.restore_step(built.state_like, step)
    checkpoints.close()
    return int(state.step), state_digest(state)
