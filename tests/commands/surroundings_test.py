# SPDX-License-Identifier: Apache-2.0
"""What surrounds a run neither changes it nor ends in a traceback."""

import os
import subprocess
import sys

import jax
import pytest

from configs import smoke
from tests.helpers.runs import ROOT, call_here
from tests.helpers.tiny import tiny_sizes
from trm_jax.commands import shell, solve, train
from trm_jax.errors import ConfigError
from trm_jax.runtime import workdir as workdirs
from trm_jax.training.build import build

STOPPED = """
import os, signal, sys, time
ignored = "ignored" in sys.argv  # whatever the tests themselves were started with
signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
from trm_jax.commands.stop_signal import StopSignal
stop = StopSignal()
os.kill(os.getpid(), signal.SIGHUP)
until = time.monotonic() + (1 if ignored else 60)
while not stop() and time.monotonic() < until:
    time.sleep(0.05)
print(stop())
"""


@pytest.mark.parametrize(("given", "told"), [((), "True"), (("ignored",), "False")])
def test_a_hangup_stops_a_run_unless_it_is_ignored(given, told):
    line = [sys.executable, "-c", STOPPED, *given]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.strip() == told
    assert ("SIGHUP: saving" in done.stderr) == (told == "True")


OPTIONS = {
    "jax_default_matmul_precision": "highest",
    "jax_numpy_dtype_promotion": "strict",
    "jax_random_seed_offset": 3,
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_jax_that_would_change_a_run_are_refused(option):
    before = getattr(jax.config, option)
    jax.config.update(option, OPTIONS[option])
    try:
        with pytest.raises(ConfigError, match=f"{option} = .* would change"):
            build(smoke.get_config().to_dict(), tiny_sizes())
    finally:
        jax.config.update(option, before)


@pytest.mark.parametrize("error", [RuntimeError("no such platform"), AssertionError()])
def test_a_platform_that_is_not_there_is_named(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(ConfigError, match=r"JAX_PLATFORMS=cuda: no such"):
        shell.check_devices()


def test_a_working_directory_that_is_gone_is_named(monkeypatch):
    def gone():
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", gone)
    done = call_here(train.main, "--config=configs/smoke.py", "--workdir=x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the working directory was removed\n"


def test_fewer_steps_than_were_saved_change_nothing(tmp_path):
    config = smoke.get_config().to_dict()
    workdirs.claim(tmp_path, config, {})
    (tmp_path / "checkpoints" / "300").mkdir(parents=True)
    before = (tmp_path / "config.json").read_bytes()
    few = config | {"train": config["train"] | {"steps": 299}}
    with pytest.raises(ConfigError, match="step 300 was saved; train.steps = 299, exp"):
        workdirs.claim(tmp_path, few, {})
    assert (tmp_path / "config.json").read_bytes() == before
    workdirs.claim(tmp_path, config, {})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--puzzle=1", "--row=2"], "the puzzle: question 2; it has 1, from 1 on"),
        (["--puzzle="], "the puzzle: 0 characters found, 16 expected"),
    ],
)
def test_solve_takes_one_puzzle(tmp_path, given, told):
    workdirs.claim(tmp_path, smoke.get_config().to_dict(), {"sizes": tiny_sizes()})
    done = call_here(solve.main, f"--workdir={tmp_path}", *given)
    assert done.returncode == 2
    assert told in done.stderr


LOADED = """
import sys
import trm_jax.commands.solve, trm_jax.commands.train
print({"jax.experimental.pallas.mosaic_gpu", "orbax.checkpoint"} & sys.modules.keys())
"""


def test_a_command_starts_without_what_it_may_not_need():
    """Each would add a fifth or more to its start, which takes some 2 s."""
    line = [sys.executable, "-c", LOADED]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
