# SPDX-License-Identifier: Apache-2.0
"""docs/inspect.md: its examples run, and the functions that it lists exist."""

import importlib
import re

import pytest

import trm_jax
from tests.helpers.runs import ROOT
from tests.helpers.untrained import model_of
from tests.wheel_test import EXAMPLE

PAGE = (ROOT / "docs" / "inspect.md").read_text()
CALL = re.compile(r"^\| `(\w+)\.(\w+)\((.*?)\)` \|", re.MULTILINE)


@pytest.mark.parametrize(
    "mixer", ["attention", pytest.param("mamba2_both", marks=pytest.mark.slow)]
)
def test_the_examples_run_one_after_the_other(mixer, monkeypatch, capsys):
    def edit(config):
        config.model.update(layers=(mixer, "swiglu"), d_model=16)
        config.model.token_mlp.width = 0  # unread, so it must have its default
        if mixer == "mamba2_both":
            config.model.mamba2.update(head_dim=8, d_state=4)

    model = model_of(edit=edit, h_cycles=1, l_cycles=1)
    monkeypatch.setattr(trm_jax, "load", lambda path: {"runs/first": model}[path])
    first, second = EXAMPLE.findall(PAGE)
    assert len(first.splitlines()) == 10
    names = {}
    for code in (first, second):
        exec(code, names)
    printed = capsys.readouterr().out
    inside = "attends to [" if mixer == "attention" else "backward keeps 0."
    for text in ("exponent: ", "spectral radius: ", "net leaves", inside):
        assert text in printed


@pytest.mark.parametrize("call", CALL.findall(PAGE), ids=".".join)
def test_a_function_that_is_listed_exists(call):
    module, name, _ = call
    found = importlib.import_module(f"trm_jax.inspect.{module}")
    assert callable(getattr(found, name))


def test_functions_are_listed():
    assert len(CALL.findall(PAGE)) >= 12
