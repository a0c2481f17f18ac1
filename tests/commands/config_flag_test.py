# SPDX-License-Identifier: Apache-2.0
"""Wrong config files and flags give one line that says what is wrong, and where."""

import re

import pytest
from absl import flags

from configs import default
from data_pipeline import settings
from data_pipeline.errors import DataError
from trm_jax.commands import config_flag
from trm_jax.errors import ConfigError
from trm_jax.rules import RULES
from trm_jax.settings import flatten
from trm_jax.training.config import read_run

HEAD = "from configs import smoke\ndef get_config():\n    c = smoke.get_config()\n"


def resolved(*arguments):
    """The config that train.py reads from these arguments."""
    argv = ["train.py", *arguments]
    values = flags.FlagValues()
    config_flag.define(values, argv)
    return config_flag.read(values, argv, like=default.get_config().to_dict())


def test_a_config_is_taken_with_its_overrides_and_locked():
    config = resolved("--config=configs/smoke.py", "--config.train.steps=7")
    assert config.train.steps == 7
    with pytest.raises(AttributeError):
        config.train.new = 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config=smoke:attention"],
        ["--config=configs/smoke.py:attention"],
        ["--config", "smoke:attention"],
        ["-config=demo", "--config=smoke:attention"],
    ],
)
def test_a_shipped_config_goes_by_its_name_or_file(arguments):
    config = resolved(*arguments, "--config.train.steps=7")
    assert config.model.layers == ("attention", "swiglu") * 2
    assert (config.model.d_model, config.train.steps) == (32, 7)


def test_a_file_of_ones_own_is_no_shipped_config_of_its_name(tmp_path):
    file = tmp_path / "smoke.py"
    file.write_text(f"{HEAD}    c.train.steps = 3\n    return c\n")
    assert resolved(f"--config={file}").train.steps == 3


@pytest.mark.parametrize(
    ("text", "told"),
    {
        "syntax": ("def get_config(:\n", r"FILE line 1: invalid syntax"),
        "import": (
            "\nimport no_such_module\n",
            r"FILE line 2: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        "error": (
            "def get_config():\n    raise ValueError('expected another task')\n",
            r"Error whilst parsing config file: ValueError: expected another task",
        ),
        "key error": (
            "def get_config():\n    return {}['a key']\n",
            r"FILE line 2: KeyError: a key",
        ),
        "attribute": (
            f"{HEAD}    c.modle.dtype = 3\n",
            r"FILE line 4: AttributeError: 'modle' Did you mean \"model\" .*",
        ),
        "type": (
            f"{HEAD}    c.train.steps = 'many'\n",
            r"Error whilst parsing config file: TypeError: .*'steps'.* many is .*",
        ),
        "no function": ("x = 1\n", r"AttributeError: .* no attribute 'get_config'"),
        "number": (
            "def get_config():\n    return 3\n",
            r"get_config\(\) returned int, not ConfigDict",
        ),
        "few keys": (
            "from ml_collections import ConfigDict\n"
            "def get_config():\n    return ConfigDict({'seed': 1})\n",
            r"it has no data.arc.allow_leaks, .* and \d+ more; expected: .*default.py",
        ),
        "of format 1": (
            "from ml_collections import ConfigDict\n"
            "def get_config():\n    return ConfigDict({'optim': {'b1': 1.0}})\n",
            r"its key optim.b1 has moved to optim.adam_atan2.b1",
        ),
        "one too many": (
            f"{HEAD}    c.model.depth = 3\n    return c\n",
            r"it has unknown model.depth; expected: configs/default.py",
        ),
    }.values(),
)
def test_a_wrong_file_is_told_with_its_place(tmp_path, text, told):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        resolved(f"--config={file}")
    message = str(error.value)
    assert "\n" not in message
    match = rf"(flag )?--config(=\S+)?: {told.replace('FILE', str(file))}"
    assert re.fullmatch(match, message), message


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--config=missing.py"], "--config: [Errno 2] No such file or directory: "),
        (["--config=configs"], "--config: [Errno 21] Is a directory: 'configs'"),
        ([], "--config=FILE is missing"),
        (["--config=smok"], "config 'smok'; expected one of arc_agi_1, "),
        (["--config=smoke:x"], "config smoke:x: unknown variant 'x'; expected one of"),
        (["--config=configs/smoke.py", "more"], "unexpected argument 'more'"),
        (
            ["--config=configs/smoke.py", "--config.train.stesp=1"],
            "--config.train.stesp: unknown key; did you mean --config.train.steps?",
        ),
        (
            ["--config=configs/smoke.py", "--config.trian.steps=1"],
            "--config.trian: unknown key; did you mean --config.train?",
        ),
        (["--config=configs/smoke.py", "--config.=1"], "--config.: unknown key"),
        (
            ["--config=configs/smoke.py", "--config.seed.a=1"],
            "--config.seed.a: unknown key; --config.seed is a value",
        ),
        (
            ["--config=configs/smoke.py", "--noconfig.train.stesp"],
            "--config.train.stesp: unknown key",
        ),
    ],
)
def test_wrong_arguments_are_told(arguments, told):
    with pytest.raises(ConfigError) as error:
        resolved(*arguments)
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)


FLAT = set(flatten(default.get_config().to_dict()))


@pytest.mark.parametrize(("old", "new"), config_flag.MOVED.items())
def test_a_key_that_has_moved_names_its_new_place(old, new):
    assert old not in FLAT
    assert set(new.replace(" and ", " or ").split(" or ")) <= FLAT
    with pytest.raises(ConfigError) as error:
        resolved("--config=configs/smoke.py", f"--config.{old}=1")
    assert str(error.value) == f"--config.{old}: the key has moved to {new}"


def run_of(*arguments):
    config = resolved(*arguments)
    read_run(config.to_dict())
    return config


@pytest.mark.parametrize("rule", [name for name in RULES if name not in ("trm", "wta")])
@pytest.mark.parametrize("file", ["configs/maze_hard.py", "demo"])
def test_every_rule_can_be_chosen_for_a_config_that_edits_another(file, rule):
    config = run_of(f"--config={file}", f"--config.rule.name={rule}")
    own, set_by_file = config.rule[rule], 4 if "maze" in file else 2
    assert own.get("l_cycles", set_by_file) == set_by_file
    assert config.rule.trm.to_dict() == default.get_config().rule.trm.to_dict()


def test_settings_move_to_the_rule_inside_another_and_stay_with_it():
    around = "--config=demo", "--config.rule.name=wta"
    assert run_of(*around).rule.trm.l_cycles == 2
    rule = run_of(*around, "--config.rule.wta.inner=eqr").rule
    assert (rule.wta.inner, rule.eqr.l_cycles, rule.trm.l_cycles) == ("eqr", 2, 6)


def test_a_file_of_ones_own_gives_way_too_and_a_flag_has_the_last_word(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(f"{HEAD}    c.rule.trm.label_smoothing = 0.1\n    return c\n")
    flags = f"--config={file}", "--config.rule.name=eqr", "--config.rule.eqr.h_cycles=5"
    rule = run_of(*flags).rule
    assert (rule.eqr.h_cycles, rule.eqr.l_cycles) == (5, 2)
    assert (rule.eqr.label_smoothing, rule.trm.label_smoothing) == (0.1, 0)


def test_overrides_of_a_recorded_config_move_settings_too():
    base = resolved("--config=demo").to_dict()
    rule = config_flag.over(base, ["--config.rule.name=eqr"]).rule
    assert (rule.eqr.l_cycles, rule.trm.l_cycles) == (2, 6)


def test_chains_go_around_the_rule_of_the_config():
    rule = run_of("--config=demo:eqr", "--config.rule.name=wta").rule
    assert (rule.wta.inner, rule.eqr.l_cycles) == ("eqr", 2)
    inner = "--config.rule.wta.inner=trm"
    assert run_of("--config=demo:eqr", "--config.rule.name=wta", inner).rule.trm


def test_what_the_new_rule_lacks_is_told(capsys):
    run_of("--config=demo:mlp_t+every_cycle", "--config.rule.name=hrm")
    told = "rule.trm.every_cycle = True of the config is left out: rule 'hrm' has no"
    assert told in capsys.readouterr().err
    run_of("--config=demo:mlp_t+every_cycle", "--config.rule.name=eqr")
    assert not capsys.readouterr().err


def test_puzzles_of_ones_own_replace_those_of_the_generator(tmp_path):
    own = "--config.data.source=csv", "--config.data.train=a", "--config.data.test=b"
    data = resolved("--config=demo", *own).data.to_dict()
    assert data["sudoku"] == {"box_rows": 2, "box_cols": 3, "clues": (0, 0)}
    assert settings.read(data)[0].source == "csv"
    clues = "--config.data.sudoku.clues=3,4"
    data = resolved("--config=demo", *own, clues).data.to_dict()
    with pytest.raises(DataError, match=r"clues = \(3, 4\).*which does not read it"):
        settings.read(data)
    mistake = tmp_path / "mine.py"
    mistake.write_text(f"{HEAD}    c.data.maze.side = 9\n    return c\n")
    data = resolved(f"--config={mistake}", *own).data.to_dict()
    with pytest.raises(DataError, match=r"data.maze.side = 9"):
        settings.read(data)
    maze = resolved("--config=demo", "--config.data.task=maze").data.to_dict()
    assert settings.read(maze)[0].task == "maze"


def test_other_operators_can_be_chosen_for_a_config_that_edits_its_own():
    flags = "--config=demo", "--config.model.layers=('attention','swiglu')"
    config = run_of(*flags)
    assert config.model.token_mlp.width == 0
    assert config.model.swiglu.width == 128


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config.rule.name=eqr", "--config.rule.trm.l_cycles=3"],
        ["--config.rule.eqr.noise=0.1"],
        ["--config.model.layers=('swiglu',)", "--config.model.token_mlp.width=9"],
        ["--config.optim.name=adamw", "--config.optim.adam_atan2.b1=0.5"],
    ],
)
def test_a_flag_that_nothing_reads_is_refused(arguments):
    with pytest.raises(ConfigError, match="nothing in this run reads"):
        run_of("--config=demo", *arguments)


def test_a_file_that_sets_what_it_does_not_read_is_refused(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(f"{HEAD}    c.rule.hrm.h_cycles = 3\n    return c\n")
    for more in ([], ["--config.rule.name=eqr"]):
        with pytest.raises(ConfigError, match=r"rule.hrm.h_cycles = 3, but nothing"):
            run_of(f"--config={file}", *more)


def test_two_commands_share_no_flag():
    smoke = resolved("--config=configs/smoke.py", "--config.train.steps=7")
    other = resolved("--config=configs/sudoku_cpu.py", "--config.train.batch_size=5")
    assert (smoke.train.steps, other.train.batch_size) == (7, 5)
    assert other.train.steps == 6_000
    assert "config" not in flags.FLAGS
