# SPDX-License-Identifier: Apache-2.0
"""sweep.py: which runs it starts, what it writes, how it stops and goes on."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.runs import ROOT, call, call_here, command, metric_lines
from trm_jax.commands import stop_signal, sweep
from trm_jax.files import json_digest
from trm_jax.inspect import sweep_results, sweep_table

FILE = """
from trm_jax.commands.sweep_runs import Arm, Sweep

def get_sweep():
    arms = (
        Arm("wide", "smoke", {"train.steps": 4}, paper="87.4 (9x9)"),
        Arm("deep", "smoke", {"train.steps": 4, "rule.trm.l_cycles": 3}),
    )
    return Sweep("A | B", arms, seeds=(0, 1))
"""
RUNS = ["wide-0", "deep-0", "wide-1", "deep-1"]
# Of 4 test puzzles, so many are exact after training.
EXACT = {"wide-0": 3, "deep-0": 4, "wide-1": 1, "deep-1": 4}
DRAW = sweep_table.draw


class Machine:
    """Stands in for the processes: each writes at once what the real one would write.

    A process ends at its second `poll`, with the code that `codes` has for it. Training
    that is terminated before ends with 75, as if it had saved.
    """

    def __init__(self):
        self.started, self.terminated, self.alive, self.most = [], [], 0, 0
        self.codes, self.on_start = {}, lambda words: None
        self.scores = {}  # what eval.py reports beside the accuracies of every task

    def start(self, words, output, errors):
        name = errors.stem
        dry = "--dry_run" in words
        stage = "cost" if dry else words[0].removesuffix(".py")
        self.started.append((stage, name))
        self.alive += 1
        self.most = max(self.most, self.alive)
        code = self.codes.get((stage, name), 0)
        if not code:
            getattr(self, stage)(errors.parent / name, output, EXACT[name])
        self.on_start((stage, name))
        return Child(self, name, code)

    def train(self, workdir, output, exact):
        (workdir / "checkpoints" / "4").mkdir(parents=True, exist_ok=True)
        config = {"train": {"steps": 4}}
        record = config | {"checksum": json_digest(config)}
        (workdir / "config.json").write_text(json.dumps(record))
        sitting = {"from_step": 0, "git": "c" * 40, "sources": "s", "devices": ["chip"]}
        sitting["versions"] = {"jax": "0.0.1"}
        (workdir / "runs.jsonl").write_text(json.dumps(sitting) + "\n")
        lines = [
            {"step": 2, "train/seconds": 20.0, "eval/exact_accuracy": exact / 8},
            {"step": 4, "train/seconds": 30.0, "eval/exact_accuracy": exact / 4},
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (workdir / "metrics.jsonl").write_text(text)

    def eval(self, workdir, output, exact):
        (workdir / "eval").mkdir(exist_ok=True)
        scores = {"puzzles": 4, "exact_accuracy": exact / 4, "cell_accuracy": 0.5}
        scores |= self.scores
        (workdir / "eval" / "step_4.json").write_text(json.dumps(scores))

    def cost(self, workdir, output, exact):
        memory = {"temporaries_per_device": 3 * 2**20}
        cost = {"parameters": 1234, "flops_per_step": 2 * 10**9}
        output.write_text(json.dumps(cost | {"memory_bytes": memory}))

    def names(self, stage):
        return [name for found, name in self.started if found == stage]


class Child:
    def __init__(self, machine, name, code):
        self.machine, self.name, self.code, self.polls = machine, name, code, 0

    def poll(self):
        self.polls += 1
        if self.polls == 2:
            self.machine.alive -= 1
        return self.code if self.polls > 1 else None

    def terminate(self):
        self.machine.terminated.append(self.name)
        self.code = 75


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(sweep, "start_process", machine.start)
    monkeypatch.setattr(sweep, "PAUSE_S", 0)
    monkeypatch.setattr(sweep_table, "draw", lambda table, path: path.touch())
    monkeypatch.setattr(stop_signal, "StopSignal", lambda: lambda: False)
    return machine


@pytest.fixture
def here(tmp_path):
    """A function that calls sweep.py on a sweep file, with its output in `out`."""
    (tmp_path / "pair.py").write_text(FILE)

    def run(*flags, out="out"):
        place = f"--out={tmp_path / out}"
        return call_here(sweep.main, tmp_path / "pair.py", place, *flags)

    return run


@pytest.fixture
def figures(monkeypatch, machine):
    """The figures are drawn, which takes a third of a second each."""
    monkeypatch.setattr(sweep_table, "draw", DRAW)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that a test writes, in order."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    found, save = [], figure.savefig
    monkeypatch.setattr(
        figure, "savefig", lambda f, *a, **k: (found.append(f), save(f, *a, **k))
    )
    return found


def refused(done, *named):
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert [text for text in named if text not in done.stderr] == [], done.stderr


def written(folder):
    """The bytes of every file of the results."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_first_seed_of_every_arm_comes_first(machine, here):
    assert here().returncode == 0
    assert machine.names("train") == RUNS
    assert machine.names("eval") == RUNS
    assert machine.most == 1


def test_the_table_has_what_the_results_say(machine, here, tmp_path):
    done = here()
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in done.stdout
    head, _, wide, deep = [line for line in table.splitlines() if line[:1] == "|"]
    cells = [cell.strip() for cell in wide.strip("|").split("|")]
    # 3 and 1 of 4 puzzles: the mean is 50 % and the deviation sqrt(2) * 25 points. The
    # Wilson interval of 0.5 with 4 trials is 0.5 -+ 0.35, since z^2 = 3.84:
    # z sqrt(0.25 / 4 + z^2 / 64) / (1 + z^2 / 4) = 0.6861 / 1.9604.
    expected = ["wide", "2 of 2", "1,234", "2.00", "4", "0.01", "3.0", "0.5"]
    expected += ["50.00", "35.36", "15.00 to 85.00", "75.00, 25.00", "50.00"]
    assert cells == [*expected, "87.4 (9x9)"]
    assert len(cells) == len(head.strip("|").split("|"))
    assert "| 100.00 | 0.00 | 51.01 to 100.00 | 100.00, 100.00 |" in deep
    assert table.startswith("# A | B\n")
    assert "4 of 4 runs are done; seeds 0, 1." in table
    assert "Processor: 1 x chip. Runs at once: 1. jax 0.0.1; commit cccccccccccc." in (
        table
    )
    lines = (tmp_path / "out" / "table.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    assert [row["arm"] for row in rows] == ["wide", "deep"]
    assert float(rows[0]["exact"]) == 50
    assert float(rows[0]["exact_sd"]) == pytest.approx(25 * 2**0.5)
    assert float(rows[0]["training_tflops"]) == pytest.approx(0.008)
    assert float(rows[0]["minutes"]) == pytest.approx(0.5)


def test_a_result_says_what_was_run_and_what_it_cost(machine, here, tmp_path):
    here("--jobs=2")
    result = json.loads((tmp_path / "out" / "deep-1.json").read_text())
    assert result["sweep"] == "pair"
    assert result["config"] == "smoke"
    assert result["overrides"] == {"train.steps": 4, "rule.trm.l_cycles": 3}
    assert (result["seed"], result["jobs"]) == (1, 2)
    assert (result["exact"], result["puzzles"]) == (4, 4)
    assert result["training_flops"] == 8 * 10**9
    assert result["curve"] == [[2, 0.5], [4, 1.0]]


def test_a_task_with_other_right_answers_has_a_column_for_them(machine, here, tmp_path):
    here("--only=wide")
    assert "valid" not in (tmp_path / "out" / "table.md").read_text()
    for path in (tmp_path / "out").glob("*.json"):  # as before this field existed
        record = json.loads(path.read_text())
        assert record.pop("valid_accuracy") is None
        path.write_text(json.dumps(record))
    machine.scores = {"valid_accuracy": 0.75}
    here()
    table = (tmp_path / "out" / "table.md").read_text()
    head, _, wide, deep = [line for line in table.splitlines() if line[:1] == "|"]
    assert "| valid, % | cells, % |" in head
    assert "|  | 50.00 |" in wide
    assert "| 75.00 | 50.00 |" in deep
    lines = (tmp_path / "out" / "table.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    assert [row["valid"] for row in rows] == ["", "75.0"]


def test_seeds_whose_flops_were_counted_differently_make_one_table(
    machine, figures, here, tmp_path, drawn
):
    here()
    assert "FLOPs from a least" not in (tmp_path / "out" / "table.md").read_text()
    path = tmp_path / "out" / "wide-1.json"
    record = json.loads(path.read_text()) | {"flops_per_step": 3 * 10**9}
    path.write_text(json.dumps(record | {"training_flops": 1500 * 10**9}))
    drawn.clear()
    here()
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| wide | 2 of 2 | 1,234 | 2.00 to 3.00 | 4 | 0.01 to 1.50 | 3.0 |" in table
    assert "| deep | 2 of 2 | 1,234 | 2.00 | 4 | 0.01 | 3.0 |" in table
    assert "FLOPs from a least to a most: the count of a step changed" in table
    lines = (tmp_path / "out" / "table.csv").read_text().splitlines()
    wide, deep = csv.DictReader(lines)
    ends = "gflops_per_step_least", "gflops_per_step", "gflops_per_step_most"
    assert [wide[name] for name in ends] == ["2.0", "2.5", "3.0"]
    assert [deep[name] for name in ends] == ["", "2.0", ""]
    curves = drawn[0].axes[0]
    assert curves.lines[0].get_xdata() == pytest.approx([0.005, 0.01])
    assert curves.lines[1].get_xdata() == pytest.approx([0.004, 0.008])


def test_what_is_done_is_not_repeated_and_its_table_stays_the_same(
    machine, figures, here, tmp_path
):
    here("--only=wide", "--seeds=1")
    assert machine.names("train") == ["wide-0"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| wide | 1 of 2 |" in table
    assert "| deep | 0 of 2 |  |  |  |  |  |  | not run |" in table
    here()
    assert machine.names("train") == RUNS
    before = written(tmp_path / "out")
    assert {"table.md", "table.csv", "figure.png", "wide-0.json"} < set(before)
    done = here()
    assert done.returncode == 0
    assert machine.names("train") == RUNS
    assert written(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"train.steps": 4}', '"train.steps": 8}', ["overrides", "'train.steps': 8"]),
        ('"wide", "smoke"', '"wide", "demo"', ["config", "'smoke'", "'demo'"]),
        ('"wide"', '"broad"', ["no such run", "broad-0, deep-0, broad-1"]),
        ("(0, 1)", "(1, 0)", []),
        (
            "seeds=(0, 1)",
            "seeds=(0, 1), seed_keys=('data.seed',)",
            ["seed_keys", "data.seed"],
        ),
    ],
)
def test_a_result_of_another_sweep_is_refused(machine, here, tmp_path, old, new, named):
    here("--only=wide", "--seeds=1")
    before, file = written(tmp_path / "out"), tmp_path / "pair.py"
    file.write_text(FILE.replace(old, new))
    done = here()
    if not named:  # the order of the seeds does not matter to a result
        assert done.returncode == 0
        assert machine.names("train")[1:] == ["wide-1", "deep-1", "deep-0"]
        return
    refused(done, f"{tmp_path / 'out' / 'wide-0.json'}: ", *named)
    assert written(tmp_path / "out") == before
    assert machine.names("train") == ["wide-0"]


def test_a_damaged_result_is_refused(machine, here, tmp_path):
    here()
    path = tmp_path / "out" / "deep-0.json"
    whole = path.read_text()
    path.write_text(whole[:-30])
    refused(here(), f"{path}: not readable as JSON")
    path.write_text(whole.replace('"exact":', '"exakt":'))
    refused(here(), f"{path}: absent or unknown: exact, exakt")
    path.write_text(whole.replace('"exact": 4', '"exact": "4"'))
    refused(here(), f"{path}: exact = '4'; expected a number")
    path.write_text(whole.replace('"parameters": 1234', '"parameters": 5'))
    refused(here(), "arm 'deep': its results differ in parameters: [5, 1234]")


def test_a_failed_run_is_named_and_the_others_go_on(machine, here, tmp_path):
    machine.codes = {("train", "deep-0"): 2, ("cost", "wide-1"): -9}
    done = here()
    assert done.returncode == 1
    logs = tmp_path / "out" / "workdirs"
    assert done.stderr.splitlines() == [
        f"error: run deep-0: train.py ended with code 2; see {logs / 'deep-0.log'}",
        f"error: run wide-1: train.py ended with code -9; see {logs / 'wide-1.log'}",
    ]
    assert machine.names("train") == RUNS
    assert machine.names("eval") == ["wide-0", "wide-1", "deep-1"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| deep | 1 of 2 |" in table
    machine.codes = {}
    assert here().returncode == 0
    assert machine.names("train")[4:] == ["deep-0", "wide-1"]


def test_a_run_without_its_files_has_failed(machine, here, monkeypatch):
    monkeypatch.setattr(machine, "eval", lambda *_: None)
    done = here("--only=deep", "--seeds=1")
    assert done.returncode == 1
    assert "error: run deep-0: " in done.stderr
    assert "step_4.json: not found" in done.stderr


def test_as_many_runs_go_at_once_as_jobs_says(machine, here):
    assert here("--jobs=2").returncode == 0
    assert machine.most == 2
    assert sorted(machine.names("cost")) == sorted(RUNS)


def test_a_stop_is_passed_on_once_and_the_next_call_goes_on(
    machine, here, monkeypatch, tmp_path
):
    stopped = []
    monkeypatch.setattr(stop_signal, "StopSignal", lambda: lambda: bool(stopped))
    last = ["train", "wide-1"]
    machine.on_start = lambda what: stopped.extend([1] * (list(what) == last))
    done = here("--jobs=2")
    assert done.returncode == 75
    assert machine.terminated == ["wide-1"]
    assert machine.names("train") == ["wide-0", "deep-0", "wide-1"]
    assert machine.names("eval") == ["wide-0", "deep-0"]
    assert machine.alive == 0
    stopped.clear()
    last[:] = "eval", "deep-1"
    assert here("--jobs=2").returncode == 75  # at the second stage of both runs
    assert machine.terminated[1:] == ["wide-1", "deep-1"]
    assert machine.names("cost") == ["wide-0", "deep-0"]
    assert machine.alive == 0
    stopped.clear()
    machine.on_start = lambda what: None
    assert here("--jobs=2").returncode == 0
    assert machine.names("train")[5:] == ["wide-1", "deep-1"]
    assert {path.stem for path in (tmp_path / "out").glob("*.json")} == set(RUNS)


def test_a_dry_run_lists_states_and_flops_and_writes_nothing(machine, here, tmp_path):
    here("--only=wide", "--seeds=1")
    before = written(tmp_path / "out")
    (tmp_path / "out" / "workdirs" / "wide-1" / "checkpoints" / "3").mkdir(parents=True)
    done = here("--dry_run")
    lines = [line.split(maxsplit=5) for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [*RUNS, "left:"]
    states = [line[5] for line in lines[:-1]]
    assert states == ["done", "not begun", "partly: step 3", "not begun"]
    assert all(line[4] == "GFLOPs" and float(line[3]) > 0 for line in lines[:-1])
    assert written(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("def get_sweep(:", ["SyntaxError"]),
        ("x = 1", ["AttributeError", "get_sweep"]),
        ("def get_sweep():\n    return 3", ["returned int, expected a Sweep"]),
        (FILE.replace('"deep"', '"wide"'), ["arm 'wide' occurs twice"]),
        (FILE.replace('"deep"', '"a/b"'), ["arm 'a/b': expected letters"]),
        (FILE.replace("(0, 1)", "()"), ["no seed"]),
        (FILE.replace("rule.trm.l_cycles", "seed"), ["arm 'deep' overrides seed"]),
        (FILE.replace("l_cycles", "l_cycle"), ["arm 'deep': ", "l_cycles?"]),
        (FILE.replace('"rule.trm.l_cycles": 3', '"train.batch_size": 0'), [" = 0"]),
        (FILE.replace('"smoke"', '"smok"'), ["arm 'wide': ", "'smok'"]),
    ],
)
def test_a_wrong_sweep_file_ends_in_one_clear_message(
    machine, here, tmp_path, text, named
):
    (tmp_path / "pair.py").write_text(text)
    refused(here(), *named)
    assert machine.started == []
    assert not (tmp_path / "out").exists()


def test_wrong_flags_end_in_one_clear_message(machine, here, tmp_path):
    refused(here("--only=narrow"), "--only=narrow", "wide, deep")
    refused(here("--jobs=0"), "jobs")
    refused(here("more.py"), "'more.py'")
    refused(call_here(sweep.main, "--out=x"), "SWEEP.py is missing")
    refused(call_here(sweep.main, tmp_path / "pair.py"), "--out=FOLDER is missing")
    missing = tmp_path / "missing.py"
    refused(call_here(sweep.main, missing, "--out=x"), f"{missing}: not a Python file")
    assert machine.started == []


def test_without_matplotlib_the_table_is_written(figures, here, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = here()
    assert done.returncode == 0
    assert "matplotlib is not installed" in done.stdout
    assert (tmp_path / "out" / "table.md").exists()
    assert not (tmp_path / "out" / "figure.png").exists()


def test_the_figure_shows_mean_and_range_of_the_seeds(figures, here, drawn):
    here()
    curves, ends = drawn[0].axes
    assert curves.lines[0].get_label() == "wide"
    assert curves.lines[0].get_xdata() == pytest.approx([0.004, 0.008])
    assert curves.lines[0].get_ydata() == pytest.approx([25, 50])
    band = curves.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (12.5, 75)
    assert list(ends.lines[1].get_xdata()) == [75, 25]


def test_a_run_that_did_not_record_its_seconds_has_no_result(machine, here, tmp_path):
    def forget(started):
        if started == ("eval", "wide-0"):
            (path,) = tmp_path.glob("**/wide-0/metrics.jsonl")
            path.write_text(path.read_text().replace("30.0", "null"))

    machine.on_start = forget
    done = here()
    assert done.returncode == 1
    assert "its last line has no train/seconds" in done.stdout + done.stderr
    assert not (tmp_path / "out" / "wide-0.json").exists()


def test_a_processor_is_named_with_its_instruction_set(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("model name\t: Fast CPU\nflags\t\t: fpu avx avx2\n")
    cores = f"{os.cpu_count()} cores"
    assert sweep_results.processor(["cpu"], path) == f"Fast CPU (avx2, {cores})"
    assert sweep_results.processor(["H200"] * 4, path) == "4 x H200"
    assert cores in sweep_results.processor(["cpu"], tmp_path / "missing")


TINY = """
from trm_jax.commands.sweep_runs import Arm, Sweep

SMALL = {
    "model.d_model": 16,
    "train.steps": 150,
    "train.log_every": 5,
    "train.eval_every": 0,
}

def get_sweep():
    arms = (Arm("a", "smoke", SMALL), Arm("b", "smoke", SMALL | {"optim.lr": 1e-3}))
    return Sweep("Tiny", arms, seeds=(0, 1))
"""


@pytest.mark.slow
def test_a_sweep_that_is_interrupted_ends_as_if_it_had_not_been(tmp_path):
    (tmp_path / "tiny.py").write_text(TINY)
    out = tmp_path / "out"
    words = command("sweep.py", tmp_path / "tiny.py", f"--out={out}", "--jobs=2")
    child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
    lines, limit = out / "workdirs" / "a-0" / "metrics.jsonl", time.monotonic() + 120
    while not (lines.exists() and lines.read_text().count("\n") > 2):
        assert child.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 75
    assert not list(out.glob("*.json"))
    done = (
        call(*words[1:], timeout=600)
        if False
        else subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
        )
    )
    assert done.returncode == 0, done.stdout + done.stderr
    starts = (out / "workdirs" / "a-0" / "runs.jsonl").read_text().splitlines()
    assert len(starts) == 2
    assert 0 < json.loads(starts[1])["from_step"] < 150
    flags = ["--config=smoke", "--config.model.d_model=16", "--config.train.steps=150"]
    flags += ["--config.train.log_every=5", "--config.train.eval_every=0"]
    whole = call("train.py", f"--workdir={tmp_path / 'whole'}", *flags)
    assert whole.returncode == 0, whole.stderr
    resumed = metric_lines(out / "workdirs" / "a-0")
    assert resumed == metric_lines(tmp_path / "whole")
    result = json.loads((out / "a-0.json").read_text())
    assert result["exact_accuracy"] == resumed[-1]["eval/exact_accuracy"]
    assert result["puzzles"] == 64
    assert result["exact"] == round(64 * result["exact_accuracy"])
    assert result["minutes"] > 0
    assert result["curve"] == [[150, result["exact_accuracy"]]]
    report = call("train.py", "--dry_run", *flags)
    assert result["parameters"] == json.loads(report.stdout)["parameters"]
    assert "4 of 4 runs are done" in (out / "table.md").read_text()
