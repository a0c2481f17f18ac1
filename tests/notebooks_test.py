# SPDX-License-Identifier: Apache-2.0
"""notebooks/: the scripts run, and each .ipynb is its script with outputs."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest

from tests.helpers.runs import ROOT

FOLDER = ROOT / "notebooks"
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))
NAMES = [path.stem for path in SCRIPTS]
MOST_BYTES = 1_000_000


def cells_of_script(name):
    """The kind and the text of each cell of a script, as Jupyter has them."""
    _, *parts = re.split(r"^# %%", (FOLDER / f"{name}.py").read_text(), flags=re.M)
    for part in parts:
        head, _, text = part.partition("\n")
        if head.strip() == "[markdown]":
            yield "markdown", re.sub(r"^# ?", "", text, flags=re.M).strip()
        else:
            yield "code", text.strip()


def book(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text())


def outputs(name):
    return [one for cell in book(name)["cells"] for one in cell.get("outputs", ())]


def pictures(name):
    return sum("image/png" in one.get("data", ()) for one in outputs(name))


def words(text):
    """What a notebook prints, without its numbers, which rounding may change."""
    return re.sub(r"[-+.\d]+(e[-+]?\d+)?", "#", text).split()


def run_script(name, folder):
    """What the script prints, as from a user's shell."""
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_four_notebooks():
    assert len(NAMES) == 4
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_the_cells_of_its_script(name):
    cells = [
        (cell["cell_type"], "".join(cell["source"])) for cell in book(name)["cells"]
    ]
    stale = "`make notebooks` writes it anew"
    assert cells == [*cells_of_script(name)], f"{name}.ipynb is out of date: {stale}"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_was_run_from_top_to_bottom_without_an_error(name):
    code = [cell for cell in book(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, 1 + len(code))]
    kinds = {one["output_type"] for one in outputs(name)}
    assert kinds == {"stream", "display_data"}
    assert {one.get("name", "stdout") for one in outputs(name)} == {"stdout"}
    assert pictures(name) >= 3
    assert (FOLDER / f"{name}.ipynb").stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_begins_and_ends_as_all_do_and_names_no_place(name):
    texts = [text for kind, text in cells_of_script(name) if kind == "markdown"]
    assert texts[0].startswith(f"# {int(name[:2])}. ")
    assert "It takes about " in texts[0]
    assert texts[-1].startswith("## What to try next\n")
    script = (FOLDER / f"{name}.py").read_text()
    assert "# SPDX-License-Identifier: Apache-2.0" in script
    whole = (FOLDER / f"{name}.ipynb").read_text()
    for place in ("/tmp/", "/home/", "/root/", "file://", "http://", "https://"):
        assert place not in whole.replace("http://www.w3.org", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_imports_what_the_wheel_brings(name):
    roots = set()
    for one in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        if isinstance(one, ast.ImportFrom):
            roots.add(one.module.split(".")[0])
        elif isinstance(one, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in one.names}
    assert "trm_jax" in roots
    assert roots - set(sys.stdlib_module_names) <= {"jax", "numpy", "trm_jax"}


@pytest.mark.parametrize(
    "name",
    [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])],
)
def test_a_script_prints_and_draws_what_its_notebook_shows(name, tmp_path):
    printed = run_script(name, tmp_path)
    stored = "".join("".join(one.get("text", "")) for one in outputs(name))
    assert words(printed) == words(stored)
    drawn = len([*(tmp_path / "figures").glob("*.png")])
    assert 0 < drawn <= pictures(name)
    for picture in (tmp_path / "figures").glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
