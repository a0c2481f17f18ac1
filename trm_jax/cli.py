# SPDX-License-Identifier: Apache-2.0
"""The shell around train.py and eval.py: flags, exit codes, signals, log lines."""

import io
import logging
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

from absl import flags

from trm_jax import processes
from trm_jax.errors import CheckpointError, ConfigError, SaveError
from trm_jax.progress import ProgressBar

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
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trm_jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
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
        _parse_flags()
        code = main()
        processes.finish(code)
        sys.exit(code)
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


def _parse_flags() -> None:
    try:
        extra = flags.FLAGS(sys.argv)[1:]
    except flags.Error as error:
        raise ConfigError(_last_line(error)) from error
    except (AttributeError, KeyError) as error:  # an unknown --config.key
        raise ConfigError(_unknown_key(str(error))) from error
    if extra:
        raise ConfigError(
            f"unexpected argument {extra[0]!r}; flags look like --name=value"
        )


def resolved_config(holder: Any) -> Any:
    """The config of `--config=FILE[:variant]` with its overrides, locked."""
    if holder.value is None:
        raise ConfigError("--config=FILE is missing, for instance configs/smoke.py")
    try:
        return holder.value.lock()
    except OSError as error:  # ml_collections reports a missing file on first use
        raise ConfigError(f"--config: {error}") from error


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if len(lines) < 2 else f"{lines[0]} {lines[-1]}"


def _unknown_key(message: str) -> str:
    """ml_collections' message, cleaned up, with the flag that was meant."""
    named = re.search(r"\w+", message)
    given = [a.split("=")[0] for a in sys.argv if a.startswith("--config.")]
    flags_with_it = [a for a in given if named and named[0] in a.split(".")]
    text = message.replace("\\n", " ").replace("\\'", "'").strip("'\"")
    return f"{(flags_with_it or ['--config'])[0]}: unknown key {text}"


def _leave(code: int, message: str, error: Exception) -> NoReturn:
    BAR.clear()
    if processes.name() is not None:
        processes.fail(code, message, error)
    sys.stderr.write(message + "\n")
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
            os.write(2, f"{name}: saving after this step\n".encode())
        elif now - self._received_at > SAME_SIGNAL_S:
            os.write(2, f"second signal ({name}): leaving at once\n".encode())
            os._exit(EXIT_STOPPED)
