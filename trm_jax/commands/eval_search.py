# SPDX-License-Identifier: Apache-2.0
"""`eval.py --search`: accuracy against network calls, for several searches."""

import functools
import importlib.util
import json
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags

from trm_jax.commands.evaluated_run import EvaluatedRun
from trm_jax.errors import EXIT_OK, ConfigError, SaveError
from trm_jax.files import write_whole
from trm_jax.runtime import processes

if TYPE_CHECKING:
    from trm_jax.evaluation.evaluate import EvalOutput
    from trm_jax.evaluation.search import Found, Way

DEFAULT_NOISE = 0.3  # PTRM on Sudoku (arXiv 2605.19943)
DRAWN = ("noise", "guided")  # the searches with noise
log = logging.getLogger(__name__)


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of a search."""
    flags.DEFINE_list(
        "search",
        [],
        "Searches to compare: steps, restarts, noise, votes, guided; or all.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "budget",
        None,
        "Most network calls per puzzle in a search.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_float(
        "noise",
        None,
        f"Std of the noise on the latents of a search; {DEFAULT_NOISE} if unset.",
        lower_bound=0.0,
        flag_values=values,
    )


def check(values: flags.FlagValues) -> None:
    """Raise ConfigError if the flags of a search are wrong or exclude each other."""
    from trm_jax.evaluation.search import SEARCHES

    if not values.search:
        for other in ("budget", "noise"):
            if values[other].value is not None:
                raise ConfigError(f"--{other} goes with --search")
        return
    if "all" in values.search and len(values.search) > 1:
        raise ConfigError("--search=all stands alone: it means every search")
    for name in values.search:
        if name not in SEARCHES and values.search != ["all"]:
            names = ", ".join(SEARCHES)
            raise ConfigError(f"--search={name}: expected some of {names}, or all")
    if len(set(values.search)) < len(values.search):
        raise ConfigError(f"--search={','.join(values.search)}: a name occurs twice")
    if values.budget is None:
        raise ConfigError("--budget=CALLS is missing; --search needs it")
    for other in ("votes", "pool", "report"):
        if values[other].value not in (None, []):
            raise ConfigError(f"--search and --{other} exclude each other")
    if values.noise is not None and not 0 < values.noise < math.inf:
        raise ConfigError(f"--noise={values.noise}; expected a finite number > 0")
    drawn = values.search == ["all"] or set(DRAWN) & set(values.search)
    if values.noise is not None and not drawn:
        raise ConfigError("--noise goes with --search=noise or --search=guided")
    if values.refill is not None and "guided" in values.search:
        raise ConfigError(
            "--refill and --search=guided exclude each other: the particles of a "
            "cloud share their steps"
        )


def act(run: EvaluatedRun, name_of: Callable[..., str]) -> int:
    """Evaluate all searches, show the table, and write report and figure."""
    from trm_jax.inspect import search_plot

    if not run.questions.has_solutions:
        raise ConfigError("--search: the test inputs have no known answer to compare")
    result = _compared(run)
    path = run.report_path(f"search_{name_of(run, [result['step']])}{_asked(run)}")
    if processes.is_first():
        write_whole(path, json.dumps(result, indent=2) + "\n", SaveError)
        if importlib.util.find_spec("matplotlib"):
            figure = path.with_suffix(".png")
            search_plot.draw(result, figure)
            log.info("figure written to %s", figure)
        run.forget()
    log.info("%s", search_plot.as_text(result))
    log.info("written to %s", path)
    return EXIT_OK


def _asked(run: EvaluatedRun) -> str:
    """What the flags of the search add to the name of its report."""
    values = run.values
    noise = f"-noise_{values.noise:g}" if values.noise is not None else ""
    return f"-{'_'.join(values.search)}-budget_{values.budget}{noise}"


def _names(run: EvaluatedRun) -> list[str]:
    """The searches that the flags name; all means those that apply to the run.

    Raises ConfigError if one that is named does not apply.
    """
    from trm_jax.evaluation.calls import starts_with_question
    from trm_jax.evaluation.search import SEARCHES

    reasons = {}
    if starts_with_question(run.built.recipe):
        reasons["restarts"] = (
            "the first state of the rule holds the question; expected a rule with "
            "other starts"
        )
    if run.test.variants.num_forms.max() == 1:
        reasons["votes"] = "the puzzles have one form each"
    if run.values.refill is not None:
        reasons["guided"] = "not with --refill"
    if run.values.search == ["all"]:
        for name, reason in reasons.items():
            log.info("without the search %s: %s", name, reason)
        return [name for name in SEARCHES if name not in reasons]
    for name in run.values.search:
        if name in reasons:
            raise ConfigError(f"--search={name}: {reasons[name]}")
    names: list[str] = run.values.search
    return names


def _calls(run: EvaluatedRun) -> int:
    """Network calls of a supervision step. ConfigError if the budget is too small."""
    from trm_jax.evaluation.calls import network_calls

    budget, recipe = run.values.budget, run.built.recipe
    calls, least = network_calls(recipe), run.num_steps
    if budget < 2 * least * calls:
        raise ConfigError(
            f"--budget={budget}: expected at least {2 * least * calls} network calls, "
            f"for 2 x {least} supervision steps of {calls} calls"
        )
    return calls


def _compared(run: EvaluatedRun) -> dict[str, Any]:
    """The report: one point for each search and number of chains, and diagnostics."""
    from trm_jax.evaluation.calls import draws_start, needs_num_steps
    from trm_jax.evaluation.chains import Chains
    from trm_jax.evaluation.diagnostics import diagnostics
    from trm_jax.evaluation.search import Way, curve, doubled, found, point

    values, names, least = run.values, _names(run), run.num_steps
    calls = _calls(run)
    total = values.budget // calls
    at, noise, counts = values.step, _noise(values), doubled(2, total // least)

    @functools.lru_cache(maxsize=1)  # one output serves for several points
    def output(way: "Way") -> "EvalOutput":
        nonlocal at
        at, rows, _ = run.rows_of(at, way)
        return rows

    def rows(way: "Way", last: int = 0) -> "Found":
        refilled = values.refill is not None
        return found(way, output(way), refilled=refilled, last=last)

    plain_way = Way(run.shown(1), least)
    plain = rows(plain_way)
    points = [point(plain, calls, search="plain", steps=least, chains=1)]
    notes = {}
    for name in names:
        log.info("search: %s", name)
        if name == "steps":
            apart = needs_num_steps(run.built.recipe)
            for steps in doubled(2 * least, total):
                way = plain_way._replace(num_steps=steps if apart else total)
                more = rows(way, steps)
                points.append(point(more, calls, search=name, steps=steps, chains=1))
            continue
        # Where the rule draws, the keys of the chains suffice for other starts.
        random_starts = name == "restarts" and not draws_start(run.built.recipe)
        chains = Chains(random_starts, noise if name in DRAWN else 0.0)
        way = plain_way._replace(chains=chains, num_chains=counts[-1])
        if name == "votes":
            most = int(run.test.variants.num_forms.max())
            way = Way(run.shown(min(counts[-1], most)), least)
        alone = name == "guided"  # the number of particles changes each of them
        more_points, last = curve(
            name, way, rows, counts=counts, calls_per_step=calls, alone=alone
        )
        points += more_points
        notes[name] = diagnostics(last, plain)
    about = {k: v for k, v in run.about().items() if k != "votes"}
    return about | {
        "step": at,
        "budget": values.budget,
        "calls_per_step": calls,
        "noise": noise if set(DRAWN) & set(names) else None,
        "points": points,
        "diagnostics": notes,
    }


def _noise(values: flags.FlagValues) -> float:
    return DEFAULT_NOISE if values.noise is None else float(values.noise)
