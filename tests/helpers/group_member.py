# SPDX-License-Identifier: Apache-2.0
"""A process of a group, with a small loop of steps; processes_test.py runs it."""

import contextlib
import os
import signal
import sys
import time

from absl import flags

from tests.helpers.process_group import run_member
from trm_jax.commands import stop_signal
from trm_jax.errors import EXIT_OK, EXIT_STOPPED, ConfigError
from trm_jax.runtime import processes

# What only this process does at a step, such as "crash 3". All share the same flags.
DEED, _, AT_STEP = os.environ.get("DEED", "").rpartition(" ")


def say(text):
    with contextlib.suppress(OSError):  # as logging does
        sys.stdout.write(f"{text}\n")


def do(deed):
    match deed:
        case "be wrong":
            raise ConfigError("a wrong value on one process")
        case "crash":
            raise LookupError("a bug")
        case "meet":
            processes.barrier("save of step 3", timeout_s=1.0)
        case "be slow":
            time.sleep(45)
        case "hang":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "lose stdout":
            reader, writer = os.pipe()
            os.close(reader)
            os.dup2(writer, 1)


def define(values):
    flags.DEFINE_integer("steps", 5, "How many steps.", flag_values=values)
    flags.DEFINE_float("step_s", 0.0, "Sleep in each step.", flag_values=values)


def main(values):
    stop = stop_signal.StopSignal()
    say("joined")
    processes.check_same(os.environ.get("CONFIG", ""), "config")
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(jax.devices(), "all")
    split, whole = (NamedSharding(mesh, PartitionSpec(*a)) for a in (["all"], []))
    add = jax.jit(lambda x: x + x.sum() * 1e-3, out_shardings=split)
    total = jax.jit(lambda x: x.sum(), out_shardings=whole)
    ones = np.ones(jax.local_device_count(), np.float32)
    x = jax.make_array_from_process_local_data(split, ones)
    agreed = processes.agreed(stop)
    for step in range(1, values.steps + 1):
        time.sleep(values.step_s)
        if step == int(AT_STEP or 0):
            do(DEED)
        x = add(x)
        if agreed():
            say(f"stopped after step {step}")
            return EXIT_STOPPED
        say(f"step {step}")
    odd = processes.all_true(processes.is_first(), "a question")
    say(f"sum {float(total(x)):.3f} {processes.all_true(True, 'one more')} {odd}")
    return EXIT_OK


if __name__ == "__main__":
    run_member(main, define)
