# SPDX-License-Identifier: Apache-2.0
"""The shell around train.py and eval.py: flags, exit codes, signals, log lines."""

import contextlib
import io
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, cast

from absl import flags

from trm_jax.errors import CheckpointError, ConfigError, SaveError
from trm_jax.runtime import processes
from trm_jax.runtime.command_line import parse_flags
from trm_jax.runtime.progress import ProgressBar

BAR = ProgressBar()
SAME_SIGNAL_S = 0.3  # `timeout` and terminals may deliver one signal twice
EXIT_OK, EXIT_FAILED, EXIT_WRONG_INPUT, EXIT_STOPPED = 0, 1, 2, 75


def run(
    main: Callable[[], int], doc: str, *, user_errors: tuple[type[Exception], ...]
) -> NoReturn:
    """Parse the flags, run `main`, and leave with the right exit code.

    Errors that the user can mend end in one message and code 2, without a traceback.
    """
    # Read by JAX on import: a restarted run need not compile again.
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(cache):  # not where there is no home
        cache = os.path.join(cache, "trm_jax")
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("trm_jax").setLevel(logging.INFO)
    logging.raiseExceptions = False  # a closed pipe is no reason to stop a run
    # Our lines go to stdout at once, also into a pipe.
    cast(io.TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)
    logging.getLogger("trm_jax").addHandler(BAR.handler())
    logging.getLogger("trm_jax").propagate = False
    if {"--help", "-h", "-help", "--helpfull"} & set(sys.argv[1:]):
        ours = flags.FLAGS.main_module_help(), flags.FLAGS.module_help(__name__)
        sys.stdout.write("\n".join((f"{doc.strip()}\n", *ours)))
        sys.exit(EXIT_OK)
    _quieten_failed_reads()
    mendable: tuple[type[Exception], ...] = (ConfigError, CheckpointError, *user_errors)
    try:
        parse_flags()
        code = main()
        processes.finish(code)
        _exit(code)
    except SaveError as error:
        _leave(EXIT_FAILED, f"error: {error}", error)
    except mendable as error:
        _leave(EXIT_WRONG_INPUT, f"error: {error}", error)
    except FloatingPointError as error:
        kept = "the last good checkpoint is untouched"
        _leave(EXIT_FAILED, f"error: {error}; {kept}", error)
    except processes.ProcessError as error:
        _leave(EXIT_STOPPED, f"error: {error}", error)
    except Exception as error:
        if processes.name() is None:
            raise
        processes.crash(error)  # with a traceback; the others end as well


def define_process_flags() -> None:
    """The flags by which several processes become one run; see `join_processes`."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0, where the processes of a run join.",
    )
    flags.DEFINE_integer("num_processes", None, "How many processes the run has.")
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0 on.")
    flags.DEFINE_bool(
        "distributed", False, "Join the processes that Slurm, MPI or the pod started."
    )


def join_processes() -> None:
    """Join the other processes if flags say so; before any use of a JAX device.

    Process 0 alone logs all; the others show warnings and errors, with their name.
    """
    if not flags.FLAGS.is_parsed():  # called from another program
        return
    names = ("coordinator", "num_processes", "process_id")
    given = [flags.FLAGS[name].value for name in names]
    if given == [None] * 3 and not flags.FLAGS.distributed:
        return
    if given != [None] * 3 and flags.FLAGS.distributed:
        raise ConfigError("--distributed finds --" + ", --".join(names) + " by itself")
    processes.initialize(*given)
    processes.check_same(_shared_flags(), "command line")
    if not processes.is_first():
        logging.getLogger("trm_jax").setLevel(logging.WARNING)
        formatter = logging.Formatter(f"{processes.name()}: %(message)s")
        for logger in (logging.getLogger(), logging.getLogger("trm_jax")):
            for handler in logger.handlers:
                handler.setFormatter(formatter)
        BAR.live = False


def _shared_flags() -> str:
    """The program's own flags, a line each: the same on all processes of a run."""
    own = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
    return "\n".join(f"--{flag.name}={flag.value}" for flag in own)


def _quieten_failed_reads() -> None:
    """Drop what tensorstore's threads print when the read of a damaged file fails.

    Orbax raises the first error, which we report; the reads still under way then find
    their event loop closed, hundreds of times.
    """
    shown = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs what it raises
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def _leave(code: int, message: str, error: Exception) -> NoReturn:
    BAR.clear()
    if processes.name() is not None:
        processes.fail(code, message, error)
    with contextlib.suppress(OSError):  # a closed pipe
        sys.stderr.write(message + "\n")
    _exit(code)


def _exit(code: int) -> NoReturn:
    """Python would end with code 120 where nobody reads the pipe that is its stdout."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


class StopSignal:
    """True once SIGTERM or SIGINT came; a second one ends the process at once.

    Handlers run between bytecodes only, never during a long compilation or a blocked
    step, so a thread reads the signals from the wake-up pipe.
    """

    def __init__(self) -> None:
        self._received_at: float | None = None
        read, write = os.pipe()
        os.set_blocking(write, False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(read,), daemon=True).start()

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self._received_at is not None

    def _watch(self, pipe: int) -> None:
        while True:
            for number in os.read(pipe, 16):
                self._handle(signal.Signals(number).name)

    def _handle(self, name: str) -> None:
        now = time.monotonic()
        if self._received_at is None:
            self._received_at = now
            with contextlib.suppress(OSError):  # a closed pipe
                os.write(2, f"{name}: saving after this step\n".encode())
        elif now - self._received_at > SAME_SIGNAL_S:
            with contextlib.suppress(OSError):
                os.write(2, f"second signal ({name}): leaving at once\n".encode())
            os._exit(EXIT_STOPPED)
