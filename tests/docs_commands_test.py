# SPDX-License-Identifier: Apache-2.0
"""Every command that README and docs show can be given: flags, configs, modules."""

import importlib.util
import re
import shlex

import pytest
from absl import flags

from tests.helpers.runs import ROOT, call_here
from trm_jax import api
from trm_jax.commands import config_flag, solve, train
from trm_jax.commands import eval as eval_command
from trm_jax.training.config import read_run

PAGES = sorted(["README.md", "CONTRIBUTING.md", *map(str, ROOT.glob("docs/*.md"))])
# A command, its lines continued by a backslash, up to a pipe or a comment.
COMMAND = re.compile(r"python ((?:\w+\.py|-m [\w.]+)(?:\\\n|[^\n|`#;])*)")
NAMES = {"VARIANT": "mlp_t", "HOST": "10.0.0.1", "process_id=I": "process_id=0"}


def commands():
    found = {}
    for page in PAGES:
        # Without what may be left out.
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


@pytest.mark.parametrize("words", of_script("train.py"), ids=" ".join)
def test_every_training_that_is_shown_has_a_config(words):
    values = flags.FlagValues()
    config_flag.define(values, words)
    train._define_flags(values)
    if not any(word.startswith("--config=") for word in words):
        words = (*words, "--config=configs/smoke.py")  # it shows other flags
    config = config_flag.read(values, words, like=api.get_config().to_dict()).to_dict()
    assert read_run(config).train.steps > 0
    api.pipeline("tasks").task_of(config["data"])
    assert values.workdir or values.dry_run or values.distributed or values.coordinator


@pytest.mark.parametrize(
    "words", of_script("eval.py") + of_script("solve.py"), ids=" ".join
)
def test_every_evaluation_that_is_shown_has_flags_that_exist(words, tmp_path):
    main = {"eval.py": eval_command.main, "solve.py": solve.main}[words[0]]
    line = [re.sub(r"^--workdir=.*", f"--workdir={tmp_path}", w) for w in words[1:]]
    result = call_here(main, *line)
    assert result.returncode == 2
    assert f"{tmp_path}/config.json: not found" in result.stderr


@pytest.mark.parametrize("name", sorted({w[1] for w in commands() if w[0] == "-m"}))
def test_every_module_that_is_shown_exists(name):
    assert importlib.util.find_spec(name.replace("NAME", "maze_hard")), name
