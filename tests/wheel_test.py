# SPDX-License-Identifier: Apache-2.0
"""The wheel, installed into an empty folder, does what the README says."""

import os
import re
import subprocess
import sys

import pytest

from tests.helpers.runs import ROOT

EXAMPLE = re.compile(r"<!-- example -->\n```python\n(.*?)```", re.DOTALL)
ABOUT = """
import sys
names = {name.split(".")[0] for name in sys.modules}
assert not names & {"data_pipeline", "configs", "tests"}, names
print("from", trm_jax.__file__)
"""


def example():
    (text,) = EXAMPLE.findall((ROOT / "README.md").read_text())
    return text


def test_the_example_of_the_readme_is_short():
    assert len(example().splitlines()) <= 30
    compile(example(), "README.md", "exec")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the installed wheel, and an environment that finds it first."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = subprocess.run(
        [*pip, "wheel", "--no-deps", f"--wheel-dir={folder}", str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("hatchling cannot be installed without a network")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    line = [*pip, "install", "--no-deps", f"--target={site}", str(wheel)]
    subprocess.run(line, check=True)
    return site, os.environ | {"PYTHONPATH": str(site)}


def run(installed, folder, *line):
    done = subprocess.run(
        line, cwd=folder, env=installed[1], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done


@pytest.mark.slow
def test_the_example_of_the_readme_runs(installed, tmp_path):
    done = run(installed, tmp_path, sys.executable, "-c", example() + ABOUT)
    assert done.returncode == 0, done.stderr
    assert "valid: True" in done.stdout
    assert f"from {installed[0]}" in done.stdout
    assert (tmp_path / "runs" / "first" / "checkpoints").is_dir()


@pytest.mark.slow
def test_the_commands_of_the_wheel_run(installed, tmp_path):
    scripts = installed[0] / "bin"
    few = ["--config.train.steps=4", "--config.train.eval_every=0"]
    where = "--workdir=run"
    line = [sys.executable, scripts / "trm-train", "--config=smoke:attention"]
    trained = run(installed, tmp_path, *line, where, *few)
    assert trained.returncode == 0, trained.stderr
    evaluated = run(installed, tmp_path, sys.executable, scripts / "trm-eval", where)
    assert "exact accuracy" in evaluated.stdout
    solved = run(installed, tmp_path, sys.executable, scripts / "trm-solve", where)
    assert "supervision step 1:" in solved.stdout
    own = tmp_path / "own.py"
    own.write_text(
        "import trm_jax\n\n\ndef get_config():\n"
        "    config = trm_jax.get_config('smoke')\n"
        "    config.train.steps = 2\n    return config\n"
    )
    line = [sys.executable, scripts / "trm-train", f"--config={own}", "--workdir=own"]
    assert run(installed, tmp_path, *line).returncode == 0
    page = [sys.executable, "-m", "trm_jax.inspect.playground", "own", "page.html"]
    assert "open it in a browser" in run(installed, tmp_path, *page).stdout
    check = [sys.executable, "-m", "trm_jax.data_pipeline.check", "sudoku"]
    bad = ROOT / "tests" / "data_pipeline" / "bad" / "sudoku_ok.csv"
    assert run(installed, tmp_path, *check, str(bad)).returncode == 0
    assert (installed[0] / "trm_jax" / "py.typed").exists()


@pytest.mark.slow
def test_a_notebook_runs_with_the_wheel_in_any_folder(installed, tmp_path):
    script = (ROOT / "notebooks" / "01_solve_and_watch.py").read_text()
    done = run(installed, tmp_path, sys.executable, "-c", script + ABOUT)
    assert done.returncode == 0, done.stderr
    assert f"from {installed[0]}" in done.stdout
    assert (tmp_path / "figures" / "playground.html").exists()
