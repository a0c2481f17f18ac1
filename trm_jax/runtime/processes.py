# SPDX-License-Identifier: Apache-2.0
"""Several processes as one run: they join, wait for each other, agree, and end.

With one process every function is trivial. If a process dies or stops answering,
JAX's coordination service misses its heartbeats and aborts the others (code 134).
JAX is imported late, so that wrong flags are reported at once.
"""

import itertools
import os
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from trm_jax import errors
from trm_jax.errors import CheckpointError, ConfigError, error_of, reason_of

HEARTBEAT_S = 10  # JAX declares a process lost after this much silence
JOIN_S = 300.0  # hosts of a pod come up minutes apart
MEET_S = 600.0  # compilation or a slow disk may delay a process that is alive
OTHERS_FAILED = "another process failed; its message says why"


class ProcessError(RuntimeError):
    """A process missed a barrier; the message names the phase. The run can resume."""


_client: Any = None  # of JAX's coordination service; None with one process
_index, _num = 0, 1
_calls: Counter[str] = Counter()  # by phase; all processes must make the same calls


def initialize(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    timeout_s: float = JOIN_S,
) -> None:
    """Join the other processes; call this before any use of a device.

    If all three are None, JAX finds them (under Slurm, MPI, Kubernetes, on a TPU pod).

    Raises:
      ConfigError: no coordinator answers within `timeout_s`, or JAX cannot join.
    """
    global _client, _index, _num
    where = f"--coordinator={coordinator}" if coordinator else "--distributed"
    if coordinator and process_id:
        _await_coordinator(coordinator, timeout_s)
    import jax
    from jax._src import distributed  # Orbax also takes the client from there

    # This service would handle SIGTERM, which the run handles itself.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        limits: dict[str, Any] = {"initialization_timeout": int(timeout_s)}
        limits |= {"heartbeat_timeout_seconds": HEARTBEAT_S}
        jax.distributed.initialize(coordinator, num_processes, process_id, **limits)
    except (RuntimeError, ValueError) as error:
        hint = (
            "is the port free?" if coordinator else "no known cluster: give all flags"
        )
        raise ConfigError(f"{where}: could not join ({hint}): {error}") from error
    state = distributed.global_state
    if state.num_processes > 1:
        _client, _index, _num = state.client, state.process_id, state.num_processes
        check_same(f"--num_processes={_num}", "number of processes")


def _await_coordinator(address: str, timeout_s: float) -> None:
    """Wait until process 0 listens; JAX would abort if it never did."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + timeout_s
    while True:
        try:
            return socket.create_connection((host.strip("[]"), int(port)), 5).close()
        except OSError as error:
            if time.monotonic() > end:
                raise ConfigError(
                    f"--coordinator={address}: process 0 does not answer there "
                    f"within {timeout_s:g} s ({error})"
                ) from error
        time.sleep(0.2)


def finish() -> None:
    """Wait for the other processes at the end of a run, and disconnect."""
    global _client
    if _client is not None:
        barrier("end of the run")
        import jax

        jax.distributed.shutdown()
        _client = None


def leave(code: int) -> NoReturn:
    """End this process without waiting for the others, which may never end.

    JAX aborts those that do not end by themselves within seconds.
    """
    if _client is None:
        sys.exit(code)
    if is_first():
        time.sleep(1)  # process 0 is the coordinator: let others report the same error
    os._exit(code)


def crash() -> NoReturn:
    """Print the traceback of an unexpected error, and leave with EXIT_FAILED.

    A lost process also causes such an error. In that case JAX aborts this process while
    it waits here, and the exit code says that the run can resume.
    """
    traceback.print_exc()
    time.sleep(2 * HEARTBEAT_S)
    leave(errors.EXIT_FAILED)


def name() -> str | None:
    """A name such as "process 1 of 4", counted from 0; None for a single process."""
    return f"process {_index} of {_num}" if _num > 1 else None


def is_first() -> bool:
    """Whether this is process 0, the only one that writes logs and files."""
    return _index == 0


def barrier(phase: str, timeout_s: float = MEET_S) -> None:
    """Wait until all processes have reached this phase.

    Raises:
      ProcessError: not all processes came within `timeout_s`, or one is lost.
    """
    if _client is None:
        return
    try:
        _client.wait_at_barrier(f"trm_jax/{phase}", int(timeout_s * 1000))
    except RuntimeError as error:
        late = "DEADLINE_EXCEEDED" in str(error)
        why = f"not all came within {timeout_s:g} s" if late else "one is lost"
        raise ProcessError(
            f"{name()} waited for the others at {phase!r}, and {why}; "
            "run again to resume"
        ) from error


def all_true(ok: bool, phase: str) -> bool:
    """Whether `ok` is true on all processes; all agree. Blocks like `barrier`."""
    if _client is None:
        return ok
    _calls[phase] += 1
    key = f"trm_jax/false/{phase}/{_calls[phase]}"
    _client.key_value_increment(key, int(not ok))
    barrier(phase)
    return _client.key_value_increment(key, 0) == 0


def on_first(act: Callable[[], Any], phase: str) -> None:
    """Call `act` on process 0 while the others wait; if it fails, raise on all."""
    agree(error_of(act) if is_first() else None, phase)


def agree(error: Exception | None, phase: str) -> None:
    """If any process has an error, raise on all: its own error or OTHERS_FAILED."""
    if all_true(error is None, phase):
        return
    if error is None or isinstance(error, OSError):
        raise CheckpointError(reason_of(error) if error else OTHERS_FAILED) from error
    raise error


def check_same(text: str, what: str) -> None:
    """Raise ConfigError on all processes if `text` is not the same on each."""
    if _client is None:
        return
    phase = f"comparison of the {what}"
    _calls[phase] += 1
    key = f"trm_jax/text/{phase}/{_calls[phase]}"
    _client.key_value_set(f"{key}/{_index}", text)
    barrier(phase)
    texts = [_client.blocking_key_value_get(f"{key}/{i}", 10_000) for i in range(_num)]
    first = texts[0].splitlines()
    for i, theirs in enumerate(texts):
        pairs = itertools.zip_longest(theirs.splitlines(), first, fillvalue="")
        for line, expected in pairs:
            if line != expected:
                raise ConfigError(
                    f"a process has another {what} than process 0: process {i} of "
                    f"{_num} has {line.strip()!r}, not {expected.strip()!r}"
                )


def agreed(flag: Callable[[], bool]) -> Callable[[], bool]:
    """Return a flag that turns true at the same call on all processes, and stays true.

    All must call it equally often, from the thread that launches the steps. Each call
    launches a sum over the processes and reads the sum that the previous call launched,
    so that no device waits.
    """
    if _client is None:
        return flag
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(jax.devices(), "all")
    split = NamedSharding(mesh, PartitionSpec("all"))
    total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))
    last: list[jax.Array] = []

    def ask() -> bool:
        said = any(jax.device_get(last))
        votes = np.full(jax.local_device_count(), said or flag(), np.int32)
        last[:] = [total(jax.make_array_from_process_local_data(split, votes))]
        return said

    return ask
