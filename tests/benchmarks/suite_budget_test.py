# SPDX-License-Identifier: Apache-2.0
"""The GPU suite keeps its budget, and needs few packages."""

import argparse
import itertools
import json
import time
from functools import partial

import pytest

from benchmarks import (
    gpu_suite,
    short_training,
    suite_parts,
    whole_runs,
)
from benchmarks.suite_parts import Case, Suite, single
from tests.benchmarks.absent import PACKAGES, without_packages
from tests.helpers.runs import ROOT, call


class Clock:
    """Seconds that pass only when a case says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def run(monkeypatch, parts, clock, budget_s=480):
    """The results of these parts, and how often they were saved."""
    monkeypatch.setattr(gpu_suite, "PARTS", parts)
    args = argparse.Namespace(parts=list(parts), budget_s=budget_s)
    result, saved = {"left_out": []}, []
    save = lambda: saved.append(json.dumps(result))  # noqa: E731
    assert gpu_suite.run(args, result, save, clock.now, clock) == 0
    return result, saved


def part(clock, *seconds):
    """A part whose cases take so long."""

    def cases(suite):
        for i, each in enumerate(seconds):

            def work(i=i, each=each):
                row = {"i": i, "left": suite.left()}
                clock.now += each
                return [(row, "")]

            yield Case({"i": i}, work)

    return cases


def test_a_case_starts_only_if_the_longest_one_so_far_would_end(monkeypatch):
    clock = Clock()
    parts = {
        "steps": part(clock, 100, 150, 10, 200, 1),
        "attention": part(clock, 1, 1),
        "ssd": part(clock, 1),
    }
    result, saved = run(monkeypatch, parts, clock)
    # After 260 s another 150 s fit, and after 460 s not another 200 s.
    assert [row["left"] for row in result["steps"]] == [480, 380, 230, 220]
    # A first case counts as 20 s.
    assert [row["left"] for row in result["attention"]] == [20, 19]
    assert result["ssd"] == []
    assert result["left_out"] == [{"part": "steps", "i": 4}, {"part": "ssd", "i": 0}]
    assert len(saved) == 8  # after every row, and every case that is left out


def test_what_ends_within_the_budget_is_not_left_out(monkeypatch):
    clock = Clock()
    parts = {"refill": part(clock, 300), "runs": part(clock, 170)}
    assert run(monkeypatch, parts, clock)[0]["left_out"] == []
    training = {"training": part(clock, 50)}
    for budget_s, left_out in ((60, []), (59, [{"part": "training", "i": 0}])):
        assert run(monkeypatch, training, clock, budget_s)[0]["left_out"] == left_out


def test_the_parts_before_the_training_leave_it_some_time(monkeypatch):
    clock = Clock()
    parts = {"steps": part(clock, *[100] * 5), "training": part(clock, 90)}
    result, _ = run(monkeypatch, parts | {"runs": part(clock, 1)}, clock)
    assert [row["left"] for row in result["steps"]] == [330, 230, 130]
    assert [row["left"] for row in result["training"]] == [180]
    assert [row["left"] for row in result["runs"]] == [90]
    clock.now = 0.0
    result, _ = run(monkeypatch, {"steps": parts["steps"]}, clock)
    assert [row["left"] for row in result["steps"]] == [480, 380, 280, 180]


@pytest.mark.parametrize(
    ("left", "updates"), [(400, 1800), (100, 400), (61, 10), (30, 2)]
)
def test_the_training_takes_what_is_left(left, updates, monkeypatch):
    steps = [
        {"mixer": "attention", "mosaic": False, "ms_per_step": 9.0},
        {"mixer": "mlp_t", "mosaic": True, "ms_per_step": 8.0},
        {"mixer": "mlp_t", "mosaic": False, "ms_per_step": 100.0},
    ]
    args = argparse.Namespace(batch=768)
    suite = Suite(args, {"steps": steps}, lambda: left)
    assert suite_parts.num_updates(suite) == updates

    def measure(steps, batch, stop_requested):
        return {"curve": [steps, batch, stop_requested()]}

    monkeypatch.setattr(short_training, "measure", measure)
    (case,) = suite_parts.training(suite._replace(left=lambda: left))
    ((row, _),) = case.work()
    assert row["curve"] == [updates, 768, False]
    (case,) = suite_parts.training(suite._replace(left=lambda: 9.9))
    ((row, _),) = case.work()
    assert row["curve"] == [2, 768, True]


def test_without_a_measured_step_the_training_measures_one(monkeypatch):
    def measure(mixer, dtype, batch, steps):
        assert (mixer, dtype, batch) == ("mlp_t", "bfloat16", 768)
        return {"ms_per_step": 50.0}

    monkeypatch.setattr(suite_parts.step, "measure", measure)
    suite = Suite(argparse.Namespace(batch=768), {"steps": []}, lambda: 160)
    assert suite_parts.num_updates(suite) == 2000


def test_processes_that_do_not_end_in_time_are_left_out(tmp_path, monkeypatch):
    end = time.monotonic() + 0.5

    def left():
        return end - time.monotonic()

    runs = partial(whole_runs.compare, "mlp_t", left)
    ((row, line),) = single({"network": "mlp_t"}, runs).work()
    assert row == {"network": "mlp_t", "left_out": "the process did not end in time"}
    assert line == f"network mlp_t left out: {row['left_out']}"
    script = tmp_path / "torch_step.py"
    script.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(suite_parts, "TORCH_STEP", script)
    torch_step = partial(suite_parts.torch_step, [], lambda: 0.2)
    ((row, _),) = single({}, torch_step).work()
    assert set(row) == {"left_out"}
    assert time.monotonic() < end + 30
    script.write_text("raise MemoryError('no room')")
    ((row, _),) = single({}, partial(suite_parts.torch_step, [], lambda: 60)).work()
    assert "MemoryError: no room" in row["failed"]


TORCH_STEP = """
import sys, types
for name in ("torch", "torch.nn", "torch.nn.functional"):
    sys.modules[name] = types.ModuleType(name)
torch, nn, functional = (sys.modules[name] for name in list(sys.modules)[-3:])
torch.Tensor, torch.nn, nn.functional, nn.Module = object, nn, functional, object
sys.path.insert(0, ROOT)
from benchmarks import torch_step
torch_step.measure = lambda **how: how | {
    "ms_per_step": 12.25, "torch": "2.11", "peak_bytes": 7
}
torch_step.main()
"""


def test_the_part_of_pytorch_has_its_numbers(tmp_path, monkeypatch):
    script = tmp_path / "torch_step.py"
    script.write_text(TORCH_STEP.replace("ROOT", repr(str(ROOT))))
    monkeypatch.setattr(suite_parts, "TORCH_STEP", script)
    monkeypatch.setattr(suite_parts.importlib.util, "find_spec", lambda name: name)
    args = argparse.Namespace(batch=4, steps=2)
    cases = list(suite_parts.in_torch(Suite(args, {}, lambda: 60)))
    found = [(case.about["mixer"], case.about["compiled"]) for case in cases]
    assert found == [*itertools.product(("mlp_t", "attention"), (False, True))]
    ((row, line),) = cases[3].work()
    assert row == {
        "mixer": "attention",
        "batch": 4,
        "compiled": True,
        "printed": "attention  12.2 ms/step, torch 2.11",
        "dtype": "bfloat16",
        "steps": 2,
        "ms_per_step": 12.25,
        "torch": "2.11",
        "peak_bytes": 7,
    }
    assert json.loads(line) == row


@pytest.mark.slow
def test_a_training_that_has_no_time_left_ends_with_its_curve():
    few = {"train_puzzles": 16, "test_puzzles": 4}
    answers = iter([False] * 6)
    found = short_training.measure(50, 1, lambda: next(answers, True), **few)
    steps = [line["step"] for line in found["curve"]]
    assert steps == [*range(1, len(steps) + 1)]
    assert 0 < len(steps) < 7


def test_the_suite_starts_without_the_packages_for_data_and_types(tmp_path):
    env = without_packages(tmp_path)
    result = call("benchmarks/gpu_suite.py", "--help", env=env)
    assert result.returncode == 0, result.stderr
    assert "--budget_s" in result.stdout
    code = "import sys; print([n for n, module in sys.modules.items() if not module])"
    absent = call("-m", "timeit", "-n1", "-r1", code, env=env).stdout
    assert str(list(PACKAGES)) in absent
