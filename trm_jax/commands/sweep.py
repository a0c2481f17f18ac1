# SPDX-License-Identifier: Apache-2.0
"""Train and evaluate the runs of a sweep, and write their table and figure.

python sweep.py configs/sweeps/NAME.py --out=D [--jobs=N] [--workdirs=W] [--seeds=N]
                [--only=ARM,...] [--dry_run]

The sweep file lists configs, overrides and seeds. Each run is trained by train.py and
evaluated by eval.py on the whole test set. D receives one JSON file per run, table.md,
table.csv and figure.png. Runs whose JSON file is in D are not repeated. After Ctrl-C or
SIGTERM the runs save, and the same command resumes them. If nothing is left to run,
the command only writes table and figure. Exit codes: 0 done, 2 wrong input or config,
75 stopped and resumable, 1 a run failed.
"""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol, runtime_checkable

from absl import flags

from trm_jax import api
from trm_jax.commands import shell, stop_signal
from trm_jax.commands.sweep_runs import Run, listing, load, runs_of
from trm_jax.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_STOPPED,
    CheckpointError,
    ConfigError,
    SaveError,
)
from trm_jax.files import write_whole

if TYPE_CHECKING:
    from trm_jax.inspect.sweep_table import Table

ROOT = Path(__file__).resolve().parents[2]
PAUSE_S = 0.1  # between two looks at the processes
log = logging.getLogger(__name__)


@runtime_checkable
class Process(Protocol):
    """What the sweep needs of a `subprocess.Popen`."""

    def poll(self) -> int | None:
        """The exit code, None while the process runs."""

    def terminate(self) -> None:
        """Send SIGTERM."""


Work = Generator[Process, int, None]  # yields processes, and gets their exit codes


class RunFailed(Exception):
    """A child process failed, or left no result; the message says which."""


def run() -> NoReturn:
    """Run sweep.py as this process."""
    shell.run(main)


def main(argv: Sequence[str]) -> int:
    """Run the sweep that the arguments after argv[0] name, and return the exit code."""
    values = flags.FlagValues()
    _define_flags(values)
    values.set_gnu_getopt()  # flags may stand behind the sweep file
    user_errors = (api.pipeline("errors").DataError, OSError)
    act = partial(_main, values, argv)
    return shell.call(act, values, argv, doc=__doc__, user_errors=user_errors)


def _define_flags(values: flags.FlagValues) -> None:
    text = partial(flags.DEFINE_string, flag_values=values)
    number = partial(flags.DEFINE_integer, flag_values=values, lower_bound=1)
    text("out", None, "Folder of the results, the table and the figure.")
    text("workdirs", None, "Folder of the workdirs; the default is OUT/workdirs.")
    number("jobs", 1, "Runs at once.")
    number("seeds", None, "Run only the first N seeds; default: all.")
    flags.DEFINE_list("only", [], "Run only these arms.", flag_values=values)
    flags.DEFINE_bool(
        "dry_run", False, "List the runs, their state and FLOPs.", flag_values=values
    )


def _main(values: flags.FlagValues, argv: Sequence[str]) -> int:
    (path,) = shell.parse_flags(values, argv, positional=("SWEEP.py",))
    if not values.out:
        raise ConfigError("--out=FOLDER is missing")
    name, sweep = Path(path).stem, load(Path(path))
    from trm_jax.inspect.sweep_results import read_results
    from trm_jax.inspect.sweep_table import Table

    out = Path(values.out)
    workdirs = Path(values.workdirs or out / "workdirs")
    papers = {arm.name: arm.paper for arm in sweep.arms}
    runs = list(runs_of(name, sweep))
    identities = {run.name: run.identity() for run in runs}
    results = read_results(out, identities)
    chosen = _chosen(runs, values.only, sweep.seeds[: values.seeds])
    waiting = [run for run in chosen if run.name not in results]
    steps = {run.name: run.read_config()["train"]["steps"] for run in waiting}
    if values.dry_run:
        shell.say(listing(chosen, results, workdirs))
        return EXIT_OK
    stopped, failed = False, dict[str, str]()
    if waiting:
        out.mkdir(parents=True, exist_ok=True)
        workdirs.mkdir(parents=True, exist_ok=True)
        works = {
            run.name: work(run, steps[run.name], out, workdirs, jobs=values.jobs)
            for run in waiting
        }
        stop = stop_signal.StopSignal()
        failed = run_all(works, jobs=values.jobs, stop_requested=stop)
        stopped = stop()
        results = read_results(out, identities)
    write_table(Table(name, sweep.title, papers, sweep.seeds, results), out)
    for each, reason in failed.items():
        sys.stderr.write(f"error: run {each}: {reason}\n")
    if stopped:
        log.info("stopped; the same command goes on")
        return EXIT_STOPPED
    return EXIT_FAILED if failed else EXIT_OK


def write_table(table: "Table", out: Path) -> None:
    """Write table.md, table.csv and, with matplotlib, figure.png; print the table."""
    from trm_jax.inspect.sweep_table import draw

    text = table.as_markdown()
    write_whole(out / "table.md", text, SaveError)
    write_whole(out / "table.csv", table.as_csv(), SaveError)
    try:
        draw(table, out / "figure.png")
    except ImportError:
        log.warning("matplotlib is not installed (extra `plots`): no figure.png")
    shell.say(text)


def _chosen(runs: list[Run], only: list[str], seeds: Sequence[int]) -> list[Run]:
    """The runs of the arms and seeds that the flags name."""
    names = list(dict.fromkeys(run.arm.name for run in runs))
    for name in only:
        if name not in names:
            raise ConfigError(f"--only={name}: expected arms of {', '.join(names)}")
    arms = only or names
    return [run for run in runs if run.arm.name in arms and run.seed in seeds]


def work(run: Run, steps: int, out: Path, workdirs: Path, *, jobs: int) -> Work:
    """Train, evaluate and measure a run, and write its result. Raises RunFailed."""
    from trm_jax.inspect.sweep_results import collect, write_result

    workdir, costs = workdirs / run.name, workdirs / f"{run.name}.cost.json"
    log_file, flags_of_run = workdirs / f"{run.name}.log", run.flags()
    costs.unlink(missing_ok=True)
    place = f"--workdir={workdir}"
    for words, file in (
        (["train.py", place, *flags_of_run], log_file),
        (["eval.py", place, f"--step={steps}"], log_file),
        (["train.py", "--dry_run", *flags_of_run], costs),
    ):
        log.info("%s: %s", run.name, words[0] + " --dry_run" * (file == costs))
        code = yield start_process(words, file, log_file)
        if code:
            raise RunFailed(f"{words[0]} ended with code {code}; see {log_file}")
    try:
        result = collect(run.identity(), workdir, costs, jobs=jobs)
    except (ValueError, KeyError, IndexError, OSError) as error:
        kind = type(error).__name__
        raise RunFailed(f"{workdir} holds no result: {kind}: {error}") from error
    write_result(out / f"{run.name}.json", result)
    exact, minutes = 100 * result.exact_accuracy, result.minutes
    log.info("%s: %.2f %% exact, %.1f minutes of training", run.name, exact, minutes)


def start_process(words: list[str], output: Path, errors: Path) -> Process:
    """Start a script of this project; what it prints is appended to two files.

    Its session is its own: Ctrl-C reaches only the sweep, which passes it on once.
    """
    script, *arguments = words
    with output.open("ab") as out, errors.open("ab") as err:
        return subprocess.Popen(
            [sys.executable, str(ROOT / script), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )


def run_all(
    works: Mapping[str, Work],
    *,
    jobs: int,
    stop_requested: Callable[[], bool],
) -> dict[str, str]:
    """Do the works, up to `jobs` at once; return why which of them failed.

    If a stop is requested, the processes get SIGTERM once, and no other one starts.
    """
    waiting, running, failed = list(works), dict[str, Process](), dict[str, str]()
    told = False

    def advance(name: str, code: int | None) -> None:
        running.pop(name, None)
        try:
            running[name] = works[name].send(code)  # type: ignore[arg-type]
        except StopIteration:
            pass
        except (RunFailed, CheckpointError, OSError) as error:
            failed[name] = str(error)
            log.info("%s failed: %s", name, error)

    while running or (waiting and not stop_requested()):
        while waiting and len(running) < jobs and not stop_requested():
            advance(waiting.pop(0), None)
        if stop_requested() and not told:
            told = True
            for process in running.values():
                process.terminate()
        for name, process in list(running.items()):
            if (code := process.poll()) is not None and told:
                del running[name]
            elif code is not None:
                advance(name, code)
        if running:
            time.sleep(PAUSE_S)
    return failed
