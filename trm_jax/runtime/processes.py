# SPDX-License-Identifier: Apache-2.0
"""Several processes as one run: joining, meeting, agreeing, and ending together.

With one process all of it is trivial. JAX is imported where it is used: wrong flags are
told at once.
"""

import contextlib
import itertools
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from trm_jax.errors import CheckpointError, ConfigError
from trm_jax.runtime.process_join import await_coordinator, check_flags, give_up
from trm_jax.runtime.process_watch import LOST_S, ProcessWatch, hold_aborts, start_timer

JOIN_S = 300.0  # hosts of a pod come up minutes apart
MEET_S = 600.0  # for the slowest of processes that are alive: compilation, slow disks
SILENT_S = 120  # JAX's own limit, which aborts without a word; our watch is faster
# How JAX, Gloo, NCCL and `barrier` say that another process has gone.
_LOST = re.compile(
    r"Gloo \S+ failed|gloo/transport|NCCL \w+ |\bnccl[A-Z]|^UNAVAILABLE"
    r"|[Hh]eartbeat|Barrier failed|and one is lost",
    re.M,
)


class ProcessError(RuntimeError):
    """The processes did not meet; the message names the phase. The run can resume."""


_client: Any = None  # JAX's client of the coordinator; None with one process
_watch: ProcessWatch | None = None
_first = True
_calls: Counter[str] = Counter()  # by phase: all processes make the same, in one order


def initialize(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    timeout_s: float = JOIN_S,
) -> None:
    """Join the other processes, before any use of a device.

    With all three None, the cluster's environment tells (Slurm, MPI, TPU, Kubernetes).

    Raises:
      ConfigError: flags that do not fit, or no coordinator within `timeout_s`.
    """
    global _client, _first, _watch
    check_flags(coordinator, num_processes, process_id)
    where = f"--coordinator={coordinator}" if coordinator else "--distributed"
    end = time.monotonic() + timeout_s
    if coordinator and process_id:
        await_coordinator(coordinator, timeout_s)
    import jax
    from jax._src import distributed  # Orbax, too, takes the client from there

    # It would take SIGTERM for itself.
    jax.config.update("jax_enable_preemption_service", False)
    hold_aborts()
    limit = start_timer(end - time.monotonic(), give_up, where, timeout_s)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=int(timeout_s) + 60,
            heartbeat_timeout_seconds=SILENT_S,
            shutdown_timeout_seconds=int(LOST_S),
        )
    except (RuntimeError, ValueError) as error:
        hint = (
            "is the port free?" if coordinator else "no known cluster: name all three"
        )
        raise ConfigError(f"{where}: could not join ({hint}): {error}") from error
    finally:
        limit.cancel()
    state = distributed.global_state
    _first = state.process_id == 0
    if state.num_processes > 1:
        _client = state.client
        address = str(state.coordinator_address)
        _watch = ProcessWatch(_client, address, state.process_id, state.num_processes)
        check_same(f"--num_processes={state.num_processes}", "number of processes")


def finish(code: int) -> None:
    """Wait for all at the end of a run; then end this one of several with `code`."""
    if _watch is None:
        return
    import jax

    barrier("end of the run")
    _watch.close()
    for act in (jax.distributed.shutdown, logging.shutdown, sys.stdout.flush):
        with contextlib.suppress(Exception):  # all is done, wherever the others are
            act()
    os._exit(code)  # the watch and other threads of JAX's would abort at a plain exit


def fail(code: int, message: str, error: Exception) -> NoReturn:
    """End this and all other processes with `code` and `message`.

    Where `error` comes of a lost process, it says so and takes code 75.
    """
    if _watch is None:
        raise error
    if _LOST.search("\n".join(_messages(error))):
        time.sleep(1)  # a process that failed has told all why by then
        _watch.lose()
    _watch.end_all(code, message)


def crash(error: Exception) -> NoReturn:
    """`fail` with a traceback and code 1, for an error that nobody expected."""
    if not _LOST.search("\n".join(_messages(error))):
        traceback.print_exception(error)
    fail(1, f"error: {type(error).__name__}: {error}", error)


def name() -> str | None:
    """Such as "process 1 of 4", from 0 on; None if it is the only one."""
    return _watch.name if _watch else None


def is_first() -> bool:
    """Whether this is process 0, which alone writes logs and files."""
    return _first


def enter(phase: str) -> None:
    """What this process does from now on; named in errors."""
    if _watch:
        _watch.phase = phase


def before_end(act: Callable[[], None]) -> None:
    """To be done, within seconds, where the loss of another process ends this one."""
    if _watch:
        _watch.last_act = act


def barrier(phase: str, timeout_s: float = MEET_S) -> None:
    """Wait until all processes are here.

    Raises:
      ProcessError: not all came within `timeout_s`, or one is lost.
    """
    if _watch is None:
        return
    before = _watch.phase
    if threading.current_thread() is threading.main_thread():
        enter(phase)
    try:
        _client.wait_at_barrier(f"trm_jax/{phase}", int(timeout_s * 1000))
    except RuntimeError as error:
        late = "DEADLINE_EXCEEDED" in str(error)
        why = f"not all came within {timeout_s:g} s" if late else "one is lost"
        raise ProcessError(
            f"{_watch.name} waited for the others at {phase!r}, and {why}; "
            "run again to resume"
        ) from error
    if _watch.phase == phase:
        enter(before)


def all_true(ok: bool, phase: str, timeout_s: float = MEET_S) -> bool:
    """Whether `ok` on every process: the same answer on each. Blocks like `barrier`."""
    if _client is None:
        return ok
    _calls[phase] += 1  # not over all phases: a thread that saves has its own
    key = f"trm_jax/false/{phase}/{_calls[phase]}"
    _client.key_value_increment(key, int(not ok))
    barrier(phase, timeout_s)
    return _client.key_value_increment(key, 0) == 0


def check_same(text: str, what: str) -> None:
    """Raise ConfigError on all processes if `text` is not the same on each."""
    if _client is None:
        return
    phase = f"comparison of the {what}"
    key = f"trm_jax/text/{phase}/{_calls[phase]}"
    if _first:
        _client.key_value_set(key, text)
    barrier(phase)
    theirs = _client.blocking_key_value_get(key, 10_000)
    pairs = itertools.zip_longest(text.splitlines(), theirs.splitlines(), fillvalue="")
    unlike = [f"{a.strip()!r}, not {b.strip()!r}" for a, b in pairs if a != b]
    if unlike:
        _client.key_value_set(f"{key}/unlike", f"{name()} has {unlike[0]}", True)
    if not all_true(not unlike, phase):
        whose = _client.blocking_key_value_get(f"{key}/unlike", 10_000)
        raise ConfigError(f"a process has another {what} than process 0: {whose}")


def agreed(flag: Callable[[], bool]) -> Callable[[], bool]:
    """A flag that turns true at the same call on all processes, and stays so.

    All must call it equally often, from the thread that launches the steps. Each call
    launches a sum over the processes and reads that of the call before, so that no
    device is kept waiting.
    """
    if _client is None:
        return flag
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(jax.devices(), "all")
    split, whole = (NamedSharding(mesh, PartitionSpec(*a)) for a in (["all"], []))
    total = jax.jit(lambda votes: votes.sum(), out_shardings=whole)
    last: list[jax.Array] = []
    said = False

    def ask() -> bool:
        nonlocal said
        said = said or any(jax.device_get(last))
        votes = np.full(jax.local_device_count(), flag(), np.int32)
        last[:] = [total(jax.make_array_from_process_local_data(split, votes))]
        return said

    return ask


def _messages(error: BaseException | None) -> list[str]:
    """Without those that name files, which may be called anything."""
    if error is None:
        return []
    more = _messages(error.__cause__ or error.__context__)
    of_files = isinstance(error, ConfigError | CheckpointError | OSError)
    return more if of_files else [str(error), *more]
