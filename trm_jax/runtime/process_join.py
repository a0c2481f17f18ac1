# SPDX-License-Identifier: Apache-2.0
"""Checks around the joining of processes, where JAX would abort."""

import os
import socket
import time
from typing import NoReturn

from trm_jax.errors import ConfigError

EXIT_RESUMABLE = 75


def check_flags(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Raise ConfigError if the three do not fit, unless all are None."""
    if coordinator is None and num_processes is None and process_id is None:
        return
    if coordinator is None or num_processes is None or process_id is None:
        raise ConfigError(
            "--coordinator, --num_processes and --process_id belong together: "
            "give all three, or --distributed alone"
        )
    host, _, port = coordinator.rpartition(":")
    try:
        host.encode("idna")
    except UnicodeError:
        host = ""
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"--coordinator={coordinator}: expected HOST:PORT")
    if not 0 <= process_id < num_processes:
        raise ConfigError(
            f"--process_id={process_id}: expected 0 <= process_id < num_processes "
            f"= {num_processes}"
        )


def await_coordinator(address: str, timeout_s: float) -> None:
    """Wait until process 0 listens; JAX would abort where it never does."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ConfigError(
                    f"--coordinator={address}: process 0 does not answer there "
                    f"within {timeout_s:g} s ({error})"
                ) from error
        time.sleep(0.2)


def give_up(where: str, timeout_s: float) -> NoReturn:
    """End this process: JAX would abort it where not all come."""
    why = f"not all processes joined within {timeout_s:g} s; run all of them again"
    os.write(2, f"error: {where}: {why}\n".encode())
    os._exit(EXIT_RESUMABLE)
