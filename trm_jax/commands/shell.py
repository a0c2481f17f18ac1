# SPDX-License-Identifier: Apache-2.0
"""What all commands share: flags, exit codes, log lines."""

import contextlib
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

from absl import flags

from trm_jax.beside import pipeline
from trm_jax.commands.progress import ProgressBar
from trm_jax.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_STOPPED,
    EXIT_WRONG_INPUT,
    CheckpointError,
    ConfigError,
    SaveError,
)
from trm_jax.runtime import processes

_CONSOLE = pipeline("console")
_CONSOLE.open_missing()  # if stdout was closed, the bar needs another
BAR = ProgressBar()
say = _CONSOLE.say
_ADDRESS = re.compile(r"(?:\[[\da-fA-F:.%]+\]|[\w-]+(?:\.[\w-]+)*\.?):(\d{1,5})")
_HELP = {"--help", "-h", "-help", "--helpfull"}


def run(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Prepare this process, call `main` with its arguments, exit with its code."""
    _share_compilations()
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("trm_jax").setLevel(logging.INFO)
    logging.raiseExceptions = False  # a closed pipe is no reason to stop a run
    # Log lines reach stdout at once, even if it is a pipe.
    cast(io.TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)
    logging.getLogger("trm_jax").addHandler(BAR.handler())
    logging.getLogger("trm_jax").propagate = False
    _quieten_failed_reads()
    code = main(sys.argv)
    with contextlib.suppress(ValueError):  # the log tells of its troubles itself
        say("")
    processes.leave(code)


def check_devices() -> None:
    """Raise ConfigError if JAX finds no device of the platform that it is told to use.

    In a run of several processes, call it after they have joined.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter without any device
        reason = str(error).partition("\n")[0] or "no such device is here"
        wanted = os.environ.get("JAX_PLATFORMS", "")
        raise ConfigError(f"JAX_PLATFORMS={wanted}: {reason}") from error


def call(
    act: Callable[[], int],
    values: flags.FlagValues,
    argv: Sequence[str],
    *,
    doc: str | None,
    user_errors: tuple[type[Exception], ...] = (),
) -> int:
    """Call `act`, or print `doc` and the flags for `--help`; return the exit code.

    An error that the user can fix becomes one message and code 2, without a traceback.
    """
    mendable: tuple[type[Exception], ...] = (ConfigError, CheckpointError, *user_errors)
    try:
        os.getcwd()
    except OSError:
        return _failed(EXIT_WRONG_INPUT, "error: the working directory was removed")
    try:
        if _HELP & set(argv[1:]):
            help_text = values.get_help(include_special_flags=False)
            say(f"{(doc or '').strip()}\n{help_text}\n")
            return EXIT_OK
        code = act()
        processes.finish()
        return code
    except SaveError as error:
        return _failed(EXIT_FAILED, f"error: {error}")
    except mendable as error:
        return _failed(EXIT_WRONG_INPUT, f"error: {error}")
    except FloatingPointError as error:
        kept = "the last good checkpoint is untouched"
        return _failed(EXIT_FAILED, f"error: {error}; {kept}")
    except processes.ProcessError as error:
        return _failed(EXIT_STOPPED, f"error: {error}")
    except Exception:
        BAR.clear()
        if processes.name() is None:
            raise
        processes.crash()  # prints a traceback; the other processes end as well


def parse_flags(
    values: flags.FlagValues, argv: Sequence[str], *, positional: Sequence[str] = ()
) -> list[str]:
    """Read the flags of `argv` into `values`; return the arguments called `positional`.

    Raises ConfigError.
    """
    try:
        extra = values(list(argv))[1:]
    except flags.Error as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ConfigError(" ".join(dict.fromkeys([lines[0], lines[-1]]))) from error
    if odd := extra[len(positional) :]:
        raise ConfigError(
            f"unexpected argument {odd[0]!r}; flags look like --name=value"
        )
    if missing := positional[len(extra) :]:
        raise ConfigError(f"{missing[0]} is missing")
    return extra


def define_process_flags(values: flags.FlagValues) -> None:
    """Define the flags that join several processes into one run."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0, where the processes of a run join.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_processes", None, "How many processes the run has.", flag_values=values
    )
    flags.DEFINE_integer(
        "process_id", None, "Which of them this is, from 0 on.", flag_values=values
    )
    flags.DEFINE_bool(
        "distributed",
        False,
        "Join the processes that Slurm, MPI or the pod started.",
        flag_values=values,
    )


def join_processes(values: flags.FlagValues) -> None:
    """Join the other processes if the flags say so. Call it before JAX uses a device.

    Process 0 logs everything; the others show warnings and errors, with their name.
    """
    names = ("coordinator", "num_processes", "process_id")
    given = [values[name].value for name in names]
    if given == [None] * 3 and not values.distributed:
        return
    if given != [None] * 3 and values.distributed:
        raise ConfigError("--distributed finds --" + ", --".join(names) + " by itself")
    check_process_flags(*given)
    processes.initialize(*given)
    # All other flags; the value of --config includes its overrides.
    shared = [n for n in values if n not in (*names, "distributed") and "." not in n]
    text = "\n".join(f"--{name}={values[name].value}" for name in shared)
    processes.check_same(text, "command line")
    if not processes.is_first():
        logging.getLogger("trm_jax").setLevel(logging.WARNING)
        formatter = logging.Formatter(f"{processes.name()}: %(message)s")
        for logger in (logging.getLogger(), logging.getLogger("trm_jax")):
            for handler in logger.handlers:
                handler.setFormatter(formatter)
        BAR.live = False


def check_process_flags(*given: str | int | None) -> None:
    """Raise ConfigError if the three flags are incomplete or wrong; all may be None."""
    if given == (None, None, None):
        return
    coordinator, num_processes, process_id = given
    if None in given:
        raise ConfigError(
            "--coordinator, --num_processes and --process_id belong together: "
            "give all three, or only --distributed"
        )
    found = _ADDRESS.fullmatch(str(coordinator))
    if not found or not 0 < int(found[1]) < 2**16:
        raise ConfigError(f"--coordinator={coordinator}: expected HOST:PORT")
    if not 0 <= int(process_id or 0) < int(num_processes or 0):
        raise ConfigError(
            f"--process_id={process_id}: expected 0 <= process_id < num_processes "
            f"= {num_processes}"
        )


def set_precision(dtype: str) -> None:
    """Enable 64-bit numbers in JAX if and only if the model computes with them.

    The environment cannot change this: only the config determines a run.
    """
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")


def _share_compilations() -> None:
    """Let JAX cache compiled programs, so that a restarted run need not compile."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(cache):  # there is no home folder
        return
    cache = os.path.join(cache, "trm_jax")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    if "jax" in sys.modules:  # JAX has already read the environment
        import jax

        if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
            jax.config.update("jax_compilation_cache_dir", cache)


def _quieten_failed_reads() -> None:
    """Hide what tensorstore's threads print when reading a damaged file fails.

    Orbax raises the first error, which the command reports. The reads that are still
    running then find their event loop closed and would print hundreds of errors.
    """
    shown = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs what it raises
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def _failed(code: int, message: str) -> int:
    """Report an error, with unseen characters escaped, and return the exit code."""
    BAR.clear()
    prefix = f"{processes.name()}: " if processes.name() else ""
    message = "\n".join(map(pipeline("errors").visible, message.split("\n")))
    with contextlib.suppress(OSError):  # a closed pipe
        sys.stderr.write(f"{prefix}{message}\n")
    return code
