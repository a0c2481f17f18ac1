# SPDX-License-Identifier: Apache-2.0
"""eval.py --search and --refill, from the command line."""

import json

import pytest

from data_pipeline import generate
from tests.helpers.runs import ROOT, call_here, short_flags
from trm_jax.commands import eval as eval_command
from trm_jax.commands import train
from trm_jax.commands.evaluated_run import EvaluatedRun
from trm_jax.inspect import search_plot

pytestmark = pytest.mark.usefixtures("commands_here")

STEPS, CALLS = 4, 6  # supervision steps, and the network calls of each
SEARCH = "--search=noise"
BUDGET = f"--budget={2 * STEPS * CALLS}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The flags of a shipped model and of six puzzles for it."""
    folder = tmp_path_factory.mktemp("search")
    files = [str(folder / name) for name in ("train.csv", "test.csv")]
    settings = "--train=1", "--test=6", "--boxes=2x3", "--clues=8,10"
    assert generate.main([*files, *settings]) == 0
    steps = f"--supervision_steps={STEPS}"
    return ["--weights_file=sudoku_6x6", f"--data={files[1]}", steps]


@pytest.fixture
def evaluated(model, tmp_path):
    """A function from flags to the report and the log."""

    def act(*flags):
        out = tmp_path / "found.json"
        result = call_here(eval_command.main, *model, f"--out={out}", *flags)
        assert result.returncode == 0, result.stderr
        return json.loads(out.read_text()), result.stdout

    return act


def search(names, chains):
    budget = chains * STEPS * CALLS + CALLS - 1  # too few for another step
    return f"--search={names}", f"--budget={budget}"


def check_points(report, expected):
    points = report["points"]
    assert [(p["search"], p["steps"], p["chains"]) for p in points] == expected
    for p in points:
        assert p["puzzles"] == 6
        assert p["calls"] == p["steps"] * p["chains"] * CALLS
        exact = {pick: of["accuracy"] for pick, of in p["exact"].items()}
        assert max(exact.values()) == exact["oracle"]
    assert report["calls_per_step"] == CALLS


def test_searches_are_compared_at_equal_network_calls(evaluated, tmp_path):
    report, text = evaluated(*search("noise", 2), "--noise=0.5")
    check_points(report, [("plain", STEPS, 1), ("noise", STEPS, 2)])
    assert report["noise"] == 0.5
    assert set(report["diagnostics"]) == {"noise"}
    for word in ("least residual", "oracle", "6 puzzles", "95 % interval"):
        assert word in text
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["found.json", "found.png"]
    assert (tmp_path / "found.png").stat().st_size > 10_000


@pytest.mark.slow
def test_all_searches_run_and_double_their_chains(evaluated):
    report, _ = evaluated(*search("all", 4))
    steps = [("plain", STEPS, 1), ("steps", 2 * STEPS, 1), ("steps", 4 * STEPS, 1)]
    names = ("restarts", "noise", "votes", "guided")
    chains = [(name, STEPS, n) for name in names for n in (2, 4)]
    check_points(report, steps + chains)
    assert evaluated(*search("all", 4))[0] == report


@pytest.mark.slow
def test_a_search_that_was_cut_short_continues(evaluated, monkeypatch):
    with monkeypatch.context() as patch:  # as if it were killed before its report
        patch.setattr(EvaluatedRun, "forget", lambda run: None)
        first, _ = evaluated(*search("restarts", 2))
    again, text = evaluated(*search("restarts", 2))
    assert "12 of 12 rows are taken from" in text
    assert again == first


def test_refilled_rows_answer_as_the_report_of_the_fixed_batch_says(evaluated):
    fixed, _ = evaluated()
    report, text = evaluated("--refill=0")
    assert report["refill"] == 0.0
    steps = report["halting"]["mean_steps"]
    assert f"refill: {steps:.2f} steps per row, of up to {STEPS}" in text
    assert report["exact_accuracy"] == fixed["halting"]["exact_accuracy"]
    assert report["halting"] == fixed["halting"]
    assert fixed["halting"]["mean_steps"] < STEPS
    assert report["cell_loss"] > fixed["cell_loss"]  # of an earlier step


def test_the_page_shows_the_table_of_its_json_file():
    result = json.loads((ROOT / "docs" / "search.json").read_text())
    assert search_plot.as_text(result) in (ROOT / "docs" / "search.md").read_text()


@pytest.mark.slow
def test_refill_works_with_votes_searches_and_devices(evaluated):
    flags = "--refill=0.9", "--votes=3"
    one, two = (evaluated(*flags, f"--devices={n}")[0] for n in (1, 2))
    assert one["voted_accuracy"] == two["voted_accuracy"]
    assert one["halting"] == two["halting"]
    report, text = evaluated(*search("all", 2), "--refill=0.9")
    assert "without the search guided: not with --refill" in text
    found = {p["search"] for p in report["points"]}
    assert found == {"plain", "steps", "restarts", "noise", "votes"}
    for p in report["points"]:
        assert p["calls"] < p["steps"] * p["chains"] * CALLS


@pytest.mark.slow
def test_the_report_of_a_run_is_named_after_its_flags(tmp_path):
    flags = short_flags(**{"train.steps": 2})
    result = call_here(train.main, f"--workdir={tmp_path}", *flags)
    assert result.returncode == 0, result.stderr
    steps, noise = ["--search=steps"], ["--search=noise", "--noise=0.5"]
    for more in (["--refill=0.5"], steps + ["--budget=400"], noise + ["--budget=400"]):
        more = f"--workdir={tmp_path}", "--puzzles=4", *more
        result = call_here(eval_command.main, *more)
        assert result.returncode == 0, result.stderr
    folder = tmp_path / "eval"
    report = json.loads((folder / "step_2-puzzles_4-refill_0.5.json").read_text())
    assert report["puzzles"] == 4
    for name in ("steps-budget_400", "noise-budget_400-noise_0.5"):
        report = json.loads((folder / f"search_2-puzzles_4-{name}.json").read_text())
        assert report["points"][0]["puzzles"] == 4


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--search=best", BUDGET], "--search=best: expected some of steps, restarts"),
        (["--search=steps,steps", BUDGET], "a name occurs twice"),
        (["--search=steps"], "--budget=CALLS is missing"),
        (["--search=steps", "--budget=0"], "budget"),
        (["--search=steps", "--budget=47"], "--budget=47: expected at least 48"),
        ([BUDGET], "--budget goes with --search"),
        (["--noise=0.1"], "--noise goes with --search"),
        (["--search=steps", BUDGET, "--noise=1"], "--search=noise or"),
        ([SEARCH, BUDGET, "--noise=0"], "--noise=0.0; expected a finite"),
        ([SEARCH, BUDGET, "--noise=nan"], "noise"),
        (["--search=all,steps", BUDGET], "--search=all stands alone"),
        ([SEARCH, BUDGET, "--votes=2"], "--search and --votes exclude"),
        ([SEARCH, BUDGET, "--pool=1,2"], "--pool exclude each other"),
        ([SEARCH, BUDGET, "--report"], "--search and --report exclude"),
        (["--search=guided", BUDGET, "--refill=1"], "--refill and --search=guided"),
        (["--refill=1.5"], "refill"),
        (["--puzzles=-1"], "puzzles"),
        (["--workdir=x"], "--weights_file and --workdir exclude"),
        (["--out=docs"], "docs is a folder; expected a file"),
        (["--report=docs/"], "docs is a folder; expected a file"),
    ],
)
def test_wrong_settings_are_one_clear_message(model, tmp_path, flags, named):
    out = f"--out={tmp_path / 'out.json'}"
    result = call_here(eval_command.main, *model, out, *flags)
    assert result.returncode == 2, result.stdout + result.stderr
    assert named in result.stderr
    assert result.stderr.count("\n") == 1
    assert [*tmp_path.iterdir()] == []
