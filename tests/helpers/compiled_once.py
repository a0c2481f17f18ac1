# SPDX-License-Identifier: Apache-2.0
"""Runs of the same config in one process share their compiled steps."""

import copy
import json

import jax

from trm_jax.commands import stop_signal
from trm_jax.evaluation import evaluate
from trm_jax.training import build
from trm_jax.training.config import read_run

_DONE = {}
# Settings of `train` that are read between steps: no compiled program reads them.
BETWEEN_STEPS = ("on_save_error", "keep_checkpoints", "checkpoint_every", "eval_every")


def share_compilations(monkeypatch):
    def shared(make, key_of):
        def once(*args, **kwargs):
            key = make.__name__, key_of(*args, **kwargs)
            # The arguments are kept as well, so that their ids are not reused.
            if key not in _DONE:
                _DONE[key] = make(*args, **kwargs), args
            return _DONE[key][0]

        return once

    def by_text(config, sizes):
        compiled = copy.deepcopy(config)
        for name in BETWEEN_STEPS:
            compiled["train"].pop(name, None)
        return json.dumps([compiled, sizes, jax.enable_x64.value])

    def by_recipe(recipe, mesh, **kwargs):
        return id(recipe), id(mesh), json.dumps(kwargs)

    once = shared(build.build, by_text)

    def built(config, sizes):
        run = read_run(config)
        return once(config, sizes)._replace(run=run)

    monkeypatch.setattr(build, "build", built)
    make = shared(evaluate.make_eval_step, by_recipe)
    monkeypatch.setattr(evaluate, "make_eval_step", make)


def run_commands_here(monkeypatch):
    """Let commands run in this process: they share programs and handle no signals."""
    share_compilations(monkeypatch)
    monkeypatch.setattr(stop_signal, "StopSignal", lambda: lambda: False)
