# SPDX-License-Identifier: Apache-2.0
"""Every command in README and docs is valid: its flags, configs and modules exist."""

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import pytest
from absl import flags

from tests.helpers.runs import ROOT, call, call_here
from trm_jax import api
from trm_jax.commands import config_flag, solve, sweep, train
from trm_jax.commands import eval as eval_command
from trm_jax.training.config import read_run

PAGES = sorted(["README.md", "CONTRIBUTING.md", *map(str, ROOT.glob("docs/*.md"))])
# A command up to a pipe or a comment; a backslash continues its line.
COMMAND = re.compile(r"python ((?:\w+\.py|-m [\w.]+)(?:\\\n|[^\n|`#;])*)")
NAMES = {"VARIANT": "mlp_t", "HOST": "10.0.0.1", "process_id=I": "process_id=0"}


def commands():
    found = {}
    for page in PAGES:
        # Optional parts are removed.
        whole = re.sub(r"\[--[^]]*\]|\.\.\.", "", (ROOT / page).read_text())
        for text in COMMAND.findall(whole):
            for name, value in NAMES.items():
                text = text.replace(name, value)
            words = tuple(shlex.split(text.replace("\\\n", " ")))
            found.setdefault(words, page)
    return list(found)


def of_script(script):
    return [words for words in commands() if words[0] == script and len(words) > 1]


def test_there_are_commands():
    assert len(of_script("train.py")) >= 20
    assert len(of_script("eval.py")) >= 6
    assert len(of_script("solve.py")) >= 2
    assert len(of_script("sweep.py")) >= 1


@pytest.mark.parametrize("words", of_script("train.py"), ids=" ".join)
def test_every_training_that_is_shown_has_a_config(words):
    values = flags.FlagValues()
    config_flag.define(values, words)
    train._define_flags(values)
    if not any(word.startswith("--config=") for word in words):
        words = (*words, "--config=configs/smoke.py")  # the page shows other flags
    config = config_flag.read(values, words, like=api.get_config().to_dict()).to_dict()
    assert read_run(config).train.steps > 0
    api.pipeline("tasks").task_of(config["data"])
    assert values.workdir or values.dry_run or values.distributed or values.coordinator


@pytest.mark.parametrize(
    "words", of_script("eval.py") + of_script("solve.py"), ids=" ".join
)
def test_every_evaluation_that_is_shown_has_flags_that_exist(words, tmp_path):
    main = {"eval.py": eval_command.main, "solve.py": solve.main}[words[0]]
    place = r"^--(workdir|weights_file)=.*"
    line = [re.sub(place, rf"--\1={tmp_path}", word) for word in words[1:]]
    result = call_here(main, *line)
    assert result.returncode == 2
    assert f"{tmp_path}/config.json: not found" in result.stderr


@pytest.mark.parametrize("words", of_script("sweep.py"), ids=" ".join)
def test_every_sweep_that_is_shown_can_start(words, tmp_path):
    line = [re.sub(r"^--out=.*", f"--out={tmp_path}", word) for word in words[1:]]
    result = call_here(sweep.main, *line, "--dry_run", "--only=none")
    assert result.returncode == 2
    assert "--only=none: expected arms of " in result.stderr


@pytest.mark.parametrize("name", sorted({w[1] for w in commands() if w[0] == "-m"}))
def test_every_module_that_is_shown_exists(name):
    assert importlib.util.find_spec(name.replace("NAME", "maze_hard")), name


# Trainings whose data are generated or stand in for: they are tried with --dry_run.
AT_HAND = ("demo", "smoke", "sudoku_4x4", "maze_small", "sudoku_cpu")
# What stands in for the reader's own files.
BAD = ROOT / "tests" / "data_pipeline" / "bad"
FILES = {"maze FILE": "maze_ok.csv", "arc FOLDER": "arc_ok"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which the shown training of the smoke test has run."""
    folder = tmp_path_factory.mktemp("shown")
    (words,) = (w for w in of_script("train.py") if "--workdir=runs/smoke" in w)
    done = call(*inside(folder, words))
    assert done.returncode == 0, done.stderr
    return folder


def inside(folder, words):
    """The command with its runs and pictures in `folder`; D is a run, too."""
    words = [re.sub("^--workdir=D$", "--workdir=runs/D", word) for word in words]
    return [re.sub(r"(^|=)(runs|docs)/", rf"\g<1>{folder}/", word) for word in words]


def placed(folder, words):
    """The same, with the trained run under the name of each run that it reads."""
    for word in inside(folder, words):
        name = re.sub("^--(workdir|weights_file)=", "", word)  # both may be a run
        run = Path(name)
        is_run = run.parent == folder and not run.suffix
        is_run |= word != name and folder in run.parents  # of a sweep
        if is_run and not run.exists():
            shutil.copytree(folder / "smoke", run)
    own = f"--data={BAD / 'sudoku_ok.csv'}"  # in the place of the reader's puzzles
    others = "--data=hard.csv", "--data=test.csv"
    return [own if w in others else w for w in inside(folder, words)]


def reading():
    """The shown commands that read a run; all votes of a Sudoku would take minutes."""
    modules = ("trm_jax.inspect.plots", "trm_jax.inspect.playground")
    written = [w for w in commands() if w[0] == "-m" and w[1] in modules]
    each = of_script("eval.py") + of_script("solve.py") + written
    return [words for words in each if "--votes=0" not in words]


@pytest.mark.slow
@pytest.mark.parametrize("words", reading(), ids=" ".join)
def test_a_command_that_reads_a_run_does_so(words, trained):
    done = call(*placed(trained, words))
    # 1 says that a puzzle is not solved; the smoke test's network solves few.
    assert done.returncode in ((0, 1) if words[0] == "solve.py" else (0,)), done.stderr
    if words[0] == "-m":
        outs = [word.removeprefix("--out=") for word in words]
        (out,) = (word for word in outs if word.endswith((".png", ".html")))
        assert (trained / Path(out).name).stat().st_size > 10_000
    else:
        assert "exact accuracy" in done.stdout or "supervision step" in done.stdout


def with_data_at_hand():
    return [
        words
        for words in of_script("train.py")
        if any(
            re.match(rf"--config=configs/({'|'.join(AT_HAND)}).py", w) for w in words
        )
    ]


@pytest.mark.slow
@pytest.mark.parametrize("words", with_data_at_hand(), ids=" ".join)
def test_a_training_whose_data_are_at_hand_would_start(words, tmp_path):
    files = {"=train.csv": "sudoku_ok.csv", "=test.csv": "sudoku_ok.csv"}
    line = inside(tmp_path, words)
    for name, file in files.items():
        line = [word.replace(name, f"={BAD / file}") for word in line]
    line = [word for word in line if not word.startswith("--init_from=")]
    done = call(*line, "--dry_run")
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout


@pytest.mark.slow
def test_files_are_checked_as_shown():
    shown = [w for w in commands() if w[:2] == ("-m", "data_pipeline.check")]
    tried = 0
    for words in shown:
        kind = " ".join(words[2:])
        if kind in FILES:
            done = call(*words[:2], kind.split()[0], BAD / FILES[kind])
            assert done.returncode == 0, done.stderr
            tried += 1
    assert tried == len(FILES)


@pytest.mark.slow
def test_the_settings_page_is_printed_as_shown():
    done = call("-m", "trm_jax.commands.settings")
    assert done.stdout == (ROOT / "docs" / "settings.md").read_text()
