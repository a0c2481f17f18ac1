# SPDX-License-Identifier: Apache-2.0
"""Pages quote the code as it is, and the examples of CONTRIBUTING.md work.

`python -m tests.docs_test` updates the quoted parts of these pages.
"""

import json
import re
from collections.abc import Callable

import pytest

from data_pipeline import settings as data_settings
from tests.helpers.compiled_once import run_commands_here
from tests.helpers.operators.shift import Shift
from tests.helpers.rules.turns import Turns
from tests.helpers.runs import ROOT, call_here
from trm_jax.commands import eval as eval_command
from trm_jax.commands import settings as settings_page
from trm_jax.commands import train as train_command
from trm_jax.model.sublayers import SUBLAYERS
from trm_jax.rules import RULES

BLOCK = re.compile(r"<!-- file: (\S+) -->\n(?:```python\n.*?\n```\n)?", re.DOTALL)
QUOTE = re.compile(r"\| `(\S+):(\d+)` \| `(.+?)` \| ")


def with_files(text: str) -> str:
    """The page with each marked file in a block after its marker."""

    def block(marker: re.Match[str]) -> str:
        source = (ROOT / marker[1]).read_text()
        return f"<!-- file: {marker[1]} -->\n```python\n{source}```\n"

    return BLOCK.sub(block, text)


def with_line_numbers(text: str) -> str:
    """The page with the line number of each quoted line, 0 if the line is gone."""

    def quoted(row: re.Match[str]) -> str:
        path, number, code = row[1], int(row[2]), row[3].replace("\\|", "|")
        lines = (ROOT / path).read_text().splitlines()
        places = [i for i, line in enumerate(lines, 1) if line.strip() == code]
        nearest = min(places, key=lambda place: abs(place - number), default=0)
        return row[0].replace(f"{path}:{number}", f"{path}:{nearest}")

    return QUOTE.sub(quoted, text)


PAGES: dict[str, Callable[[str], str]] = {
    "CONTRIBUTING.md": with_files,
    "docs/figure3.md": with_line_numbers,
    "docs/settings.md": lambda _: settings_page.page(),
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_quotes_the_code_as_it_is(page):
    text = (ROOT / page).read_text()
    refresh = "`python -m tests.docs_test` writes it anew; then read the difference"
    assert text == PAGES[page](text), f"{page} does not follow the code: {refresh}"


def test_every_row_of_figure3_quotes_a_line():
    text = (ROOT / "docs" / "figure3.md").read_text()
    rows = [row for row in text.splitlines() if row.startswith("|")]
    rows = [row for row in rows if not row.startswith(("| Figure 3 |", "|---"))]
    assert len(rows) >= 19
    assert [row for row in rows if not QUOTE.search(row)] == []
    assert [row for row in rows if QUOTE.search(row)[2] == "0"] == []


def test_every_example_of_contributing_stands_there_whole():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert BLOCK.findall(text) == [
        "tests/helpers/operators/shift.py",
        "tests/helpers/rules/turns.py",
        "tests/helpers/futoshiki/task.py",
    ]


def test_the_files_that_contributing_names_exist():
    text = BLOCK.sub("", (ROOT / "CONTRIBUTING.md").read_text())
    names = re.findall(
        r"`((?:tests|docs|trm_jax|data_pipeline|configs)/[\w/.]*)`", text
    )
    assert len(names) >= 10
    assert [n for n in names if "NAME" not in n and not (ROOT / n).exists()] == []


EXAMPLE = """
from configs import default

def get_config():
    config = default.get_config()
    config.data.update(task="futoshiki", source="generator")
    config.data.update(train_puzzles=8, test_puzzles=6)
    config.data.futoshiki.num_signs = 10
    config.model.update(layers=("shift", "swiglu"), d_model=16, prefix_len=1)
    config.model.dtype = "float32"
    config.model.shift.reach = 2
    config.model.swiglu.width = 16
    config.rule.name = "turns"
    config.rule.turns.turns = 2
    config.halting.max_supervision_steps = 2
    config.train.update(steps=4, batch_size=4, log_every=1)
    config.eval.batch_size = 4
    return config
"""


@pytest.fixture
def examples(monkeypatch):
    """Register the operator, the rule and the puzzle of CONTRIBUTING.md."""
    monkeypatch.setitem(SUBLAYERS, "shift", Shift)
    monkeypatch.setitem(RULES, "turns", Turns)
    task = "tests.helpers.futoshiki.task"
    monkeypatch.setitem(data_settings.TASKS, "futoshiki", task)


def test_the_examples_train_evaluate_and_resume(examples, tmp_path, monkeypatch):
    run_commands_here(monkeypatch)
    (tmp_path / "own.py").write_text(EXAMPLE)
    run = tmp_path / "run"
    flags = f"--config={tmp_path / 'own.py'}", f"--workdir={run}"
    for steps in (2, 4):
        done = call_here(train_command.main, *flags, f"--config.train.steps={steps}")
        assert done.returncode == 0, done.stderr
    runs = (run / "runs.jsonl").read_text().splitlines()
    assert [json.loads(line)["from_step"] for line in runs] == [0, 2]
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    done = call_here(eval_command.main, f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    result = json.loads((run / "eval" / "step_4.json").read_text())
    assert 0 <= result["exact_accuracy"] <= 1
    assert result["cell_loss"] > 0


def test_the_settings_of_the_examples_are_listed_like_all_others(examples):
    page = settings_page.page()
    for key in ("model.shift.reach", "rule.turns.turns", "data.futoshiki.num_signs"):
        assert f"\n| `{key}` | " in page


def refresh() -> None:
    """Update the quoted parts of all pages."""
    for page, written in PAGES.items():
        path = ROOT / page
        path.write_text(written(path.read_text()))


if __name__ == "__main__":
    refresh()
