# SPDX-License-Identifier: Apache-2.0
"""eval.py --report on short runs of every task."""

import json
import re

import numpy as np
import pytest

from tests.helpers.runs import ROOT, as_flags, call_here, short_flags
from trm_jax.commands import eval as eval_command
from trm_jax.commands import eval_page, train
from trm_jax.files import json_digest
from trm_jax.inspect import report_page
from trm_jax.runtime.workdir import read_run

pytestmark = pytest.mark.usefixtures("commands_here")

SMALL = {
    "model.d_model": 16,
    "rule.trm.h_cycles": 1,
    "rule.trm.l_cycles": 1,
    "halting.max_supervision_steps": 2,
    "train.batch_size": 8,
    "train.steps": 2,
    "eval.batch_size": 8,
}
SETS = {"data.train_puzzles": 12, "data.test_puzzles": 8}
SIDE = {"data.maze.side": 5, "data.maze.min_moves": 3}
ARC = {"data.train": ROOT / "tests/data_pipeline/bad/arc_ok", "data.test_puzzles": 0}
RUNS = {
    "sudoku": lambda: short_flags(**{"train.steps": 20}),
    "maze": lambda: as_flags("configs/maze_small.py", **SMALL, **SETS, **SIDE),
    "nonogram": lambda: as_flags("configs/nonogram.py", **SMALL, **SETS),
    "arc": lambda: as_flags("configs/arc_small.py", **SMALL, **ARC),
}
SLOW = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("maze", "nonogram", "arc")
]


@pytest.fixture
def pages(monkeypatch):
    """What the pages are made from: title, result, facts, failures and look."""
    made, page = [], report_page.page
    monkeypatch.setattr(report_page, "page", lambda *a: (made.append(a), page(*a))[1])
    return made


@pytest.mark.parametrize("task", ["sudoku", *SLOW])
def test_a_page_shows_the_evaluation_of_every_task(task, tmp_path, pages):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "run"
    done = call_here(train.main, f"--workdir={folder}", *RUNS[task]())
    assert done.returncode == 0, done.stderr
    done = call_here(eval_command.main, f"--workdir={folder}", "--report")
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "eval").glob("step_*.html")
    assert f"page written to {path}" in done.stdout
    result = json.loads(path.with_suffix(".json").read_text())
    ((title, shown, facts, failures, _),) = pages
    assert title.startswith("run, step ")
    assert json.loads(json.dumps(shown)) == result
    assert facts["config"] == f"SHA-256 {json_digest(read_run(folder)[0])}"
    assert f"<td>{facts['config']}</td>" in path.read_text()
    wrong = round((1 - result["exact_accuracy"]) * result["puzzles"])
    assert 0 < len(failures) == min(wrong, eval_page.MOST_FAILURES)
    for one in failures:
        np.testing.assert_array_equal(one.wrong, one.answer != one.truth)
        assert one.wrong.any()
        assert f"; {one.wrong.sum()} cells wrong" in one.about
        if task == "sudoku":
            np.testing.assert_array_equal(one.given, one.question > 1)
            np.testing.assert_array_equal(one.truth[one.given], one.question[one.given])
    sure = [float(re.search(r"; ([\d.]+) % sure", one.about)[1]) for one in failures]
    assert sure == sorted(sure, reverse=True)


def test_a_page_can_be_put_elsewhere_and_needs_matplotlib(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    folder, place = tmp_path / "run", tmp_path / "page.html"
    done = call_here(train.main, f"--workdir={folder}", *RUNS["sudoku"]())
    assert done.returncode == 0, done.stderr
    flags = f"--workdir={folder}", f"--report={place}"
    assert call_here(eval_command.main, *flags).returncode == 0
    assert place.read_text().endswith("</html>\n")
    assert not [*folder.glob("eval/*.html")]
    monkeypatch.setattr(eval_page.importlib.util, "find_spec", lambda _: None)
    done = call_here(eval_command.main, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --report: matplotlib is not installed; ")
    assert "rows" not in done.stdout
